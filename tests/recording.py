"""Small notebooks of tests, what they begin with, and what they leave."""

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


def write_notebook(
    path: Path, *cells: str, parameters: str = "", title: str = "# A question?"
) -> Path:
    """A title, a parameters cell, then the given code cells."""
    import nbformat

    seeds = "first_seed: int = 0  # first seed [>= 0]\nn_seeds: int = 2  # seeds"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    tagged = nbformat.v4.new_code_cell(f"{parameters}\n{seeds}", metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.cells = [nbformat.v4.new_markdown_cell(title), tagged, *code]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


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
