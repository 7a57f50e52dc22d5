"""A user's function, named as ``train.py:train``: found, loaded, called."""

from __future__ import annotations

import importlib.util
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.race.rows import Row, checked
from cliplab.lab.runs.closure import closure_of
from cliplab.lab.runs.faces import PACKAGE
from cliplab.lab.runs.keys import digest
from cliplab.lab.runs.sources import form_of_file

__all__ = ["Called", "Target", "call", "code_of", "load", "target_of"]

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A function by its file and name."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.name}"


@dataclass(frozen=True)
class Called:
    """What a call came to, in plain values, so that it comes back from workers.

    Its rows, and which of their columns no table holds; or what is wrong with what it returned; or
    the error that it raised, with its traceback.
    """

    seconds: float
    rows: Sequence[Row] = ()
    left_out: frozenset[str] = frozenset()
    refused: str = ""
    error: str = ""
    trace: str = ""


def target_of(text: str) -> Target:
    """The function that ``FILE.py:NAME`` names; ``ValueError`` if there is no such file."""
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{text!r}, expected a file, a colon and its function, as train.py:train")
    path = Path(file).absolute()
    if not path.is_file():
        raise ValueError(f"{text}: no file {file}")
    return Target(path, name)


@lru_cache
def load(target: Target) -> Callable[..., Any]:
    """The function, its file imported with its folder on the path.

    ``ValueError``: there is none, or it does not take configurations and seeds.
    """
    path, module_name = target.path, target.path.stem
    other = getattr(sys.modules.get(module_name), "__file__", None)
    if module_name in sys.modules and other != str(path):
        raise ValueError(f"{path}: another module is called {module_name}: rename the file")
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[module_name] = module  # what it defines can be pickled
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise ValueError(f"{path.name} cannot be imported: {_said(error, path)}") from error
    function = getattr(module, target.name, None)
    if isinstance(function, type) or not callable(function):
        is_ = f" (it is {function!r:.60})" if hasattr(module, target.name) else ""
        own = (v for v in vars(module).values() if getattr(v, "__module__", "") == module_name)
        named = [v.__name__ for v in own if isfunction(v) and not v.__name__.startswith("_")]
        known = f", only {', '.join(named)}" if named else ""
        raise ValueError(f"{path.name} has no function {target.name!r}{is_}{known}")
    _check_arguments(function, target)
    return function


def _check_arguments(function: Callable[..., Any], target: Target) -> None:
    try:
        takes = signature(function)
    except ValueError:  # not written in Python
        return
    try:
        takes.bind([], [])
    except TypeError:
        expected = "expected one that is called with two lists, as train(configurations, seeds)"
        raise ValueError(f"{target} takes {takes}, {expected}") from None


def call(target: Target, configurations: Sequence[Configuration], seeds: Sequence[int]) -> Called:
    """Call the function and check its rows; what is wrong is told, not raised."""
    function = load(target)
    began = time.perf_counter()
    try:
        returned = function([dict(one) for one in configurations], list(seeds))
    except (Exception, SystemExit) as error:
        seconds = time.perf_counter() - began
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # from the user's own line on
        trace = "".join(traceback.format_exception(error))
        return Called(seconds, error=_said(error, target.path), trace=trace)
    seconds = time.perf_counter() - began
    try:
        rows = checked(returned, configurations, seeds)
    except ValueError as error:
        return Called(seconds, refused=str(error))
    pairs = zip(returned, rows, strict=True)
    left_out = frozenset(str(name) for given, row in pairs for name in given if name not in row)
    return Called(seconds, rows, left_out)


def code_of(target: Target) -> str:
    """A hash of the function's file and of all that it imports from its folder and of cliplab.

    Comments and formatting are no part of it.
    """
    form = form_of_file(target.path, "", PACKAGE.name)
    return digest([target.name, closure_of(form, beside=target.path.parent).key])


def _said(error: BaseException, path: Path) -> str:
    """An error, and the line of the user's file where it came up."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f" (line {lines[-1]} of {path.name})" if lines else ""
    return f"{type(error).__name__}: {one_line(error)}{where}"
