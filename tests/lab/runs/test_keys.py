"""Keys: which code a notebook depends on, through faces, and what changes its key."""

import json
import re
import shutil
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from cliplab.lab.runs.canonical import form
from cliplab.lab.runs.closure import closure_of
from cliplab.lab.runs.faces import PACKAGE, Package, dotted, makes_numbers
from cliplab.lab.runs.keys import closure, code_key, environment, made_of, run_key
from cliplab.lab.runs.versions import ONLY_TELL, installed, versions

HEADER = '"""Why?\n\nMay use: nothing.\nMakes numbers: {}.\n"""\n'
MODULES = {
    "__init__.py": (
        '"""A lazy face."""\nfrom typing import TYPE_CHECKING\n__version__ = "1"\n'
        "__all__ = ['Clipper', 'total']\n"
        "if TYPE_CHECKING:\n    from .clipper import Clipper as Clipper\n"
        "    from cliplab.norms import total as total\n"
        "def __getattr__(name):\n    return find(name)\n"
    ),
    "norms/__init__.py": "from cliplab.norms.totals import total\nfrom .rows import rows, first",
    "norms/totals.py": "import math\nfrom .host import LARGE\ndef total(x): return LARGE",
    "norms/rows.py": "def rows(): pass\ndef first(): pass",
    "norms/host.py": "LARGE = 1",
    "clipper.py": "from .norms import total\nfrom . import history\nclass Clipper: pass",
    "history.py": "def f():\n    import cliplab.lab.deep.inner",
    "plots.py": HEADER.format("no") + "from cliplab.norms import first\ndef plot(): pass",
    "acts/__init__.py": "import cliplab.norms.host\nx = len([1])",  # more than a face
    "acts/inner.py": "",
    "lab/__init__.py": "from ..norms import total\nfrom .runs import record, tidy",
    "lab/runs/__init__.py": HEADER.format("no")
    + "from .record import record\nfrom .tidy import tidy",
    "lab/runs/record.py": "from cliplab.history import f\ndef record(): pass",
    "lab/runs/tidy.py": HEADER.format("yes") + "def tidy(): pass",
    "lab/late.py": "def later(): return 'cliplab.history.f'",
    "lab/deep/__init__.py": "from . import sibling",
    "lab/deep/inner.py": "import numpy\nfrom sklearn import x",
    "lab/deep/sibling.py": "",
    "star.py": "from cliplab.norms import *",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, source in MODULES.items():
        path = tmp_path / "cliplab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path / "cliplab"


def reached(code: str, package: Path, telling: bool = False) -> set[str]:
    units = closure_of(form(code, ""), package, telling=telling).units
    return {
        f"{unit.path.relative_to(package).with_suffix('').as_posix()}{':' * bool(unit.name)}"
        f"{unit.name}"
        for unit in units
    }


ALL = "__init__:__version__ clipper history lab/deep/inner norms/totals norms/host"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import math", ""),
        ("import cliplab", ""),
        ("import cliplab\ncliplab.total(1)", "norms/totals norms/host"),
        ("import cliplab as c\nc.total(1)", "norms/totals norms/host"),
        ("import cliplab\ncliplab.norms.first(1)", "norms/rows"),
        (
            "import cliplab\ncliplab.Clipper.attach",
            "clipper norms/totals norms/host history lab/deep/inner",
        ),
        ("import cliplab\ncliplab.__version__", "__init__:__version__"),
        ("import cliplab\ngetattr(cliplab, name)", ALL),
        ("import cliplab\ncliplab.no_such_name", ALL),
        ("from cliplab import *", ALL),
        ("import cliplab.norms as n\nn.first", "norms/rows"),
        ("import cliplab.norms as n\nf(n)", "norms/rows norms/totals norms/host"),
        ("import cliplab.norms\ncliplab.norms.first", "norms/rows"),
        ("import cliplab.norms.rows", "norms/rows"),
        ("from cliplab.norms import total", "norms/totals norms/host"),
        ("from cliplab.norms import rows", "norms/rows"),
        ("from cliplab.norms import host", "norms/host"),
        ("from cliplab import norms\nnorms.first()", "norms/rows"),
        ("from cliplab import star", "star norms/rows norms/totals norms/host"),
        ("from cliplab import plots\nplots.plot()", ""),
        ("from cliplab.acts import inner", "acts/__init__ acts/inner norms/host"),
        ("import cliplab.acts.inner", "acts/__init__ acts/inner norms/host"),
        ("from cliplab.lab import record", ""),
        ("from cliplab.lab import tidy", "lab/runs/tidy"),
        ("if x:\n    from cliplab.lab.late import later", "lab/late history lab/deep/inner"),
        ("load('cliplab.lab.late')", "lab/late history lab/deep/inner"),
        ("load('cliplab.norms')", "norms/rows norms/totals norms/host"),
        ("importlib.import_module('cliplab.norms.host')", "norms/host"),
        ("from cliplab.lab import deep\nf(deep)", "lab/deep/sibling"),
        ("def f(x: 'cliplab.norms.host'): 'cliplab.clipper'", ""),
    ],
)
def test_names_are_followed_to_the_file_that_defines_them(code, expected, package):
    assert reached(code, package) == set(expected.split())


def test_a_closure_with_what_tells(package):
    assert reached("from cliplab.plots import plot", package, telling=True) == {
        "plots",
        "norms/rows",
    }


def test_the_nearest_header_says_whether_a_module_makes_numbers(package):
    said = {
        name: makes_numbers(package / name, package)
        for name in ("clipper.py", "plots.py", "lab/runs/record.py", "lab/runs/tidy.py")
    }
    assert list(said.values()) == [True, False, False, True]


def test_faces_of_the_real_package_lead_to_what_importing_gives():
    """The one file that a closure names for a name is where Python finds it defined.

    A class that adds only what it tells (a bar) stands for the one that makes the numbers.
    """

    def module_of(thing):
        for cls in getattr(thing, "__mro__", ()):
            module = sys.modules[cls.__module__]
            if cls.__module__.startswith("cliplab.") and makes_numbers(Path(module.__file__)):
                return cls.__module__
        return getattr(thing, "__module__", None) or ""

    for path in PACKAGE.rglob("__init__.py"):
        room = import_module(dotted(path, PACKAGE))
        for name in getattr(room, "__all__", ()):
            module = module_of(getattr(room, name))
            if module.startswith("cliplab."):
                imported = form(f"from {room.__name__} import {name}", "")
                ((_, references),) = closure_of(imported, telling=True).references[None]
                files = {str(r.unit.path) for r in references}
                assert files == {sys.modules[module].__file__}, name


def test_code_that_makes_numbers_imports_nothing_by_a_computed_name():
    """Closures would miss it. Lazy faces do, whose names the test above follows."""
    package = Package(PACKAGE)
    for path in PACKAGE.rglob("*.py"):
        module = package.of(path)
        if makes_numbers(path) and not module.face and path.stem != "zygote":
            calls = re.findall(r"(?:__import__|import_module)\((.)", module.source)
            assert set(calls) <= {'"'}, path


@pytest.fixture
def key(tmp_path, package, make_notebook):
    def key_of(*cells: str, **options: str) -> str:
        return code_key(make_notebook(tmp_path / "a.ipynb", *cells, **options), package)

    return key_of


CELLS = ("from cliplab.norms import total", "%matplotlib inline\n!ls\nx = total(1)")


def test_what_changes_a_code_key_and_what_does_not(key, package):
    before = key(*CELLS)
    assert key(*CELLS, title="# Another title") == before
    assert key(*CELLS, parameters="lr: float = 0.1") == before
    assert key(*CELLS, "  # nothing") == before
    assert key(CELLS[0] + "  # a", CELLS[1]) == before
    assert key(CELLS[0], CELLS[1].replace("!ls", "!rm")) != before
    assert key(CELLS[0], CELLS[1].replace("1)", "2)")) != before
    assert key("from cliplab.norms import first as total", CELLS[1]) != before

    (package / "norms" / "rows.py").write_text("changed = 1")
    assert key(*CELLS) == before
    (package / "norms" / "host.py").write_text("LARGE = 1  # as before")
    assert key(*CELLS) == before
    (package / "norms" / "host.py").write_text("LARGE = 2")
    assert key(*CELLS) != before


def test_a_file_that_moves_changes_no_key(key, package):
    before = key(*CELLS)
    (package / "norms" / "host.py").rename(package / "sizes.py")
    (package / "norms" / "totals.py").write_text(
        "import math\nfrom cliplab.sizes import LARGE\ndef total(x): return LARGE"
    )
    (package / "norms").rename(package / "measures")
    (package / "measures" / "__init__.py").write_text("from .totals import total")
    assert key("from cliplab.measures import total", CELLS[1]) == before


def test_which_of_two_definitions_a_name_means_is_part_of_the_key(key, package):
    """Two files that differ, two that use them and do not, and a cell that uses one of these."""
    for name, value in (("one", 1), ("two", 2)):
        (package / f"{name}.py").write_text(f"def f(): return {value}")
        (package / f"use_{name}.py").write_text(f"from .{name} import f\ndef g(): return f()")
    both = "import cliplab.use_one, cliplab.use_two"
    first, second = (key(both, f"from cliplab.use_{n} import g\ng()") for n in ("one", "two"))
    assert first != second
    (package / "norms" / "__init__.py").write_text("from .rows import rows as a, first as b")
    straight = key("from cliplab.norms import a")
    (package / "norms" / "__init__.py").write_text("from .rows import rows as b, first as a")
    assert key("from cliplab.norms import a") != straight


def test_outputs_do_not_change_a_code_key(tmp_path, package, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "x = 1")
    before = code_key(path, package)
    notebook = json.loads(path.read_text())
    outputs = [{"output_type": "stream", "name": "stdout", "text": ["1"]}]
    notebook["cells"][-1] |= {"execution_count": 3, "source": ["x = 1"], "outputs": outputs}
    path.write_text(json.dumps(notebook))
    assert code_key(path, package) == before


def test_an_operator_at_the_start_of_a_line_is_no_magic(key):
    assert key("from cliplab import norms\nx = ('%d'\n    % 3)")


def test_a_cell_that_is_not_python_counts_by_its_text(key):
    assert key("x = (") == key("x = (") != key("x = ((")


def test_the_key_does_not_depend_on_where_the_project_lies(tmp_path, package, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", "import cliplab.norms.totals")
    shutil.copytree(package, tmp_path / "elsewhere" / "cliplab")
    assert code_key(path, package) == code_key(path, tmp_path / "elsewhere" / "cliplab")


def test_a_key_is_made_of_cells_and_definitions(tmp_path, package, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", *CELLS)
    parts = made_of(closure(path, package))
    assert len(parts["cells"]) == 2
    assert set(parts["definitions"]) == {"cliplab.norms.host:LARGE", "cliplab.norms.totals:total"}
    assert {len(text) for text in [*parts["cells"], *parts["definitions"].values()]} == {12}


def test_versions_are_of_what_cells_and_closure_import(tmp_path, package, make_notebook):
    cells = ("import cliplab.lab.deep.inner as i, matplotlib", "import no_such_module", "import os")
    found = environment(closure(make_notebook(tmp_path / "a.ipynb", *cells), package))
    assert list(found) == ["device", "python", "no_such_module", "numpy", "scikit-learn"]
    assert found["no_such_module"] is None
    assert found["numpy"] == installed("numpy")


def test_every_distribution_of_a_module_counts_and_the_standard_library_does_not(monkeypatch):
    monkeypatch.setattr("cliplab.lab.runs.versions._providers", lambda *_: {"cv": ("cv-a", "cv-b")})
    assert versions(["cv", "json"]) == {"cv-a": None, "cv-b": None}


def test_providers_are_those_that_importlib_finds():
    found = packages_distributions()
    for module in ("numpy", "torch", "yaml", "sklearn", "IPython", "scipy", "pandas", "tqdm"):
        (name,) = set(found[module])
        expected = {} if module in ONLY_TELL else {name.lower(): installed(name)}
        assert versions([module]) == expected


def test_a_run_key_follows_values_types_and_environment():
    env = {"device": "cpu", "torch": "2"}
    base = run_key("c", {"lr": 0.1, "n": 2}, env)
    assert run_key("c", {"n": 2, "lr": 0.1}, env) == base
    others = [
        run_key("d", {"lr": 0.1, "n": 2}, env),
        run_key("c", {"lr": 0.2, "n": 2}, env),
        run_key("c", {"lr": 0.1, "n": 2.0}, env),
        run_key("c", {"lr": 0.1, "n": 2, "x": None}, env),
        run_key("c", {"lr": 0.1, "n": 2}, env | {"torch": "3"}),
    ]
    assert len({base, *others}) == 6
