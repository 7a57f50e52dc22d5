import json
import shutil
from pathlib import Path

import pytest

from cliplab.lab.runs import keys
from cliplab.lab.runs.closure import PACKAGE, import_closure
from cliplab.lab.runs.keys import code_key, run_key

MODULES = {
    "__init__.py": "",
    "norms.py": "import math",
    "clipper.py": "from .norms import total\nfrom . import history",
    "history.py": "def f():\n    import cliplab.lab.deep.inner",
    "unrelated.py": "import cliplab.norms",
    "lab/__init__.py": "from ..norms import x",
    "lab/runs.py": "LAZY = 'cliplab.lab.late'",
    "lab/late.py": "",
    "lab/deep/__init__.py": "from . import sibling",
    "lab/deep/inner.py": "",
    "lab/deep/sibling.py": "",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, source in MODULES.items():
        path = tmp_path / "cliplab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path / "cliplab"


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import math", ""),
        ("import cliplab", "__init__"),
        ("import cliplab.norms as n", "__init__ norms"),
        ("from cliplab.norms import total", "__init__ norms"),
        ("from cliplab import norms", "__init__ norms"),
        (
            "if x:\n    from cliplab.lab import runs",
            "__init__ norms lab/__init__ lab/runs lab/late",
        ),
        (
            "from cliplab.clipper import Clipper",
            "__init__ norms clipper history lab/__init__ lab/deep/__init__ lab/deep/inner "
            "lab/deep/sibling",
        ),
    ],
)
def test_closure_is_what_importing_would_load(code, reached, package):
    found = {
        p.relative_to(package).with_suffix("").as_posix() for p in import_closure(code, package)
    }
    assert found == set(reached.split())


def test_closure_of_the_real_package():
    found = {path.name for path in import_closure("from cliplab.lab.runs import record")}
    assert {"runs.py", "keys.py", "parameters.py"} <= found
    assert "batch.py" not in found
    assert all(path.is_relative_to(PACKAGE) for path in import_closure("import cliplab"))


def test_what_changes_a_code_key_and_what_does_not(tmp_path, package, make_notebook):
    path = tmp_path / "a.ipynb"

    def key(*cells: str, **options: str) -> str:
        make_notebook(path, *cells, **options)
        return code_key(path, package)

    cells = ("from cliplab.norms import total", "%matplotlib inline\n!ls\nx = 1")
    before = key(*cells)
    assert key(*cells, title="# Another title") == before
    assert key(*cells, parameters="lr: float = 0.1") == before
    assert key(*cells, "   ") == before
    assert key(cells[0], cells[1] + "  # a") != before
    assert key(*reversed(cells)) != before

    (package / "unrelated.py").write_text("changed = 1")
    assert key(*cells) == before
    (package / "norms.py").write_text("changed = 1")
    assert key(*cells) != before


def test_outputs_do_not_change_a_code_key(tmp_path, package, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "x = 1")
    before = code_key(path, package)
    notebook = json.loads(path.read_text())
    notebook["cells"][-1] |= {"execution_count": 3, "source": ["x = 1"], "outputs": [1]}
    path.write_text(json.dumps(notebook))
    assert code_key(path, package) == before


def test_an_operator_at_the_start_of_a_line_is_no_magic(tmp_path, package, make_notebook):
    cell = "from cliplab import norms\nx = ('%d'\n    % 3)"
    assert code_key(make_notebook(tmp_path / "a.ipynb", cell), package)


def test_a_syntax_error_is_one_line_that_names_the_notebook(tmp_path, package, make_notebook):
    with pytest.raises(ValueError, match=r"a.ipynb: .*'x = \('"):
        code_key(make_notebook(tmp_path / "a.ipynb", "x = ("), package)


def test_the_key_does_not_depend_on_where_the_project_lies(tmp_path, package, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "import cliplab.norms")
    shutil.copytree(package, tmp_path / "elsewhere" / "cliplab")
    assert code_key(path, package) == code_key(path, tmp_path / "elsewhere" / "cliplab")


def test_a_run_key_follows_values_types_and_environment(monkeypatch):
    base = run_key("c", {"lr": 0.1, "n": 2})
    assert run_key("c", {"n": 2, "lr": 0.1}) == base
    others = [
        run_key("d", {"lr": 0.1, "n": 2}),
        run_key("c", {"lr": 0.2, "n": 2}),
        run_key("c", {"lr": 0.1, "n": 2.0}),
        run_key("c", {"lr": 0.1, "n": 2, "x": None}),
    ]
    monkeypatch.setattr(keys, "installed", lambda name: "another version")
    others.append(run_key("c", {"lr": 0.1, "n": 2}))
    assert len({base, *others}) == 6
