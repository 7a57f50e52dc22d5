"""The one reader of notebooks, against nbformat's."""

import json
import os
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cliplab.lab.notebook.cells import load_cells, read_notebook, title_and_question
from cliplab.lab.notebook.inspect import inspect_text
from cliplab.lab.notebook.kernel import kernel_of
from cliplab.lab.notebook.parameters import read_parameters
from cliplab.lab.notebook.recording import check_recorded_once


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


CODE = {"cell_type": "code", "metadata": {}, "source": "", "outputs": [], "execution_count": None}
WHOLE = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CODE]}


def without(name: str) -> str:
    return json.dumps(WHOLE | {"cells": [{k: v for k, v in CODE.items() if k != name}]})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ('{"cells": [', "Expecting value"),
        ("[]", "the file: expected a JSON object, got '[]'"),
        ("{}", "nbformat: expected a number, got 'None'"),
        (json.dumps(WHOLE | {"nbformat": 5}), "expected nbformat 4, got 5"),
        (json.dumps(WHOLE | {"metadata": []}), "metadata: expected a JSON object"),
        (json.dumps(WHOLE | {"cells": {}}), "cells: expected a list"),
        (json.dumps(WHOLE | {"cells": [1]}), "cell 1: expected a JSON object, got '1'"),
        (without("metadata"), "metadata of cell 1: expected a JSON object, got 'None'"),
        (without("source"), "source of cell 1: expected a text or a list of its lines"),
        (without("outputs"), "outputs of cell 1: expected a list"),
        (json.dumps(WHOLE | {"cells": [CODE | {"metadata": {"tags": None}}]}), "tags of cell 1"),
        (json.dumps(WHOLE | {"cells": [CODE | {"source": [1]}]}), "expected str instance"),
        (json.dumps(WHOLE | {"cells": [CODE | {"outputs": [1]}]}), "an output of cell 1"),
        ('{"worksheets": 3}', "of a version before 4"),
        ("[" * 100_000, "cannot read notebook"),
        (b"\x89PNG\x00\xff", "codec can't decode"),
        (Path.mkdir, "it is no file"),
        (os.mkfifo, "it is no file"),
    ],
)
def test_what_is_no_notebook_is_refused_by_name(tmp_path: Path, text, complaint: str) -> None:
    path = tmp_path / "notebook.ipynb"
    with pytest.raises(ValueError, match=r"cannot read notebook .*notebook\.ipynb: No such file"):
        read_notebook(path)
    if callable(text):
        text(path)
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"cannot read notebook .*notebook\.ipynb: ") as caught:
        read_notebook(path)
    assert complaint in str(caught.value)


def test_a_notebook_of_an_older_version_is_read_as_papermill_reads_it(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "heading", "level": 1, "source": ["Does it help?"], "metadata": {}},
        {"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []},
    ]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": "x"}}
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old | {"worksheets": [{"cells": cells, "metadata": {}}]}))
    read = read_notebook(path)
    assert [cell["source"] for cell in read["cells"]] == ["# Does it help?", "x = 1"]
    assert title_and_question(read) == ("Does it help?", "Does it help?")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*CODE, *WHOLE, "tags", "text", "data", "name", "kernelspec"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
CELLS = st.lists(st.fixed_dictionaries({}, optional={**dict.fromkeys(CODE, JSON)}), max_size=3)


@given(
    st.lists(st.tuples(st.sampled_from([*CODE]), JSON), max_size=2),
    st.sampled_from(["", "lr = 1", "x: int = 'a'", "lr: float", "x = (", "%magic", "\0"]),
    st.fixed_dictionaries({}, optional={"kernelspec": JSON, "language_info": JSON, "tags": JSON}),
    CELLS,
)
def test_no_notebook_is_more_than_refused(tmp_path_factory, changes, source, metadata, others):
    first = CODE | {"source": source, "metadata": {"tags": ["parameters"]}} | dict(changes)
    path = tmp_path_factory.getbasetemp() / "fuzz.ipynb"
    path.write_text(json.dumps(WHOLE | {"metadata": metadata, "cells": [first, *others]}))
    for read in (read_notebook, read_parameters, inspect_text, lambda p: title(p)):
        with suppress(ValueError):
            read(path)


@given(JSON)
def test_no_json_is_more_than_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "fuzz.ipynb"
    path.write_text(json.dumps(value))
    with suppress(ValueError):
        read_parameters(path)


def title(path: Path) -> None:
    notebook = read_notebook(path)
    title_and_question(notebook)
    check_recorded_once(notebook)
    assert kernel_of(notebook | {"metadata": notebook["metadata"] | {"kernelspec": {}}})
