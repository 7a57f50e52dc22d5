"""Board games for self-play: rules of many games at once. Import its files.

May use: nothing of the lab.
Makes numbers: yes.
"""
