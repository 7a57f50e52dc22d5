"""Are the numbers still the same?

Records are carried over changes that move no number: the measured code and today's run the same
short experiment, and all rows are compared bit for bit.

May use: notebook, runs, claims, batch.
Makes numbers: no.
"""
