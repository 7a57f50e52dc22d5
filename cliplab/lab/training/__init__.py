"""Many models trained at once, what they are scored by, and what a run's columns mean.

May use: the core, data.
Makes numbers: yes.
"""
