"""What a notebook records: its rows, checked and made plain.

Makes numbers: yes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from cliplab.lab.runs.provenance import provenance
from cliplab.lab.runs.record import MIME


def record(
    rows: Any = None, *, curves: Any = None, choices: Mapping[str, Any] | None = None, **values: Any
) -> None:
    """Publish a notebook's measurements as an output of its cell: a table once, values at any time.

    Anything else than what is listed is a ``ValueError`` naming arm, seed, column and value.

    Args:
        rows: dicts (or a DataFrame), one a trained model, with ``arm: str``, ``seed: int`` and
            columns of finite numbers, text, booleans or None.
        curves: dicts with ``arm, seed, name, x, y``, where ``y`` may hold None.
        choices: configurations frozen on the tuning seeds.
        values: whatever JSON can hold, as ``record(val_loss=0.3)``; the last of a name counts.
    """
    from IPython.display import display

    if rows is None and (curves is not None or choices is not None or not values):
        raise ValueError("record: expected rows, or values as in record(val_loss=0.3)")
    said = {name: _json_able(name, value) for name, value in values.items()}
    payload: dict[str, Any] = {"values": said}
    text = [f"{name} = {value!r:.60}" for name, value in said.items()]
    if rows is not None:
        payload |= {
            "rows": tidy_rows(rows),
            "curves": tidy_curves(curves if curves is not None else []),
            "choices": _json_able("choices", choices or {}),
        }
        text.append(f"{len(payload['rows'])} rows")
    payload["provenance"] = provenance()
    display({MIME: payload, "text/plain": f"recorded {', '.join(text)}"}, raw=True)


def _json_able(name: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise ValueError(f"record: {name} cannot be stored as JSON: {error}") from None


def tidy_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows with plain Python values, or a ``ValueError``; see :func:`record`.

    >>> tidy_rows([{"arm": "none", "seed": 0, "loss": float("nan")}])
    Traceback (most recent call last):
    ValueError: record: arm 'none', seed 0: loss = nan is not finite
    """
    hint = ""
    if hasattr(rows, "to_dict"):  # a DataFrame
        hint = " (a DataFrame turns None into NaN: pass a list of dicts)"
        rows = rows.to_dict("records")
    tidy = _plain_dicts(rows)
    if not tidy:
        raise ValueError("record: no rows")
    for row in tidy:
        where = _where(row)
        for name, value in row.items():
            if not isinstance(value, str | bool | int | float | None):
                raise ValueError(f"{where}: {name} = {value!r} is not a number, text, bool or None")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where}: {name} = {value!r} is not finite{hint}")
    _refuse_duplicates([(row["arm"], row["seed"]) for row in tidy], "record")
    return tidy


def tidy_curves(curves: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Curves with plain Python values, or a ``ValueError``; see :func:`record`."""
    tidy = _plain_dicts(curves)
    for curve in tidy:
        where = _where(curve)
        if not isinstance(curve.get("name"), str):
            raise ValueError(f"{where}: a curve needs a name, got {curve.get('name')!r}")
        x, y = curve.get("x"), curve.get("y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            raise ValueError(
                f"{where}: curve {curve['name']}: x and y must be as long as each other"
            )
        for value in [*x, *(value for value in y if value is not None)]:
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(
                    f"{where}: curve {curve['name']}: {value!r} is not a finite number"
                )
    _refuse_duplicates([(c["arm"], c["seed"], c["name"]) for c in tidy], "record: curve")
    return tidy


def _plain_dicts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(rows, Iterable) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"record: expected a list of dicts, got {rows!r:.80}")
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def _where(row: Mapping[str, Any]) -> str:
    arm, seed = row.get("arm"), row.get("seed")
    where = f"record: arm {arm!r}, seed {seed!r}"
    if not isinstance(arm, str) or not arm:
        raise ValueError(f"{where}: arm must be text")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{where}: seed must be an int")
    return where


def _refuse_duplicates(keys: list[tuple], what: str) -> None:
    seen: set[tuple] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{what}: {key} is there twice; (arm, seed) must be unique")
        seen.add(key)


def _plain(value: Any) -> Any:
    """Python value of a numpy or torch scalar, array or tensor (lists: of each item)."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
