"""A cell's syntax tree: IPython's own syntax as calls, and what magics run or import as code.

IPython is imported only for a cell that is not plain Python.
"""

from __future__ import annotations

import ast
import shlex

from cliplab.lab.notebook.syntax import parse, statements
from cliplab.lab.runs.syntax import RUN, WRITES, chain, last_name, texts

CALLS = ("run_line_magic", "run_cell_magic", "magic")
# Magics that run what stands behind them, or the cell below them, as Python.
PYTHON = frozenset(
    ("capture", "debug", "lprun", "memit", "mprun", "prun", "pyinstrument", "time", "timeit")
)
FILES = ("load", "loadpy", "run")  # magics that run a file, or put it into the cell
MODULES = ("aimport", "load_ext", "reload_ext")  # magics that import
ADDS = ("os.chdir", "sys.path.append", "sys.path.insert", "site.addsitedir")
SUFFIXES = (".py", ".ipy", ".ipynb")


def parsed(source: str) -> ast.Module:
    """A cell's syntax; one that is not Python even so is a call with its text.

    >>> ast.unparse(parsed("%time from a import b"))
    "get_ipython().run_line_magic('time', '')\\nfrom a import b"
    >>> ast.unparse(parsed("x = ("))
    "get_ipython('x = (')"
    """
    try:
        tree = ast.Module(statements(source), [])
    except SyntaxError:
        tree = text(source)
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        if last_name(call) in CALLS:
            tree.body += _run_by(call)
        elif isinstance(call.func, ast.Attribute) and ".".join(chain(call.func)) in ADDS:
            tree.body += _added(*texts(call.args[-1:]))
    return tree


def text(source: str) -> ast.Module:
    """Text that no Python reads, as a call."""
    return ast.parse(f"get_ipython({source!r})")


def _run_by(call: ast.Call) -> list[ast.stmt]:
    """The statements that a magic runs: they count as code, and so not as text."""
    words = list(texts(call.args))
    if len(words) != len(call.args):
        return []
    name, line, body = (*words, "", "", "")[:3]
    if len(words) == 1:
        name, _, line = name.lstrip("%").partition(" ")
    if name in FILES:
        return _file(line)
    if name == "cd":
        return _added(*line.split()[-1:])
    if name in MODULES:
        return _imported(line.partition(" ")[0])
    if name not in PYTHON:  # a body of which nothing is known counts as text, its imports as well
        written = _words(line)[-1:] if name == "writefile" else []
        return [*_imported(*(WRITES + file for file in written)), *parsed(body).body]
    code = _code(line)
    for i, rest in enumerate((line.removesuffix(code), "")[: len(words) - 1], 1):
        call.args[i] = ast.Constant(rest)
    return [*parse(code).body, *parsed(body).body]


def _code(line: str) -> str:
    """What is Python at the end of a magic's line, behind its options."""
    while line:
        try:
            parse(line)
            break
        except SyntaxError:
            line = line.partition(" ")[2].lstrip()
    return line


def _file(line: str) -> list[ast.stmt]:
    """What ``%run line`` or ``%load line`` reads."""
    words = _words(line)
    plain = [word for word in words if not word.startswith("-")]
    if "-m" in words:
        return _imported(*plain[:1])
    files = [word for word in plain if word.endswith(SUFFIXES)] or [f"{w}.py" for w in plain]
    return _imported(*(RUN + file for file in files[:1]))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _added(*names: str) -> list[ast.stmt]:
    """A folder that comes on the path, whether it is one name or joined from several."""
    return _imported(f"{RUN}{'/'.join(names)}/") if names else []


def _imported(*names: str) -> list[ast.stmt]:
    return [node for name in names for node in ast.parse(f"import_module({name!r})").body]
