"""The canonical form: the same for another way of writing, different for another computation."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cliplab
from cliplab.lab.runs.canonical import form

PACKAGE = Path(cliplab.__file__).parent
OTHER_PYTHONS = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def key(source: str) -> str:
    return form(source, "cliplab").hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1  # why"),
        ("x = 1", "\n\nx=(1)\n"),
        ("x = 'a'", 'x = "a"'),
        ("x = 1e3", "x = 1000.0"),
        ("x = 'ab'", "x = ('a'\n     'b')"),
        ("def f(): return 1", 'def f():\n    """One."""\n    return 1'),
        ("def f(): pass", "def f(): ..."),
        ("class A:\n    x = 1", 'class A:\n    """A."""\n    x = 1'),
        ('"""A module."""\nx = 1', "x = 1"),
        ("def f(a, *b, c=1): pass", "def f(a: int, *b: str, c: float = 1) -> None: pass"),
        ("def f():\n    x = 1", "def f():\n    x: int = 1"),
        ("@cache\ndef f(a): pass", "@cache\ndef f(a: int): pass"),
        ("x = 1", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nx = 1"),
        ("x = 1", "import typing\nif typing.TYPE_CHECKING:\n    import a\nx = 1"),
        ("def f(x): pass", "from typing import Any\ndef f(x: Any): pass"),
        ("import a\nimport b", "import b\nimport a"),
        ("f(x)", "f(\n    x,\n)"),
        ("f'{a}b{c!r:>{d}}'", "f'{a}' 'b' f'{c!r:>{d}}'"),
    ],
)
def test_another_way_of_writing_has_the_same_form(one, other):
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = y", "x = 'y'"),
        ("x = 1\ny = 2", "y = 2\nx = 1"),
        ("x = a + b", "x = a - b"),
        ("x = a.b", "x = a['b']"),
        ("def f(a=1): pass", "def f(a=2): pass"),
        ("def f(a, b): pass", "def f(a, *, b): pass"),
        ("def f(a, b=1): pass", "def f(a=1, b=1): pass"),
        ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
        ("def f(): pass", "async def f(): pass"),
        ("def f(): pass", "@cache\ndef f(): pass"),
        ("@a\n@b\ndef f(): pass", "@b\n@a\ndef f(): pass"),
        ("@register\ndef f(a: int): pass", "@register\ndef f(a: str): pass"),
        ("class A:\n    x: int = 1", "class A:\n    x: float = 1"),
        ("def f():\n    class A:\n        x: int", "def f():\n    class A:\n        x: str"),
        ("class A: pass", "class A(B): pass"),
        ("f'{a}'", "f'{b}'"),
        ("f'{a}'", "f'{a!r}'"),
        ("f'{a:.2f}'", "f'{a:.3f}'"),
        ("x = {**a}", "x = {'a': a}"),
        ("x = [1, [2]]", "x = [[1], 2]"),
        ("global x", "pass"),
        ("def f():\n    x: int", "def f(): pass"),
        ("import a", "import a as b"),
        ("from a import x as y", "from a import z as y"),
        ("def f():\n    from a import x\ndef g():\n    x", "def f(): pass\ndef g():\n    x"),
        ("from typing import Any\nx = Any", "from typing import Union as Any\nx = Any"),
        ("assert x", "pass"),
        ("if x:\n    y\nelse:\n    z", "if x:\n    z\nelse:\n    y"),
        ("x = yield_", "x = (yield_,)"),
        ("a = b = 1", "b = a = 1"),
        ("try:\n    x\nexcept A:\n    y", "try:\n    x\nexcept B:\n    y"),
        ("lambda x: x", "lambda x, y: x"),
        ("x[1:2]", "x[1:2:1]"),
        ("match x:\n    case 1: y", "match x:\n    case 2: y"),
    ],
)
def test_another_computation_has_another_form(one, other):
    assert key(one) != key(other)


@given(st.sampled_from(sorted(PACKAGE.rglob("*.py"))))
def test_a_file_written_anew_by_python_has_the_form_that_it_had(path):
    source = path.read_text(encoding="utf-8")
    assert key(ast.unparse(ast.parse(source))) == key(source)


def test_definitions_are_functions_methods_class_bodies_and_statements():
    source = (
        "import numpy as np\nA, B = 1, 2\n\n@d\ndef f():\n    def inner(): pass\n\n"
        "class C:\n    x: int = 1\n    def m(self): pass\n    class D:\n        def n(self): pass\n"
        "if A:\n    def late(): pass\nprint(A)"
    )
    found = [(d.name, d.kind, d.line) for d in form(source, "").definitions]
    assert found == [
        ("np", "import", 1),
        ("A,B", "body", 2),
        ("f", "function", 4),
        ("C", "body", 8),
        ("C.m", "function", 10),
        ("C.D", "body", 11),
        ("C.D.n", "function", 12),
        ("late", "function", 14),
        ("late", "body", 13),
        ("<Expr>", "body", 15),
    ]


def test_a_class_and_its_methods_change_on_their_own():
    def hashes(source: str) -> dict[str, str]:
        return {d.name: d.hash for d in form(source, "").definitions}

    before = hashes("class C:\n    x = 1\n    def m(self): return 1")
    other_method = hashes("class C:\n    x = 1\n    def m(self): return 2")
    other_body = hashes("class C:\n    x = 2\n    def m(self): return 1")
    assert before["C"] == other_method["C"] != other_body["C"]
    assert before["C.m"] == other_body["C.m"] != other_method["C.m"]


@pytest.mark.parametrize(
    "python",
    [
        path / "bin" / "python"
        for path in sorted(OTHER_PYTHONS.glob("3.1[1-9]*"))
        if path.name.split(".")[1] != str(sys.version_info.minor)
    ],
    ids=str,
)
def test_every_python_finds_the_same_form(python):
    """The forms of the whole package, by an interpreter that has nothing installed."""
    parts = form.__module__.split(".")
    parents = [".".join(parts[:n]) for n in range(1, len(parts))]
    code = (
        "import sys, types\nfrom pathlib import Path\n"
        f"for name in {parents}:\n"  # without what their faces import
        "    sys.modules[name] = module = types.ModuleType(name)\n"
        f"    path = Path({str(PACKAGE.parent)!r}, *name.split('.'))\n"
        "    module.__path__ = [str(path)]\n"
        f"from {form.__module__} import form\n"
        f"for path in sorted(Path({str(PACKAGE)!r}).rglob('*.py')):\n"
        "    print(form(path.read_text(encoding='utf-8'), 'cliplab').hash)\n"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = [key(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]
    assert done.stdout.split() == ours
