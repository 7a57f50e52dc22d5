"""Why a record is not of today's code: which cell, definition, data, version or parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliplab.lab.notebook.kernel import DEFAULT
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.interpreter import interpreter
from cliplab.lab.runs.keys import KIND, made_of

DATA = "cliplab.lab.data."


def why_stale(
    code: Closure,
    made: Mapping[str, Any],
    provenance: Mapping[str, Any],
    code_key: str,
    kernel_name: str = DEFAULT,
) -> list[str]:
    """What changed since a record was made of ``made``, one reason each; none: it is current."""
    now = interpreter(kernel_name, code.outside)
    reasons = _versions(now, provenance.get("versions") or {})
    if code_key == code.key:
        return reasons
    if made.get("key") != KIND:
        return [f"measured by code before key {KIND}", *reasons]
    parts = made_of(code)
    code_reasons = _cells(made["cells"], parts["cells"])
    code_reasons += _definitions(made["definitions"], parts["definitions"])
    code_reasons += _reads(made.get("reads") or {}, parts.get("reads") or {})
    return (code_reasons or ["an import or the order of statements"]) + reasons


def other_parameters(params: Mapping[str, Any], preset: Mapping[str, Any]) -> list[str]:
    """Where a run's parameters are not as its preset has them now."""
    return [
        f"parameter {name}: {params.get(name)!r}, the preset has {preset.get(name)!r}"
        for name in {**preset, **params}
        if params.get(name) != preset.get(name)
    ]


def _cells(before: list[str], now: list[str]) -> list[str]:
    if before == now:
        return []
    changed = [f"cell {i}" for i, cell in enumerate(now, 1) if cell not in before]
    gone = len([cell for cell in before if cell not in now])
    if not changed:
        changed = [f"{gone} cells are gone" if gone else "the order of the cells"]
    return changed


def _definitions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Changed, new and gone definitions; one that moved to another module is none of them."""
    old, new = (
        {(name.partition(":")[2], made) for name, made in made_of.items()}
        for made_of in (before, now)
    )
    reasons = []
    for name, made in sorted(now.items()):
        if (name.partition(":")[2], made) not in old:
            what = "changed" if name in before else "new"
            reasons.append(f"{_kind(name)} {name} {what}")
    for name, made in sorted(before.items()):
        if (name.partition(":")[2], made) not in new and name not in now:
            reasons.append(f"{_kind(name)} {name} gone")
    return reasons


def _reads(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"data {name} {'gone' if name not in now else 'changed' if name in before else 'new'}"
        for name in sorted({**before, **now})
        if before.get(name) != now.get(name)
    ]


def _kind(name: str) -> str:
    return "data" if name.startswith(DATA) else "definition"


def _versions(now: Mapping[str, Any], recorded: Mapping[str, str | None]) -> list[str]:
    before = dict(recorded)
    if "python" in before:
        before["python"] = ".".join(str(before["python"]).split(".")[:2])
    return [
        f"version {name}: {before[name]}, now {version}"
        for name, version in sorted(now.items(), key=lambda item: item[0] == "python")
        if name in before and before[name] != version
    ]
