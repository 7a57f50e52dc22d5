"""Does clipping help a user's own training, in the time that there is?

May use: extras, notebook, runs, stats, study, claims, batch, executors, report.
Makes numbers: yes.
"""
