"""What a page shows of very long outputs, of other languages, and of notebooks that are damaged."""

import base64
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cliplab.lab.claims import Ledger
from cliplab.lab.report.fit import MOST_TEXT, MOST_WHOLE, fit
from cliplab.lab.report.pages import notebook_body
from cliplab.lab.report.site import write_report
from cliplab.lab.runs.record import RunRecord

PATH = Path("there/notebook.ipynb")


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.from_dict({"output_type": "stream", "name": name, "text": text})


def fitted(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    notebook = new_notebook(cells=[new_code_cell("x", outputs=list(outputs))])
    fit(notebook, PATH)
    return nbformat.from_dict(notebook)


def a_run(folder: Path, notebook: nbformat.NotebookNode | None, name: str = "01_a") -> RunRecord:
    folder.mkdir(parents=True)
    if notebook is not None:
        nbformat.write(notebook, folder / "notebook.ipynb")
    return RunRecord(name, "quick", {}, "abcdef0123456789", "c", [], [], {}, {}, folder)


def page_of(record: RunRecord, reports: Path) -> tuple[str, list[str]]:
    _, bad = write_report([record], [], Ledger(), reports)
    (page,) = (reports / "pages").iterdir()
    return page.read_text(encoding="utf-8"), bad


LINES = [stream(f"line {100 * i} of the run\n" * 100) for i in range(3_000)]
FLUSHES = [stream(f"step {i} <&>\n") for i in range(10_000)]
ALTERNATING = [stream("a" * 9, "stdout" if i % 2 else "stderr") for i in range(3_000)]
TABLES = [new_output("display_data", {"text/html": f"<p>{'<b>x</b>' * 10}</p>"})] * 3_000
PLAIN = [new_output("display_data", {"text/plain": "<&>" * 30})] * 3_000
ERROR = [new_output("error", ename="E", evalue="e", traceback=["\x1b[31mt\x1b[0m" * 99_999] * 3)]


def test_a_page_is_cut_to_size_and_says_where_the_rest_is(tmp_path):
    floods = (LINES, FLUSHES, ALTERNATING, TABLES, PLAIN, ERROR)
    cells = [{"cell_type": "code", "outputs": outputs} for outputs in floods]
    cells.append({"cell_type": "code", "outputs": [], "source": "the_last_cell"})
    basis = {"source": "x", "metadata": {}, "execution_count": 1}
    whole = {"cells": [basis | cell for cell in cells], "metadata": {}, "nbformat": 4}
    record = a_run(tmp_path / "run", None)
    (record.directory / "notebook.ipynb").write_text(json.dumps(whole | {"nbformat_minor": 4}))
    page, bad = page_of(record, tmp_path / "reports")
    assert bad == []
    assert len(page.encode()) < 2e6
    assert page.count(f"in {record.directory / 'notebook.ipynb'}]") == len(floods)
    assert "the_last_cell" in page


def test_pieces_of_a_stream_are_one_text_and_an_overwritten_line_shows_its_last_state():
    pieces = [stream("a\rb"), stream("b\r"), stream("c"), stream("\nd\r\n"), stream("e", "stderr")]
    outputs = fitted(*pieces).cells[0].outputs
    assert [(o.name, o.text) for o in outputs] == [("stdout", "c\nd\n"), ("stderr", "e")]


def test_a_figure_is_shown_whole_or_named():
    big, small = "A" * (MOST_WHOLE - 40), "B" * 40
    outputs = [
        new_output("display_data", {"image/png": picture, "text/plain": "<Figure>"})
        for picture in (small, big, big, small)
    ]
    shown = fitted(*outputs).cells[0].outputs
    assert [o.data.get("image/png") for o in shown if "data" in o] == [small, big, None, None]
    notes = [o.text for o in shown if "text" in o]
    assert notes == [
        f"[… image/png of {len(picture):,} characters in {PATH}]\n" for picture in (big, small)
    ]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text()), max_size=6))
def test_what_fits_is_not_changed_but_for_the_joints(pieces):
    outputs = fitted(*[stream(text.replace("\r", ""), name) for name, text in pieces])
    texts = outputs.cells[0].outputs
    for name in ("stdout", "stderr"):
        wanted = "".join(text.replace("\r", "") for n, text in pieces if n == name)
        assert "".join(o.text for o in texts if o.name == name) == wanted
    assert all(a.name != b.name for a, b in pairwise(texts))


def test_each_cell_has_its_share():
    notebook = new_notebook(
        cells=[new_code_cell("x", outputs=[stream("x" * 10**6)]) for _ in range(8)]
    )
    fit(notebook, PATH)
    lengths = [len(cell.outputs[0]["text"]) for cell in notebook.cells]
    assert all(MOST_TEXT - 999 < length < MOST_TEXT + 99 for length in lengths[:3])
    assert sum(lengths) < 420_000


@pytest.mark.parametrize("language", ["R", "julia", "no such language", ""])
def test_any_language_is_shown(language):
    notebook = new_notebook(
        cells=[new_markdown_cell("# T"), new_code_cell("x <- c(1, 2)")],
        metadata={"kernelspec": {"name": "k", "display_name": "k", "language": language}},
    )
    text = notebook_body(notebook)
    assert "x" in text
    assert "lt;-" in text


def test_hidden_inputs_are_hidden():
    cells = [
        new_code_cell("secret = 1", outputs=[stream("shown")], metadata={"jupyter": hidden})
        for hidden in ({"source_hidden": True}, {"source_hidden": False})
    ]
    body = notebook_body(new_notebook(cells=cells[:1]))
    assert "secret" not in body
    assert "shown" in body
    assert "secret" in notebook_body(new_notebook(cells=cells))


DAMAGED = {
    "missing": None,
    "empty": "",
    "cut": '{"cells": [',
    "no cells": "{}",
    "other cells": '{"cells": [1]}',
    "no metadata": '{"cells": [{"cell_type": "code", "source": "x", "outputs": [3]}]}',
    "odd outputs": '{"cells": [{"cell_type": "code", "source": "x", "metadata": {}, '
    '"outputs": [{"output_type": "stream", "text": {"a": 1}}]}], "metadata": [], "nbformat": 4}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_notebook_that_cannot_be_shown_is_named_each_time_and_costs_no_other_page(tmp_path, text):
    good = a_run(tmp_path / "good", new_notebook(cells=[new_markdown_cell("# Fine?")]), "02_b")
    lost = replace(a_run(tmp_path / "lost", None), key="0" * 16)
    if text is not None:
        (lost.directory / "notebook.ipynb").write_text(text)
    for _ in range(2):
        index, bad = write_report([good, lost], [], Ledger(), tmp_path / "reports")
        assert [str(lost.directory / "notebook.ipynb") in why for why in bad] == [True]
        assert "01_a" in index.read_text()
        assert "Fine?" in index.read_text()
        pages = {p.name: p.read_text() for p in (tmp_path / "reports" / "pages").iterdir()}
        assert "Fine?" in pages["02_b-quick-abcdef01.html"]
        assert str(lost.directory) in pages["01_a-quick-00000000.html"]


NAMES = ["sub/x", "a#b?c%20d", "o'quote\"<&>", "ä" * 200, "..", "outside/x-12345678", "a b"]


def test_any_name_has_a_page_of_its_own_that_the_index_links_to(tmp_path):
    from urllib.parse import unquote

    from bs4 import BeautifulSoup

    names = [*NAMES, "sub-x"]
    notebook = new_notebook(cells=[new_markdown_cell("# Q?")])
    records = [a_run(tmp_path / str(i), notebook, name) for i, name in enumerate(names)]
    index, bad = write_report(records, [], Ledger(), tmp_path / "reports")
    assert bad == []
    soup = BeautifulSoup(index.read_text(), "html.parser")
    cards = soup.find(id="notebooks").find_next("ul")
    linked = {index.parent / unquote(a["href"]) for a in cards.find_all("a")}
    assert linked == set((index.parent / "pages").iterdir())
    assert len(linked) == len(names)


def test_half_a_surrogate_pair_does_not_cost_the_page(tmp_path):
    odd = "\ud83d half"
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[stream(odd)])])
    record = a_run(tmp_path / "run", None)
    (record.directory / "notebook.ipynb").write_text(
        nbformat.writes(notebook, ensure_ascii=True) if odd else ""
    )
    page, bad = page_of(replace(record, params={"text": odd}, values={"v": odd}), tmp_path / "r")
    assert bad == []
    assert r"\ud83d half" in page


def test_a_picture_is_a_picture():
    picture = base64.b64encode(b"x" * 999).decode()
    (output,) = fitted(new_output("display_data", {"image/png": picture})).cells[0].outputs
    assert output.data == {"image/png": picture}
