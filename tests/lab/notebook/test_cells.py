"""The one reader of notebooks, against nbformat's."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cliplab.lab.notebook.cells import load_cells, read_notebook, title_and_question


def test_a_notebook_reads_as_nbformat_reads_it(tmp_path: Path) -> None:
    bundle = {
        "text/plain": "two\nlines",
        "image/png": "aGVsbG8=\n",
        "image/svg+xml": "<svg>\n</svg>",
        "application/json": ["a", "b"],
        "application/vnd.cliplab.record+json": {"rows": [{"arm": "a\nb", "seed": 0}]},
    }
    outputs = [
        new_output("stream", name="stdout", text="step 1\nstep 2\n"),
        new_output("display_data", bundle),
        new_output("execute_result", {"text/html": "<b>\n</b>"}, execution_count=1),
        new_output("error", ename="E", evalue="v", traceback=["one", "two"]),
    ]
    text = "# Title\n\nDoes it\nhelp? Yes.\n"
    cells = [
        new_markdown_cell(text, attachments={"a.txt": {"text/plain": "x\ny"}}),
        new_code_cell("x = 1\n\ny = 2", outputs=outputs),
        new_code_cell(""),
    ]
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert read_notebook(path) == nbformat.read(path, as_version=4)
    assert load_cells(path)[1]["source"] == "x = 1\n\ny = 2"
    assert title_and_question(read_notebook(path)) == ("Title", "Does it help?")


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", "{}", '{"cells": [1]}'])
def test_what_is_no_notebook_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notebook.ipynb"
    with pytest.raises(ValueError, match=r"cannot read notebook .*notebook\.ipynb"):
        read_notebook(path)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cannot read notebook .*notebook\.ipynb"):
        read_notebook(path)
