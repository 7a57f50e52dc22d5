"""What a notebook imports from beside it, or from the path without a version, is in its key."""

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cliplab.lab.runs.keys import KIND, closure, code_key, environment, made_of
from cliplab.lab.runs.staleness import why_stale
from cliplab.lab.runs.versions import installed

LOCAL = {
    "helper.py": "VALUE = 1\n",
    "uses.py": "import helper\n",
    "tools/__init__.py": "from . import first\n",
    "tools/first.py": "ONE = 1\n",
    "tools/second.py": "from .deep import third\nTWO = 2\n",
    "tools/deep/__init__.py": "",
    "tools/deep/third.py": "from ..first import ONE\nfrom .. import effects\n",
    "tools/effects.py": "EFFECT = 1\n",
    "bare/inner.py": "INNER = 1\n",  # no __init__
    "listed/__init__.py": "__all__ = ['sub']\n",
    "listed/sub.py": "SUB = 1\n",
    "lazy/__init__.py": "def __getattr__(name): return load(name)\n",
    "lazy/a.py": "A = 1\n",
    "lazy/b/__init__.py": "B = 1\n",
    "scripts/go.py": "import near\n",
    "scripts/near.py": "NEAR = 1\n",
    "alone.py": "ALONE = 1\n",
}
REACHED = [
    ("import helper", "helper"),
    ("import helper as h", "helper"),
    ("def f():\n    from helper import VALUE", "helper"),
    ("from uses import *", "uses helper"),
    ("from importlib import import_module\nimport_module('helper')", "helper"),
    ("__import__('helper')", "helper"),
    ("import tools", "tools tools.first"),
    ("from tools.first import ONE", "tools tools.first"),
    ("import tools\ntools.effects.EFFECT", "tools tools.first tools.effects"),
    (
        "from tools import second",
        "tools tools.first tools.second tools.deep tools.deep.third tools.effects",
    ),
    ("import bare.inner", "bare.inner"),
    ("from bare import inner", "bare.inner"),
    ("from listed import *", "listed listed.sub"),
    ("import lazy\nlazy.f()", "lazy lazy.a lazy.b"),
    ("from lazy import A", "lazy lazy.a lazy.b"),
    ("import lazy.a", "lazy lazy.a lazy.b"),
    ("%run uses.py", "uses.py helper"),
    ("%run -i uses.py --lr 0.1", "uses.py helper"),
    ("%run uses", "uses.py helper"),
    ("%run -m uses", "uses helper"),
    ("%run scripts/go.py", "scripts/go.py near"),
    ("%load helper.py", "helper.py"),
    ("%load_ext helper", "helper"),
    ("get_ipython().run_line_magic('run', 'uses.py')", "uses.py helper"),
    ("import sys\nsys.path.insert(0, 'scripts')\nimport near", "near"),
    ("import os, sys\nsys.path.append(os.path.join('.', 'scripts'))\nimport near", "near"),
    ("%cd scripts\nimport near", "near"),
    ("import os\nos.chdir('scripts')\nimport near", "near"),
    ("import no_such_module, json", ""),
    ("%run no_such_file.py\n%run {name}", ""),
    ("%run\n%run 'x\n%cd\n%load_ext", ""),
    (f"%run {'x' * 5000}\nimport_module('{'x' * 5000}')", ""),
    ("from . import helper\nfrom ... import x", ""),
    ("import_module('')\nimport_module('..helper')\n__import__('a\\0b.c')", ""),
    ("import_module('helper.no.such')", "helper"),
]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path, LOCAL)
    write(tmp_path / "made", {"cliplab/__init__.py": "", "cliplab/maths.py": "def f(): return 1"})
    return tmp_path


@pytest.fixture
def reach(folder, make_notebook):
    def reach(*cells: str, **options: Path):
        notebook = make_notebook(folder / "a.ipynb", *cells)
        return closure(notebook, folder / "made" / "cliplab", **options)

    return reach


@pytest.mark.parametrize(("cell", "expected"), REACHED)
def test_a_local_module_is_followed_and_its_code_counts(cell, expected, reach, folder):
    code = reach(cell)
    assert set(code.names.values()) == set(expected.split())
    package = folder / "made" / "cliplab"
    for path in [folder / name for name in LOCAL]:
        before = path.read_text()
        path.write_text(before + "  # a comment\n'prose'\n")
        assert code_key(folder / "a.ipynb", package) == code.key, path
        path.write_text(before + "MORE = 1\n")
        changed = closure(folder / "a.ipynb", package)
        assert (changed.key != code.key) == (path in code.names), path
        path.write_text(before)
        if path in code.names:
            made = {"key": KIND, **made_of(code)}
            why = f"definition {code.names[path]}:MORE new"
            assert why_stale(changed, made, {}, code.key) == [why]


def test_another_notebook_that_is_run_counts_with_its_imports(reach, folder, make_notebook):
    cells = ("import helper", "%run uses.py")
    make_notebook(folder / "other.ipynb", *cells)
    code = reach(f"%run {folder / 'other.ipynb'}")
    assert {"helper", "uses.py", str(folder / "other.ipynb")} == set(code.names.values())
    make_notebook(folder / "other.ipynb", *cells, title="# Other prose")
    assert reach(f"%run {folder / 'other.ipynb'}").key == code.key
    make_notebook(folder / "other.ipynb", *cells, parameters="lr: float = 0.1")
    assert reach(f"%run {folder / 'other.ipynb'}").key != code.key  # nothing is injected there


def test_a_local_module_brings_in_cliplab(reach, folder):
    (folder / "helper.py").write_text("from cliplab.maths import f")
    before = reach("import helper").key
    (folder / "made" / "cliplab" / "maths.py").write_text("def f(): return 2")
    assert reach("import helper").key != before


def test_modules_are_looked_for_where_the_notebook_runs(reach, folder):
    assert reach("import near").names == {}
    assert [*reach("import near", beside=folder / "scripts").names.values()] == ["near"]


def test_a_local_module_stands_before_an_installed_one_and_a_bare_folder_after(reach, folder):
    (folder / "scipy").mkdir()
    assert reach("import scipy").outside == ["scipy"]
    (folder / "scipy.py").write_text("import numpy")
    assert reach("import scipy").outside == ["numpy"]
    assert "scipy" not in environment(reach("import scipy"))


def test_versions_are_of_what_local_modules_import_too(reach, folder):
    (folder / "helper.py").write_text("import numpy")
    assert environment(reach("import uses"))["numpy"] == installed("numpy")


@pytest.mark.parametrize("broken", [b"x = (", b"\xff\xfe", b"x = 1\0", b"# coding: nonsense\n"])
def test_a_local_file_that_is_not_python_counts_by_its_bytes(broken, reach, folder):
    (folder / "helper.py").write_bytes(broken)
    before = reach("import uses").key
    assert reach("import uses").key == before
    (folder / "helper.py").write_bytes(broken + b" ")
    assert reach("import uses").key != before


def test_other_encodings_and_compiled_modules_are_read(reach, folder):
    (folder / "helper.py").write_bytes(b"# coding: latin-1\nX = '\xe9'\n")
    assert "helper:X" in reach("import helper").definitions()
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (folder / f"helper{suffix}").write_bytes(b"\x7fELF")
    assert reach("import helper").names.keys() == {folder / f"helper{suffix}"}


def test_what_is_on_the_path_but_not_installed_counts_by_its_content(reach, folder, monkeypatch):
    """As on PYTHONPATH; in editable mode by a line in a .pth file, or by a finder."""
    away = folder / "away"
    write(away, {"mine/__init__.py": "import mine.inner", "mine/inner.py": "X = 1", "one.py": ""})
    write(folder / "site-packages", {"theirs/__init__.py": ""})
    monkeypatch.syspath_prepend(str(away))
    monkeypatch.syspath_prepend(str(folder / "site-packages"))
    code = reach("import mine, one, theirs")
    assert set(code.names.values()) == {"mine", "mine.inner", "one"}
    assert code.outside == ["theirs"]
    assert "mine" not in sys.modules
    (away / "mine" / "inner.py").write_text("X = 2")
    assert reach("import mine, one, theirs").key != code.key


def test_a_package_that_a_finder_maps_elsewhere(reach, folder, monkeypatch):
    write(folder, {"elsewhere/code/__init__.py": "from . import sub", "elsewhere/code/sub.py": ""})

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "mapped":
                place = folder / "elsewhere" / "code" / "__init__.py"
                return importlib.util.spec_from_file_location(name, place)

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert set(reach("import mapped").names.values()) == {"mapped", "mapped.sub"}


names = st.sampled_from([name for name in LOCAL if LOCAL[name] and "listed" not in name])
prose = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(name=names, comment=prose, before=st.integers(), after=st.integers())
def test_prose_keeps_a_key_and_a_constant_changes_it(name, comment, before, after, folder, reach):
    cell = "import uses, alone, bare.inner, lazy\nfrom tools import second\n%run scripts/go.py"
    path = folder / name

    def key(constant: int, text: str) -> str:
        doc = f"def f():\n    {text!r}\n    return {constant}\n"
        path.write_text(f"{LOCAL[name]}# {text}\n{doc}")
        return reach(cell).key

    try:
        assert key(before, comment) == key(before, "")
        assert (key(before, "") == key(after, "")) == (before == after)
    finally:
        path.write_text(LOCAL[name])
    assert code_key(folder / "a.ipynb", folder / "made" / "cliplab") == reach(cell).key


def test_a_module_that_the_notebook_writes_is_its_cell_whether_it_is_there_or_not(
    folder, make_notebook
):
    def code(body: str):
        return closure(make_notebook(folder / "w.ipynb", f"%%writefile mine.py\n{body}", USE))

    before = code("X = 1")
    assert before.outside == ["mine"]
    for content in ("X = 1", "X = 2"):
        (folder / "mine.py").write_text(content)
        assert code("X = 1").key == before.key
    assert code("X = 2").key != before.key


USE = "import mine"
