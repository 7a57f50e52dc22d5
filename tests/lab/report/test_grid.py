"""Runs of anybody's notebook as a table of parameters and what was measured."""

from pathlib import Path

from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell, new_notebook, writes

from cliplab.lab.claims import Ledger
from cliplab.lab.report.site import write_report
from cliplab.lab.runs.record import RunRecord


def a_run(folder: Path, number: int, **content: object) -> RunRecord:
    directory = folder / str(number)
    directory.mkdir(parents=True)
    notebook = new_notebook(cells=[new_markdown_cell("# Which rate?")])
    (directory / "notebook.ipynb").write_text(writes(notebook))
    basis = {"notebook": "mine/grid", "preset": "quick", "params": {}, "rows": [], "curves": []}
    basis |= {"choices": {}, "provenance": {}, "code_key": "c", "key": f"{number:064}"[::-1]}
    return RunRecord(**(basis | content), directory=directory)


def tables(records: list[RunRecord], reports: Path) -> dict[str, list[list[str]]]:
    """The cells of the table below each heading of the index."""
    index, bad = write_report(records, [], Ledger(), reports)
    assert bad == []
    soup = BeautifulSoup(index.read_text(), "html.parser")
    found = {}
    for heading in soup.find_all(["h2", "h3"]):
        following = heading.find_next(["h2", "h3", "table"])
        if following and following.name == "table":
            lines = following.find_all("tr")
            found[heading.text] = [[c.text for c in line.find_all(["td", "th"])] for line in lines]
    return found


def test_a_grid_is_a_table_with_a_link_to_each_run(tmp_path):
    points = [0.1, 0.1000001, None, {"warm": [1]}]
    records = [
        a_run(tmp_path, i, params={"lr": lr, "k": 3}, values={"loss": 2 - i, "best": {"at": [i]}})
        for i, lr in enumerate(points)
    ]
    assert tables(records, tmp_path / "r")["mine/grid"] == [
        ["Run", "lr", "loss", "best"],
        ["1", "0.1", "2", "{'at': [0]}"],
        ["2", "0.1000001", "1", "{'at': [1]}"],
        ["3", "None", "0", "{'at': [2]}"],
        ["4", "{'warm': [1]}", "−1", "{'at': [3]}"],
    ]


def test_a_grid_of_tables_shows_each_arm_and_does_not_mix_settings(tmp_path):
    records = [
        a_run(tmp_path, i, params={"lr": lr, "first_seed": 0, "n_seeds": 2}, rows=[
            {"arm": arm, "seed": seed, "accuracy": lr + seed} for arm in "ab" for seed in (0, 1)
        ])
        for i, lr in enumerate([1, 2])
    ]  # fmt: skip
    found = tables(records, tmp_path / "r")
    assert found["mine/grid"] == [
        ["Run", "lr", "arm", "n", "accuracy"],
        ["1", "1", "a", "2", "1.50"],
        ["2", "1", "b", "2", "1.50"],
        ["3", "2", "a", "2", "2.50"],
        ["4", "2", "b", "2", "2.50"],
    ]
    assert "Across models" not in found


def test_runs_that_differ_in_seeds_alone_are_one_table_across_models(tmp_path):
    records = [
        a_run(tmp_path, i, params={"first_seed": i}, rows=[{"arm": "a", "seed": i, "loss": i}])
        for i in range(2)
    ]
    found = tables(records, tmp_path / "r")
    assert "mine/grid" not in found
    assert found["Across models"][0][:3] == ["Arm", "loss, mean", "n"]
    assert found["Across models"][-1][:3] == ["a", "0.500", "2"]


def test_a_notebook_that_recorded_nothing_is_its_executed_notebook(tmp_path):
    record = a_run(tmp_path, 1)
    assert tables([record], tmp_path / "r") == {}
    (page,) = (tmp_path / "r" / "pages").iterdir()
    assert "Which rate?" in page.read_text()
    index = BeautifulSoup((tmp_path / "r" / "index.html").read_text(), "html.parser")
    assert index.find("h1").text == "Which rate?"
    card = index.find("li")
    assert card.find("h3").text == "mine/grid"
    assert card.find("a")["href"] == f"pages/{page.name}"
    assert "quick" in card.text
