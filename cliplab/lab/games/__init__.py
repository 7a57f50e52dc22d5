"""Board games for self-play: rules (OpenSpiel), search, matches. Import its files.

May use: the core.
Makes numbers: yes.
"""
