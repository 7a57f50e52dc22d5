"""Where a run differs from what was registered of it, word for word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cliplab.lab.runs.record import RunRecord

__all__ = ["PRESETS", "deviations", "differences"]

PRESETS = {"verdict": "first_seed", "replica": "replica_seed"}  # and which seed each must have


def deviations(
    registration: Mapping[str, Any], claims: Mapping[str, Mapping[str, Any]], record: RunRecord
) -> list[str]:
    """What is not as registered: claims, studies, parameters, seeds, code; nothing if all is."""
    seed = registration[PRESETS[record.preset]]
    params = {k: v for k, v in record.params.items() if k != "first_seed"}
    found = {
        "claims": claims,
        "studies": record.choices.get("studies", {}),
        "params": params,
        "code_key": record.code_key,
        "first_seed": record.params.get("first_seed"),
    }
    wanted = {name: registration[name] for name in found if name != "first_seed"}
    return list(differences(wanted | {"first_seed": seed}, found))


def differences(registered: Any, found: Any, where: str = "") -> Iterator[str]:
    """Each leaf that differs, as ``where: registered, found``.

    >>> list(differences({"a": {"margin": 0.1}}, {"a": {"margin": 0.2, "n": 3}}))
    ['a margin: 0.1 registered, 0.2 found', 'a n: nothing registered, 3 found']
    """
    if isinstance(registered, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*registered, *found]):
            yield from differences(registered.get(key), found.get(key), f"{where} {key}".strip())
    elif _plain(registered) != _plain(found):
        told = ("nothing" if value is None else str(value)[:60] for value in (registered, found))
        yield "{}: {} registered, {} found".format(where, *told)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
