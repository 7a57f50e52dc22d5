"""What notebooks of tests begin with."""

from cliplab.lab.runs.record import MIME

# A `record` without what takes long to import; the run's provenance is then the runner's alone.
LIGHT = f"""
from IPython.display import display
def record(rows):
    payload = dict(rows=rows, curves=[], choices={{}}, provenance={{}})
    display({{"{MIME}": payload, "text/plain": "recorded"}}, raw=True)
"""
