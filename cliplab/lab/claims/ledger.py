"""The ledger of claims: what each one asserts, and how it will be measured."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard

from cliplab.lab.claims.verdict import DECIDED

__all__ = ["Claim", "load_ledger", "registered"]

LEDGER = "claims.toml"
TESTS = {"paired": "statistical", "mcnemar": "statistical", "exact": "exact"}
TEXTS = ("statement", "notebook", "metric", "source", "counter")
STATISTICAL_ONLY = ("better", "margin", "margin_reason", "unit", "baseline", "control")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One registered claim: a primary contrast in one notebook; the keys of claims.toml.

    `contrast` weighs the arms within each seed (two arms, or four for an interaction); a positive
    effect always means "as the statement says". An exact claim is a boolean metric that must hold
    in every row of these arms. `equivalent` is open only to a claim with a `baseline` that every
    arm must beat in the mean, and a `control` contrast that must be detected.
    """

    id: str
    statement: str
    notebook: str
    kind: str
    test: str
    metric: str
    contrast: Mapping[str, float]
    n: int
    source: str
    counter: str
    expected: str
    better: str | None = None
    margin: float | None = None
    margin_reason: str | None = None
    unit: str | None = None
    baseline: float | None = None
    control: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for key in TEXTS:
            self._check(key, _is_text(getattr(self, key)), "a text")
        self._check("test", self.test in [*TESTS], f"one of {', '.join(TESTS)}")
        self._check("kind", self.kind == TESTS[self.test], f"{TESTS[self.test]!r} for this test")
        self._check("n", type(self.n) is int and self.n >= 1, "a whole number, at least 1")
        self._check("expected", self.expected in DECIDED, f"one of {', '.join(DECIDED)}")
        if self.kind == "exact":
            self._check("contrast", _is_weights(self.contrast), "arms with weights")
            for key in STATISTICAL_ONLY:
                self._check(key, getattr(self, key) is None, "no such key in an exact claim")
            return
        self._check("better", self.better in ("lower", "higher"), "'lower' or 'higher'")
        self._check("margin", _is_number(self.margin) and self.margin > 0, "a number above 0")
        self._check("margin_reason", _is_text(self.margin_reason), "a text")
        self._check("unit", _is_text(self.unit), "a text")
        self._check_contrast("contrast", self.contrast)
        both = (self.control is None) == (self.baseline is None)
        self._check("control", both, "baseline and control together or neither")
        if self.control is not None:
            self._check("baseline", _is_number(self.baseline), "a number")
            self._check_contrast("control", self.control)
        closed = self.expected == "equivalent" and self.control is None
        self._check("expected", not closed, "a baseline and a control where this is expected")

    def _check_contrast(self, key: str, weights: Any) -> None:
        if self.test == "mcnemar":
            ok = _is_weights(weights) and sorted(weights.values()) == [-1, 1]
            self._check(key, ok, "two arms with weights 1 and -1")
        else:
            ok = _is_weights(weights) and math.fsum(weights.values()) == 0
            self._check(key, ok, "arms with weights that add up to 0")

    def _check(self, key: str, ok: bool, expected: str) -> None:
        if not ok:
            raise ValueError(
                f"claim {self.id}: {key} = {getattr(self, key)!r}, expected {expected}"
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) < 1e300


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_number, value.values()))


def load_ledger(folder: Path = Path()) -> dict[str, Claim]:
    """The claims of the claims.toml in a folder or in its notebooks/; ``ValueError`` without one.

    The default suits a running notebook (its folder is the current one) and a project's root.
    """
    for place in (folder, folder / "notebooks"):
        if (place / LEDGER).exists():
            return registered(place)
    raise ValueError(
        f"no ledger of claims: neither {folder / LEDGER} nor {folder}/notebooks/{LEDGER}"
    )


def registered(notebooks: Path) -> dict[str, Claim]:
    """The claims registered beside notebooks, by their id; none without a claims.toml there.

    A missing, unknown or ill-valued key is a ValueError that names the claim and the key.
    """
    path = notebooks / LEDGER
    if not path.exists():
        return {}
    known = {field.name: field.default is MISSING for field in fields(Claim) if field.name != "id"}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    ledger = {}
    for claim_id, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"claim {claim_id} = {table!r}, expected a table")
        for key in table.keys() - known.keys():
            raise ValueError(f"claim {claim_id}: unknown key {key!r}")
        for key, required in known.items():
            if required and key not in table:
                raise ValueError(f"claim {claim_id}: key {key!r} is missing")
        ledger[claim_id] = Claim(id=claim_id, **table)
    return ledger
