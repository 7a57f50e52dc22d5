"""Values of parameters on the command line: papermill's options, ``--grid`` and ``--filter``."""

from __future__ import annotations

import argparse
import base64
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_ASSIGNING = ("-p", "-r", "--grid", "--filter")
_NAMED = r"(?:-[pr]=[\w.]+|--(?:grid|filter)=\w+)"  # a file of --grid has a dot
_NAME = r"[^\W\d][\w.]*"
# YAML 1.2: 1e-3 is a number, and a date or 12:30 is text. PyYAML has 1.1.
_EXPONENT = "[eE][-+]?[0-9]+"
_NUMBERS = {
    "int": "[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)",
    "float": rf"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:{_EXPONENT})?|{_EXPONENT})"
    rf"|\.[0-9][0-9_]*(?:{_EXPONENT})?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
}


def join_assignments(argv: Sequence[str]) -> list[str]:
    """``-p lr 0.1`` and ``-p lr=0.1`` as ``-p=lr=0.1``; also for ``-r``, ``--grid``, ``--filter``.

    >>> join_assignments(["-p", "lr", "-1", "-p", "a=1", "01"])
    ['-p=lr=-1', '-p=a=1', '01']
    """
    joined: list[str] = []
    for word in argv:
        last = joined[-1] if joined else ""
        waits = last in _ASSIGNING or re.fullmatch(_NAMED, last)
        if waits and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def read_values(options: argparse.Namespace) -> None:
    """Turn the options into ``params``, ``grid`` and ``filter``; what is given twice is refused."""
    flags = dict.fromkeys(["first_seed", "n_seeds"], "--seeds") if options.seeds else {}
    params: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    for flag, name, value in _given(options):
        if name in flags:
            raise ValueError(f"parameter {name} is given twice, by {flags[name]} and by {flag}")
        flags[name] = flag
        (grid if flag.startswith("--grid") else params)[name] = value
    options.params, options.grid = params, grid
    wanted = _assignments("--filter", options.filter)
    options.filter = {}
    for name, text in wanted:
        if name in options.filter:
            raise ValueError(f"--filter {name}={text}: {name} is given twice")
        options.filter[name] = _split(f"--filter {name}", text)


def _given(options: argparse.Namespace) -> Iterator[tuple[str, str, Any]]:
    """Every flag, name and value."""
    from cliplab.lab.notebook.values import Text

    for text in options.base64:
        for name, value in _decoded(text).items():
            yield "-b", name, value
    for path in options.files:
        for name, value in _read_file("-f", Path(path)).items():
            yield f"-f {path}", name, value
    for text in options.yaml:
        for name, value in _read_yaml("-y", text).items():
            yield "-y", name, value
    for name, text in _assignments("-p", options.params):
        yield "-p", name, Text(text)
    for name, text in _assignments("-r", options.raw):
        yield "-r", name, text
    for word in options.grid:
        if "=" not in word and Path(word).suffix:
            for name, values in _read_file("--grid", Path(word)).items():
                if not isinstance(values, list):
                    raise ValueError(f"--grid {word}: {name} = {values!r} is not a list of values")
                yield f"--grid {word}", name, values
        else:
            for name, text in _assignments("--grid", [word]):
                yield "--grid", name, _split(f"--grid {name}", text)


def _assignments(flag: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise ValueError(f"{flag} {word}: expected NAME=VALUE or NAME VALUE")
        yield name, text


def _split(flag: str, text: str) -> list[str]:
    from cliplab.lab.notebook.values import split

    try:
        return split(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def _decoded(text: str) -> dict[str, Any]:
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except ValueError as error:
        raise ValueError(f"-b {text}: {error}") from None
    return _read_yaml("-b", decoded)


def _read_yaml(flag: str, text: str) -> dict[str, Any]:
    import yaml

    try:
        return _named(yaml.load(text, _loader()))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{flag} {text}: {error}") from None


def _read_file(flag: str, path: Path) -> dict[str, Any]:
    import yaml

    readers: dict[str, Any] = {
        ".toml": tomllib.loads,
        ".json": lambda text: json.loads(text, object_pairs_hook=_once),
        ".yaml": lambda text: yaml.load(text, _loader()),
    }
    reader = readers.get(path.suffix.lower().replace(".yml", ".yaml"))
    if reader is None:
        raise ValueError(f"{flag} {path}: expected a .yaml, .yml, .json or .toml file")
    try:
        return _named(reader(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _named(values: object) -> dict[str, Any]:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"expected parameters as NAME: VALUE, got {values!r}")
    return values


def _once(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A table, in which no name may be twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


@cache
def _loader() -> Any:
    """YAML's plain values, without dates; no name twice in a table."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            _once([(key, None) for key in keys])
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, found) for tag, found in known if tag.endswith((":null", ":bool"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, number in _NUMBERS.items():
        pattern = re.compile(f"^(?:{number})$")
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, [*"-+.0123456789"])
    return Loader
