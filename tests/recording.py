"""What notebooks of tests begin with."""

from pathlib import Path
from typing import Any

from cliplab.lab.runs.keys import digest
from cliplab.lab.runs.record import MIME, RunRecord

# A `record` without what takes long to import; the run's provenance is then the runner's alone.
LIGHT = f"""
from IPython.display import display
def record(rows):
    payload = dict(rows=rows, curves=[], choices={{}}, provenance={{}})
    display({{"{MIME}": payload, "text/plain": "recorded"}}, raw=True)
"""


def put(results: Path, notebook: str, params: dict[str, Any], **recorded: Any) -> RunRecord:
    """A finished run in a results folder: its record, and an executed notebook that is empty."""
    preset, finished = recorded.pop("preset", "quick"), recorded.pop("finished", "2030")
    key = digest([notebook, preset, params, recorded.pop("code", "")])
    folder = results / notebook / preset / key[:16]
    given = {"rows": [], "curves": [], "choices": {}, "provenance": {"finished": finished}}
    record = RunRecord(notebook, preset, params, key, "c", **given | recorded, directory=folder)
    record.write(folder / "record.json")
    (folder / "notebook.ipynb").write_text("{}")
    return record
