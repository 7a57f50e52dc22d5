"""The notebooks' models, one file a family. Import its files.

May use: the core, training.
Makes numbers: yes.
"""
