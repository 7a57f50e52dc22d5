"""Cells that are not plain Python, and parameters cells that hold more than values."""

import ast
import json
import subprocess
import sys

import pytest

from cliplab.lab.notebook.declarations import only_literals
from cliplab.lab.runs.keys import closure
from cliplab.lab.runs.magics import parsed

# A cell, and the plain statements that count in it besides calls of IPython.
CODE = [
    ("%%time\nfrom cliplab import norms", "from cliplab import norms"),
    ("%%time\n# prose\nimport a\n!ls\nimport b", "import a\nimport b"),
    ("%%capture out\nimport a", "out\nimport a"),
    ("%%timeit -n 10 -r 3 import a\nimport b", "import a\nimport b"),
    ("%%time\n%%capture\nimport a", "import a"),
    ("if x:\n    %time from cliplab import norms", "from cliplab import norms"),
    ("%timeit -n 10 -r3 f(1)", "f(1)"),
    ("y = %time f(1)", "f(1)"),
    ("%prun -l 5 import a", "import a"),
    ("get_ipython().magic('time import a')", "import a"),
    ("get_ipython().run_cell_magic('time', '', 'import a')", "import a"),
    ("%%unknown\nimport a", "import a"),
    ("%%writefile a.py\nimport a", "import_module('.>a.py')\nimport a"),
    ("%time", ""),
    ("get_ipython().magic('')", ""),
    ("get_ipython().run_line_magic(name, 'x')", ""),
]
# What IPython takes for code, with two texts that differ and so are different code.
VALID = [
    ("x = !ls", "x = !rm"),
    ("files = %who_ls", "files = %who_ls int"),
    ("?print", "?len"),
    ("print??", "len??"),
    ("!pip install a \\\n   b", "!pip install a \\\n   c"),
    ("f(a,\n  b)  # ok?\n%time 1", "f(a,\n  c)  # ok?\n%time 1"),
    ("%%bash\n# one", "%%bash\n# two"),
    ("%%writefile notes.txt\n# one", "%%writefile notes.txt\n# two"),
    (">>> x = 1", ">>> x = 2"),
    ("  x = 1\n  y = 1", "  x = 1\n  y = 2"),
    ("await f()", "await g()"),
    ("x = '\\d'", "x = '\\e'"),
    ("x = (", "x = (("),  # no Python at all
    ("x = '\0'", "x = '\0 '"),
    ("%%time\nx = (", "%%time\nx = (("),
]


def is_ipython(node: ast.stmt) -> bool:
    return "get_ipython" in ast.unparse(node)


@pytest.mark.parametrize(("cell", "code"), CODE)
def test_what_a_magic_runs_is_code(cell, code):
    found = [ast.unparse(node) for node in parsed(cell).body if not is_ipython(node)]
    assert "\n".join(found) == code


def test_plain_cells_stay_as_they_are():
    for cell in ("x = ('%d'\n    % 3)", "f(a)  # ok?", "x = 1\n\ndef f(): pass", ""):
        assert ast.dump(parsed(cell)) == ast.dump(ast.parse(cell))


@pytest.mark.parametrize(("one", "other"), VALID)
def test_cells_that_ipython_takes_have_keys(one, other, tmp_path, make_notebook):
    path = tmp_path / "a.ipynb"
    keys = [closure(make_notebook(path, cell)).key for cell in (one, one, other)]
    assert keys[0] == keys[1] != keys[2]


def test_prose_below_a_magic_keeps_the_key_and_options_change_it(tmp_path, make_notebook):
    def key(cell: str) -> str:
        return closure(make_notebook(tmp_path / "a.ipynb", cell)).key

    assert key("%%time\nx = 1  # a") == key("%%time\n# b\nx = 1") != key("%%time\nx = 2")
    assert key("%timeit -n 1 f()") == key("%timeit -n 1 f( )") != key("%timeit -n 2 f()")
    assert key("%%time\nx = 1") != key("%%capture\nx = 1") != key("x = 1")


@pytest.mark.parametrize(
    ("cell", "alone"),
    [
        ("lr: float = 0.1  # a [> 0]\nsizes: list[int] = [1]", True),
        ("'prose'\nlr = -1\nname = None\ntable = {'a': [1, {'b': True}]}", True),
        ("", True),
        ("lr = 0.1\ntwice = 2 * lr", False),
        ("lr = 0.1\nlr = 0.2", False),
        ("import os", False),
        ("lr = float('0.1')", False),
        ("a = b = 1", True),
        ("a, b = 1, 2", False),
        ("betas = (0.9, 0.99)", False),
        ("table = {1: 2}", False),
        ("lr: float", False),
        ("x += 1", False),
        ("%time x = 1", False),
    ],
)
def test_a_parameters_cell_counts_unless_it_holds_only_values(cell, alone, tmp_path, make_notebook):
    assert only_literals(cell) == alone
    paths = [make_notebook(tmp_path / name, "x = 1", parameters=cell) for name in ("a", "b")]
    paths[1].write_text(paths[1].read_text().replace("first_seed: int = 0", "first_seed: int = 1"))
    keys = {closure(path).key for path in paths}
    assert len(keys) == (1 if alone else 2)


METADATA = [
    {"kernelspec": {"language": "R", "name": "ir"}},
    {"language_info": {"name": "julia"}},
]


@pytest.mark.parametrize("metadata", METADATA)
def test_cells_of_another_language_are_text(metadata, tmp_path, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "import numpy  # a")
    notebook = json.loads(path.read_text()) | {"metadata": metadata}
    path.write_text(json.dumps(notebook))
    code = closure(path)
    assert code.outside == []
    assert code.units == {}
    path.write_text(json.dumps(notebook).replace("# a", "# b"))
    assert closure(path).key != code.key


@pytest.mark.parametrize("metadata", [{}, {"kernelspec": 1, "language_info": []}])
def test_a_notebook_that_names_no_language_is_python(metadata, tmp_path, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "import numpy  # a")
    before = closure(path).key
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metadata": metadata}))
    assert closure(path).key == before


def test_far_too_deep_code_has_a_key(tmp_path, make_notebook):
    deep = "x = " + "+".join("1" * 20_000)
    keys = {closure(make_notebook(tmp_path / "a.ipynb", deep + end)).key for end in ("", "+1")}
    assert len(keys) == 2


@pytest.mark.slow
def test_ipython_is_loaded_for_a_cell_that_needs_it_and_missed_by_name(tmp_path, make_notebook):
    program = (
        "import sys; from pathlib import Path; from cliplab.lab.runs.keys import closure\n"
        "closure(Path('plain.ipynb')); assert 'IPython' not in sys.modules\n"
        "sys.modules['IPython'] = None\n"
        "closure(Path('magic.ipynb'))\n"
    )
    make_notebook(tmp_path / "plain.ipynb", "x = 1")
    make_notebook(tmp_path / "magic.ipynb", "!ls")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert "IPython" in last
