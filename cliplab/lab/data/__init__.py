"""Data for the notebooks, one file a kind: real data fetched by pip package name, generated tasks.

Import from the files (``cliplab.lab.data.corpora``): a notebook's results then depend on the data
that it uses and on no others.

May use: the core.
Makes numbers: yes.
"""
