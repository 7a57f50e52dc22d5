"""Who carries the runs out: this machine, or Dask.

May use: extras, kernels, batch.
Makes numbers: no.
"""
