"""Two tables of one notebook are refused before it runs, where that is certain."""

import pytest

from cliplab.lab.notebook.recording import check_recorded_once

IMPORT = "from cliplab.lab import record"


def notebook(*cells: str) -> dict:
    tags = {"tags": ["raises-exception"]}
    return {
        "cells": [
            {"cell_type": "code", "source": cell, "metadata": tags if "#raises" in cell else {}}
            for cell in cells
        ]
    }


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ((IMPORT, "record(rows)", "x = 1\nrecord(rows, curves=c)"), "cells 2 and 3 do"),
        ((f"{IMPORT} as r\nr(rows=[1])\nr([2])",), "cell 1 does twice"),
        (("%time from cliplab.lab.runs import record", IMPORT, "record(a)", "record(b)"), "3 and"),
    ],
)
def test_two_tables_are_refused(cells, complaint):
    with pytest.raises(ValueError, match="takes all rows, once") as caught:
        check_recorded_once(notebook(*cells))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "cells",
    [
        (IMPORT, "record(rows)", "record(val_loss=1)\nrecord(None, n=1)\nrecord(rows=None, n=1)"),
        (IMPORT, "record(rows)", "if x:\n    record(rows)"),
        (IMPORT, "record(rows)", "import sys\nsys.exit(0)", "record(rows)"),
        (IMPORT, "record(rows)", "raise SystemExit", "record(rows)"),
        (IMPORT, "record(rows)", "#raises\n1 / 0\nrecord(rows)"),
        (IMPORT, "record(rows)", "def record(x): pass", "record(rows)"),
        (IMPORT, "record(rows)", "record = print", "record(rows)"),
        (IMPORT, "record(rows)", "%%script false\nrecord(rows)"),
        (IMPORT, "record(rows)", "record(*none)"),
        ("from mine import record", "record(rows)", "record(rows)"),
        ("x = (", IMPORT, "record(rows)"),
    ],
)
def test_what_may_be_one_table_is_not_refused(cells):
    check_recorded_once(notebook(*cells))
