"""Notebooks as people have them: each runs as it would in papermill, or a line says why not."""

import json
import re
import subprocess
import sys

import pytest

from cliplab.lab.runs.record import RunRecord

SAY = "from cliplab.lab import record\n"
PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def cell(source, *tags, kind="code", **fields):
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return (
        {"cell_type": kind, "metadata": {"tags": list(tags)}, "source": source} | outputs | fields
    )


def document(*cells, metadata=PYTHON, minor=2):
    cells = [cell(one) if isinstance(one, str) else one for one in cells]
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def parameters(source):
    return cell(source, "parameters")


WIDE = """widths = [
    1,
    2,
]
more = {'a': None, 'b': [1, {'c': 2.5}]}
name = None
pair = (1, 2)"""

# Which values each records.
WELL = {
    "untyped": (document(parameters("lr = 0.1"), SAY + "record(lr=lr)"), {"lr": 0.1}),
    "nothing": (document(), {}),
    "only text": (document(cell("# A title, no question", kind="markdown")), {}),
    "no parameters": (document("x = 3", SAY + "record(x=x)"), {"x": 3}),
    "nested": (
        document(parameters(WIDE), SAY + "record(w=widths, more=more, name=name, n=len(pair))"),
        {"w": [1, 2], "more": {"a": None, "b": [1, {"c": 2.5}]}, "name": None, "n": 2},
    ),
    "computed": (
        document(
            parameters("import math\nn = 2 * 3\nroot = math.sqrt(n * n)"), SAY + "record(r=root)"
        ),
        {"r": 6.0},
    ),
    "no kernelspec": (document(SAY + "record(x=1)", metadata={}), {"x": 1}),
    "magics": (
        document(
            "%%time\nx = !echo hi",
            "%time y = 2",
            "?print",
            "%%capture out\nprint('caught')",
            "z = sum([1,\n   2])  # is that so?",
            SAY + "record(x=list(x), y=y, out=out.stdout, z=z)",
        ),
        {"x": ["hi"], "y": 2, "out": "caught\n", "z": 3},
    ),
    "ends early": (
        document(SAY + "record(x=1)", "import sys\nsys.exit(0)", "record(x=2)"),
        {"x": 1},
    ),
    "awaits": (
        document("import asyncio\nawait asyncio.sleep(0)", SAY + "record(x=1)"),
        {"x": 1},
    ),
    "glue": (
        document(
            "from IPython.display import display\n"
            "scrap = dict(name='loss', data=0.5, encoder='json', version=1)\n"
            "display({'application/scrapbook.scrap.json+json': scrap}, raw=True)\n"
            "display({'application/papermill.record+json': {'old': [1, 2]}}, raw=True)"
        ),
        {"loss": 0.5, "old": [1, 2]},
    ),
    "floods": (
        document("for i in range(2_000):\n    print(i, flush=True)", SAY + "record(x=1)"),
        {"x": 1},
    ),
    "moves away": (document("import os\nos.chdir('/')", SAY + "record(x=1)"), {"x": 1}),
    "odd text": (
        document("print('\\x00 \\x1b[31mred\\x1b[0m é 漢')", SAY + "record(x='é')"),
        {"x": "é"},
    ),
    "lists of lines": (document(cell(["x = 1\n", "y = 2"]), SAY + "record(x=x + y)"), {"x": 3}),
    "{braces} and %41": (document(SAY + "record(x=1)"), {"x": 1}),
    "ünïcode/-dash": (document(SAY + "record(x=1)"), {"x": 1}),
}

# Which cell fails, and why.
ILL = {
    "raises": (
        document("1", "raise ValueError('one\\ntwo')"),
        "2/2",
        "ValueError: one two",
    ),
    "allowed to fail, as papermill has it": (
        document(cell("1 / 0", "raises-exception"), SAY + "record(after=True)"),
        "1/2",
        "ZeroDivisionError",
    ),
    "magic unknown": (
        document("%notamagic"),
        "1/1",
        "UsageError: Line magic function `%notamagic` not found",
    ),
    "exits": (document("import sys\nsys.exit(3)"), "1/1", r"SystemExit: 3"),
    "dies": (document("1", "import os\nos._exit(3)"), "2/2", r"the kernel died: exit status 3"),
    "no Python": (document("x = = 1"), "1/1", "SyntaxError"),
    "asks": (document("input('name? ')"), "1/1", "StdinNotImplementedError"),
    "fails later": (
        document(cell("1 / 0", "raises-exception"), "2", "3", "no_such_name", "5"),
        "4/5",
        "NameError",
    ),
    "interrupts": (document("raise KeyboardInterrupt"), "1/1", "KeyboardInterrupt"),
    "two tables": (
        document(SAY + "for x in range(2):\n    record([{'arm': 'a', 'seed': x}])"),
        "",
        r"record\(rows\) must be called once in the notebook, not 2 times",
    ),
}

# What is no notebook, and what the line that names it says.
NONE = {
    "empty": ("", "cannot read notebook"),
    "cut": ('{"cells": [', "cannot read notebook"),
    "a list": ("[1]", "cannot read notebook"),
    "bare cells": ('{"cells": [{"cell_type": "code", "source": "1"}]}', "nbformat"),
    "of another kernel": (
        json.dumps(document("1", metadata={"kernelspec": {"name": "no_env"}})),
        "no_env",
    ),
}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """All of them in one folder, run by one command."""
    folder = tmp_path_factory.mktemp("anybody")
    for name, (document_, *_) in {**WELL, **ILL}.items():
        path = folder / "nb" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document_), encoding="utf-8")
    for name, (text, _) in NONE.items():
        (folder / "nb" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    (folder / "nb" / ".~hidden.ipynb").write_text("{")
    command = [sys.executable, "-m", "cliplab.cli", "run", "nb", "--jobs", "2", "--no-report"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return folder, done


@pytest.mark.slow
def test_each_is_done_or_says_why_not(batch):
    folder, done = batch
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    records = [RunRecord.load(path) for path in (folder / "results").rglob("record.json")]
    said = {record.notebook.removeprefix("nb/"): record.values for record in records}
    assert said == {name: values for name, (_, values) in WELL.items()}, done.stderr
    lines = done.stderr.splitlines()
    for name, (_, where, why) in ILL.items():
        (line,) = [x for x in lines if x.startswith(f"nb/{name}  ") and "error.txt" in x]
        assert re.search(why, line), line
        assert not where or f" {where} " in line, line
    for name, (_, why) in NONE.items():
        assert any(f"{name}.ipynb" in x and why in x for x in lines), name
    assert "hidden" not in done.stderr
