"""What a batch ends in: claims.json and the report, with the claims beside the notebooks."""

import json
from pathlib import Path

from cliplab.lab.report.outcome import judge_and_report
from cliplab.lab.runs.record import RunRecord

NAME = "01_exploding_gradients"
LEDGER = f"""
[C1]
statement = "nothing changes"
notebook = "{NAME}"
kind = "exact"
test = "exact"
metric = "same"
contrast = {{ a = 1 }}
n = 2
source = "-"
counter = "-"
expected = "supported"
"""


def finished(folder: Path, notebook: Path, lr: float = 0.1) -> RunRecord:
    folder.mkdir(parents=True)
    (folder / "notebook.ipynb").write_text(notebook.read_text())
    params = {"lr": lr, "first_seed": 0, "n_seeds": 1}
    rows = [{"arm": "a", "seed": 0, "same": True}]
    return RunRecord(NAME, "quick", params, f"{lr}" * 4, "c", rows, [], {}, {}, folder)


def test_the_claims_beside_the_notebooks_are_judged_if_there_are_any(tmp_path, make_notebook):
    notebook = make_notebook(tmp_path / "nb" / f"{NAME}.ipynb", parameters="lr: float = 0.1")

    def told(record: RunRecord) -> list[dict]:
        judge_and_report([record], tmp_path / "nb", tmp_path / "reports")
        assert (tmp_path / "reports" / "index.html").exists()
        return json.loads((tmp_path / "reports" / "claims.json").read_text())

    record = finished(tmp_path / "as the preset", notebook)
    assert told(record) == []
    (tmp_path / "nb" / "claims.toml").write_text(LEDGER)
    [claim] = told(record)
    assert (claim["outcome"], claim["reason"]) == ("inconclusive", "n=1")
    [claim] = told(finished(tmp_path / "other", notebook, lr=0.2))
    assert (claim["outcome"], claim["reason"]) == ("no verdict", "lr changed")
    assert claim["verdict"] == "no verdict (lr changed)"
