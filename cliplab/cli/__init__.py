"""The command line.

May use: every room.
Makes numbers: no.
"""
