"""What do the records say of clipping together, a task at a time?

May use: stats, study, notebook, runs, claims.
Makes numbers: yes.
"""
