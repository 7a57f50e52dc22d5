"""The faces of the package: what importing costs, and that every way to a name agrees."""

import ast
import json
import pickle
import pydoc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cliplab
import cliplab.lab

pytestmark = pytest.mark.slow

FACES = [cliplab, cliplab.lab]


# Each code in a child of a process that has imported torch, and nothing of cliplab.
FORKING = """
import json, os, sys, torch

for code in json.load(sys.stdin):
    if os.fork() == 0:
        exec(code, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0, code
"""


def fresh(*codes):
    """What each code prints, one line, in a fresh process."""
    run = [sys.executable, "-u", "-c", FORKING]
    done = subprocess.run(run, input=json.dumps(codes), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(codes), lines
    return lines


def anew(code):
    """What code prints in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imported(face):
    """Name and the object of each import that a type checker sees in a face."""
    for node in ast.walk(ast.parse(Path(face.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("cliplab"):
            module = import_module(node.module)
            for alias in node.names:
                assert alias.asname is None
                yield alias.name, getattr(module, alias.name)


def test_importing_cliplab_needs_nothing():
    code = (
        "import sys, cliplab, cliplab.lab\n"
        "heavy = {'torch', 'pandas', 'scipy', 'matplotlib', 'papermill', 'nbformat', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert anew(code) == "[]"


def test_using_cliplab_needs_torch_alone():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from cliplab import *\n"
        "heavy = {'pandas', 'scipy', 'seaborn', 'matplotlib', 'papermill', 'cliplab.lab'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    assert anew(code) == "[]"


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_all_names_type_checkers_and_getattr_agree(face):
    seen = dict(imported(face))
    assert sorted(seen) == sorted(face.__all__)
    for name, thing in seen.items():
        assert getattr(face, name) is thing
    assert set(face.__all__) <= set(dir(face))


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_an_unknown_name_is_named(face):
    with pytest.raises(AttributeError, match=rf"'{face.__name__}' has no attribute 'Clippy'"):
        _ = face.Clippy
    with pytest.raises(ImportError, match="Clippy"):
        exec(f"from {face.__name__} import Clippy")
    assert not hasattr(face, "Tensor")  # a room's own imports are not the face's


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_a_star_import_gives_the_public_names(face):
    names = {}
    exec(f"from {face.__name__} import *", names)
    assert set(face.__all__) == names.keys() - {"__builtins__"}


def test_rooms_are_attributes_and_files_are_imported_as_ever():
    assert fresh(
        "import cliplab; print(cliplab.norms.total_norm is cliplab.total_norm)",
        "from cliplab import plots; print(plots.__name__)",
        "import cliplab.plots; print(cliplab.plots.__name__)",
    ) == ["True", "cliplab.plots", "cliplab.plots"]


LISTED = "[name for name in dir(cliplab) if not name.startswith('__')]"


def test_completion_shows_the_public_names_and_no_room_but_the_figures():
    public = sorted([*cliplab.__all__, "plots"])
    assert fresh(
        f"import cliplab; print({LISTED} == {public})",
        f"import cliplab, cliplab.lab; cliplab.create; print({LISTED} == {public})",
    ) == ["True", "True"]
    assert {"__doc__", "__version__", "__all__"} <= set(dir(cliplab))


def test_the_figures_are_an_attribute_where_they_can_be_drawn():
    without = "import sys; sys.modules['matplotlib'] = None; import cliplab, pydoc\n"
    ways = ("cliplab.plots", "from cliplab import plots", "import cliplab.plots")
    told = (
        f"{without}try:\n    {way}\nexcept (ImportError, AttributeError) as error:\n"
        "    print(\"pip install 'cliplab[lab]'\" in str(error))"
        for way in ways
    )
    assert fresh(
        "import cliplab; print(cliplab.plots.history.__name__)",
        f"{without}print(hasattr(cliplab, 'plots'), len(pydoc.render_doc(cliplab)) > 999)",
        *told,
    ) == ["history", "False True", "True", "True", "True"]


def test_public_names_are_pickled_and_documented():
    assert pickle.loads(pickle.dumps(cliplab.Clipper)) is cliplab.Clipper
    assert pickle.loads(pickle.dumps(cliplab.clip_grad_norm_)) is cliplab.clip_grad_norm_
    page = pydoc.plain(pydoc.render_doc(cliplab))
    assert "class Clipper" in page
    assert "clip_grad_norm_(" in page


FUNCTION = "from cliplab.lab import contrasts"
FILE = "from cliplab.lab.contrasts import contrasts as same"


def test_contrasts_is_the_function_whatever_was_imported_first():
    same = f"{FUNCTION}\n{FILE}\nprint(contrasts is same, callable(same))"
    firsts = (FUNCTION, FILE, "import cliplab.lab.contrasts")
    assert fresh(*(f"{first}\n{same}" for first in firsts)) == ["True True"] * 3
