"""What did it come to? Verdicts, the site, the published results.

May use: the core, data, notebook, runs, stats, claims, across, kernels, batch, attest.
Makes numbers: no.
"""
