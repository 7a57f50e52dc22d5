"""Which runs are asked for, and carrying them out.

May use: notebook, runs, kernels.
Makes numbers: no.
"""
