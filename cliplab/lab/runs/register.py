"""Where a run differs from what was registered of it, word for word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["PRESETS", "deviations", "differences"]

PRESETS = {"verdict": "first_seed", "replica": "replica_seed"}  # and which seed each must have


def deviations(
    registration: Mapping[str, Any],
    claims: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Any],
) -> list[str]:
    """What is not as registered: claims, studies, parameters, code, seed; nothing if all is.

    ``measured``: the preset, params, choices and code key of a run, or of its published record.
    A study that answers no registered claim, and was not registered, is none of its business.
    """
    seed = registration[PRESETS[measured["preset"]]]
    bound = {*registration["studies"], *(claim.get("study") for claim in claims.values())}
    studies = measured["choices"].get("studies", {})
    found = {
        "claims": claims,
        "studies": {n: s for n, s in studies.items() if bound & {n, n.partition(": ")[0]}},
        "params": {k: v for k, v in measured["params"].items() if k != "first_seed"},
        "code_key": measured["code_key"],
        "first_seed": measured["params"].get("first_seed"),
    }
    wanted = {name: registration[name] for name in found} | {"first_seed": seed}
    return list(differences(wanted, found))


def differences(registered: Any, found: Any, where: str = "") -> Iterator[str]:
    """Each leaf that differs, as ``where: registered, found``.

    >>> list(differences({"a": {"margin": 0.1}}, {"a": {"margin": 0.2, "n": 3}}))
    ['a margin: 0.1 registered, 0.2 found', 'a n: nothing registered, 3 found']
    """
    if isinstance(registered, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*registered, *found]):
            yield from differences(registered.get(key), found.get(key), f"{where} {key}".strip())
    elif _plain(registered) != _plain(found):
        texts = ["nothing" if value is None else str(value) for value in (registered, found)]
        same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0)
        told = (text if len(text) <= 60 else _part(text, same) for text in texts)
        yield "{}: {} registered, {} found".format(where, *told)


def _part(text: str, same: int) -> str:
    """The part of a long text in which it differs, from a little before that."""
    start = max(0, same - 20)
    return f"{'…' * (start > 0)}{text[start : start + 60]}{'…' * (start + 60 < len(text))}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
