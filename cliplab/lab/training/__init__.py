"""Many models trained at once, and what a run's columns mean.

May use: the core.
Makes numbers: yes.
"""
