"""What a batch ends in: claims.json and the report, with the claims beside the notebooks."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from recording import put

from cliplab.cli.main import main
from cliplab.lab.batch.spec import Failure, RunSpec
from cliplab.lab.claims import Outcome, Verdict
from cliplab.lab.report.outcome import judge_and_report, preset_records
from cliplab.lab.report.terminal import failure_table, verdict_table
from cliplab.lab.runs.keys import code_key
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.stats.paired import Estimate

NAME = "01_exploding_gradients"
LEDGER = f"""
[C1]
kind = "identity"
statement = "nothing changes"
notebook = "{NAME}"
metric = "same"
arms = ["a"]
source = "-"
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
    assert (claim["outcome"], claim["note"]) == ("holds", "in all 1 rows")
    [claim] = told(finished(tmp_path / "other", notebook, lr=0.2))
    assert (claim["outcome"], claim["reason"]) == ("no verdict", "lr changed")
    assert claim["verdict"] == "no verdict (lr changed)"


def test_the_verdict_table_is_cut_in_what_was_asked_and_counts_what_is_withdrawn():
    asked = "Does it help, " + "really, " * 20
    norm = Estimate(0.3, 0.2, 0.4, 1e-6, 48)
    verdicts = [
        Verdict(
            "id", "comparison", asked, NAME, Outcome.HELPS, "", loss=norm, failures=norm, p_holm=0
        ),
        *[Verdict(f"C{i}", "withdrawn", "-", NAME, Outcome.WITHDRAWN) for i in range(3)],
    ]
    head, line, sign, withdrawn = verdict_table(verdicts, 120).splitlines()
    assert head.endswith("what was asked")
    assert len(line) == 120
    assert line.endswith("…")
    assert "+0.300 [+0.200, +0.400]" in line
    assert "+30.0 [+20.0, +40.0] points" in line
    assert sign == "Differences above 0 speak for the first-named way."
    assert withdrawn == "Withdrawn, being redone: 3."
    assert asked.strip() in verdict_table(verdicts)
    assert verdict_table([]) == ""


def test_a_study_that_deviates_says_so_before_what_was_asked():
    study = Verdict("a", "comparison", "Does it? " * 20, NAME, Outcome.HELPS, note="not registered")
    share = replace(study, kind="share", note="45 of 87")
    assert "(not registered) Does it?" in verdict_table([study], 100)
    assert verdict_table([share]).endswith("Does it?  (45 of 87)")


def test_what_goes_into_a_pipe_fits_a_hundred_columns(tmp_path, make_notebook, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    notebook = make_notebook(tmp_path / "notebooks" / f"{NAME}.ipynb", parameters="lr: float = 0.1")
    claims = LEDGER.replace("nothing changes", "nothing changes " * 20)
    notebook.with_name("claims.toml").write_text(claims)
    record = finished(tmp_path / "results" / NAME / "quick" / ("0" * 16), notebook)
    replace(record, code_key=code_key(notebook)).write(record.directory / "record.json")
    assert main(["report", "--preset", "quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 100
    assert any(line.startswith("C1 ") and line.endswith("…") for line in lines)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_the_verdict_table_fits_its_width_and_keeps_what_was_answered(width):
    norm = Estimate(0.3, 0.2, 0.4, 1e-6, 48)
    study = {"kind": "comparison", "statement": "Does it help? " * 20, "notebook": NAME}
    verdicts = [
        Verdict(name, outcome=outcome, loss=norm, failures=norm, p_holm=0.5, **study)
        for name, outcome in [("a_first_one", Outcome.HELPS), ("a_second", Outcome.NO_VERDICT)]
    ]
    published = {"a_second": replace(verdicts[1], outcome=Outcome.HARMS)}
    for beside in ({}, published):
        head, first, second, *_ = lines = verdict_table(verdicts, width, beside).splitlines()
        assert max(map(len, [head, first, second])) <= width
        assert first.startswith("a_first_one  helps ")
        assert second.startswith("a_second     harms " if beside else "a_second     no verdict ")
        assert "Does" in second
        assert ("+30.0 [+20.0, +40.0] points" in second) == (width == 200)
        assert any("published" in line for line in lines) == bool(beside)


def test_of_several_notebooks_what_was_shown_without_a_verdict_is_counted():
    study = Verdict("a", "comparison", "Does it?", NAME, Outcome.HELPS)
    shown = Verdict("b", "demonstration", "It does.", "02_b", Outcome.SHOWN)
    head, line, *others = verdict_table([study, shown], published={"a": study}).splitlines()
    assert head.split()[:2] == ["claim", "published"]
    assert line.startswith("a ")
    assert others[-1] == "Shown without a verdict, in the report: 1."
    alone = replace(shown, notebook=NAME)
    assert [text[:2] for text in verdict_table([study, alone]).splitlines()[1:3]] == ["a ", "b "]
    assert "It does." in verdict_table([shown, replace(shown, id="c", notebook=NAME)])


def test_a_failed_run_is_one_line_whatever_its_error_and_its_parameters_say(tmp_path):
    error = "\x1b[31mValueError\x1b[0m: two\nlines\r\n\tand a bell \x07"
    label = "01_a text=one\ntwo"
    spec = RunSpec(Path("01_a.ipynb"), "01_a", "quick", {}, "k" * 64, "c", tmp_path, label)
    head, *lines = failure_table([Failure(spec, error), Failure(spec, "short")]).splitlines()
    assert head.startswith("failed run")
    assert len(lines) == 2
    assert lines[0].startswith("01_a text=one two  –     ValueError: two lines and a bell  ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_terminal_cannot_encode_is_printed_all_the_same(
    encoding, tmp_path, make_notebook, monkeypatch
):
    path = tmp_path / "notebooks" / "01_größe.ipynb"
    notebook = make_notebook(path, parameters="name: str = 'ß'", title="# Wie groß ist ∇?")
    (tmp_path / "notebooks" / "claims.toml").write_text(LEDGER.replace(NAME, notebook.stem))
    finished(tmp_path / "results" / notebook.stem / "quick" / "k", notebook)
    monkeypatch.chdir(tmp_path)
    for command in (["list"], ["run", "--dry-run", "--grid", "name=ö,∇"]):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as terminal:
            terminal.setattr("sys.stdout", out)
            assert main(command) == 0
        out.flush()
        assert b"01_gr" in out.buffer.getvalue()
        assert b"?" in out.buffer.getvalue()


def test_a_presets_records_are_those_of_notebooks_elsewhere_too(
    tmp_path, make_notebook, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("notebooks", "mine"):
        code = code_key(make_notebook(tmp_path / folder / f"{folder}.ipynb", "x = 1"))
    for name in ("notebooks", "mine/mine", "mine/gone"):
        replace(put(tmp_path / "results", name, {"x": name}), code_key=code).write(
            next((tmp_path / "results" / name).rglob("record.json"))
        )
    for folder in ("notebooks", "no such folder"):
        records, bad = preset_records("quick", Path(folder), Path("results"))
        assert bad == []
        assert [r.notebook for r in records][-1] == "mine/mine"
        assert len(records) == (2 if folder == "notebooks" else 1)
