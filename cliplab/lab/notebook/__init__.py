"""A notebook as a document: its cells, parameters and presets.

May use: nothing of the lab.
Makes numbers: no.
"""
