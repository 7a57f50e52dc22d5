"""Who carries the runs out: this machine, or Dask.

May use: kernels, batch.
Makes numbers: no.
"""
