"""Where does a notebook's code run? Kernels forked from a warm process, or stock ones on a leash.

May use: nothing of the lab.
Makes numbers: no.
"""
