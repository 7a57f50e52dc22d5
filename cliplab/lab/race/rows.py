"""What a training function returned: checked, and as a study takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cliplab.lab.report.tables import is_number

__all__ = ["EARLY", "LOSSES", "Row", "checked", "named", "scored"]

Row = dict[str, Any]
LOSSES = ("val_loss", "test_loss")
EARLY = ("early_val_loss", "early_test_loss")


def named(configuration: Mapping[str, Any], seed: int) -> str:
    """A run, as a message names it.

    >>> named({"way": "norm", "lr": 0.1, "threshold": 2.0}, 7)
    'norm, lr 0.1, threshold 2, seed 7'
    """
    values = {**configuration, "seed": seed}
    told = [f"{k} {v:.6g}" for k, v in values.items() if k != "way" and v is not None]
    return ", ".join([str(values["way"]), *told])


def checked(
    returned: Any, configurations: Sequence[Mapping[str, Any]], seeds: Sequence[int]
) -> list[Row]:
    """The rows with plain values; ``ValueError`` that names the run and the value.

    A row with one loss, ``val_loss`` or ``loss``, has it as both; then ``one_loss`` is true.
    """
    if not isinstance(returned, Sequence) or not all(isinstance(r, Mapping) for r in returned):
        expected = "expected a list of dictionaries, one a run"
        raise ValueError(f"returned {returned!r:.80}, {expected}{_as_list(returned)}")
    if len(returned) != len(seeds):
        raise ValueError(f"returned {len(returned)} rows, expected {len(seeds)}, one a run")
    return [
        _checked(row, named(configuration, seed))
        for row, configuration, seed in zip(returned, configurations, seeds, strict=True)
    ]


def _as_list(returned: Any) -> str:
    """How what was returned becomes a list of rows, if it is known to."""
    if isinstance(returned, Iterator):
        return ", as by list(rows)"
    return ", as by rows.to_dict('records')" if hasattr(returned, "to_dict") else ""


def _checked(given: Mapping[str, Any], run: str) -> Row:
    row = {str(name): plain(value) for name, value in given.items()}
    diverged = row.setdefault("diverged", False)
    if not isinstance(diverged, bool):
        raise ValueError(f"({run}): diverged = {diverged!r:.60}, expected True or False")
    if "val_loss" not in row and "loss" not in row:
        has = ", ".join(map(str, given)) or "nothing"
        raise ValueError(f"({run}): no val_loss and no loss in the row, which has {has}")
    row.setdefault("val_loss", row.get("loss"))
    row["one_loss"] = "test_loss" not in row
    row.setdefault("test_loss", row["val_loss"])
    if "early_val_loss" in row:
        row.setdefault("early_test_loss", row["early_val_loss"] if row["one_loss"] else None)
    for name in (*LOSSES, *(name for name in EARLY if name in row)):
        value = row[name]
        if diverged and (value is None or isinstance(value, float)):
            continue  # scored as chance, whatever it is
        if not is_number(value) or isinstance(value, bool):
            hint = "" if diverged else ", or diverged = True"
            raise ValueError(f"({run}): {name} = {value!r:.60}, expected a finite number{hint}")
    share = row.get("clip_fraction")
    if not (diverged or share is None or (is_number(share) and 0 <= share <= 1)):
        expected = "expected the share of updates that were clipped, from 0 to 1"
        raise ValueError(f"({run}): clip_fraction = {share!r:.60}, {expected}")
    return {name: value for name, value in row.items() if is_scalar(value)}


def plain(value: Any) -> Any:
    """A tensor or an array as Python's own numbers, of one entry as a number."""
    found = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found


def is_scalar(value: Any) -> bool:
    """Whether a table can hold it; the other columns are left out."""
    return isinstance(value, str | bool | int | float | None)


def scored(row: Mapping[str, Any], chance: float, early: bool) -> Row:
    """The row as a study takes it: chance where it diverged, nothing that is not finite.

    ``early``: whether rows have the losses of an earlier checkpoint.
    """
    found = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if name != "one_loss"
    }
    if found["diverged"]:
        found |= dict.fromkeys([*LOSSES, *(EARLY if early else ())], chance)
    return found
