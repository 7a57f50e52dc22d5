"""The ledger: what is asked or said, of which kind, and how it is measured; claims.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Claim", "Ledger", "load_ledger", "registered"]

LEDGER = "claims.toml"
MOST_SEEDS = 8  # of a demonstration
STUDIED = ("comparison", "a/a", "estimate")  # the kinds that a study answers

# The keys of each kind, required and optional.
_ASKED = "notebook question study first rival control margin unit margin_reason"
_KEYS = {
    "comparison": (f"{_ASKED} source literature counter", "failure_margin bet"),
    "a/a": (_ASKED, "failure_margin counter"),
    "estimate": (f"{_ASKED} source literature counter", "failure_margin bet"),
    "demonstration": (
        "notebook statement metric better first rival unit chosen source literature",
        "counter bet",
    ),
    "share": ("notebook statement metric arms unit chosen source literature", "counter bet"),
    "identity": ("notebook statement metric arms source", "counter"),
    "withdrawn": ("notebook statement", ""),
}
KINDS = {kind: (needed.split(), more.split()) for kind, (needed, more) in _KEYS.items()}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One entry of the ledger; ``kind`` says which keys it has (KINDS).

    *comparison*: two ways of a study, each at its own best, for a user's decision; the only kind
    that gets a verdict. ``first`` is the way that the verdict speaks of. *a/a*: a way against
    itself, which tests the pipeline and is no part of Holm's family. *estimate*: measured and
    registered as a comparison is, no part of the family either: intervals, and no verdict, where a
    comparison is repeated at other sizes. *demonstration*: two arms at a setting that was chosen to
    show something. *share*: in how many rows of its arms a boolean column is true, rows where it is
    None left out; ``unit`` says what a row is. *identity*: a boolean column that is true in every
    row of its arms. *withdrawn*: what was once claimed, until it is measured anew.
    """

    id: str
    kind: str
    notebook: str
    question: str = ""
    statement: str = ""
    study: str = ""
    first: str = ""
    rival: str = ""
    control: str = ""
    margin: float = math.nan
    failure_margin: float = 0.10
    unit: str = ""
    margin_reason: str = ""
    metric: str = ""
    better: str = ""
    arms: tuple[str, ...] = ()
    chosen: str = ""
    source: str = ""
    literature: str = ""  # the source's own number and its place
    counter: str = ""
    bet: str = ""  # ours, where there is one

    @property
    def text(self) -> str:
        """What is asked or said."""
        return self.question or self.statement

    def registered(self) -> dict[str, Any]:
        """All that is said of it, as a registration holds it."""
        required, optional = KINDS[self.kind]
        return {"kind": self.kind} | {key: getattr(self, key) for key in (*required, *optional)}


@dataclass(frozen=True)
class Ledger:
    """All claims by id, and how many comparisons the family of Holm's correction has."""

    claims: Mapping[str, Claim] = field(default_factory=dict)
    family: int = 1

    def of_notebook(self, notebook: str) -> list[Claim]:
        """The claims of one notebook, in their order."""
        return [claim for claim in self.claims.values() if claim.notebook == notebook]

    def studied(self, notebook: str) -> list[Claim]:
        """Those of them that a study answers: what is registered."""
        return [claim for claim in self.of_notebook(notebook) if claim.kind in STUDIED]


def load_ledger(folder: Path = Path()) -> Ledger:
    """The claims of the claims.toml in a folder or in its notebooks/; ``ValueError`` without one.

    The default suits a running notebook (its folder is the current one) and a project's root.
    """
    for place in (folder, folder / "notebooks"):
        if (place / LEDGER).exists():
            return registered(place)
    raise ValueError(
        f"no ledger of claims: neither {folder / LEDGER} nor {folder}/notebooks/{LEDGER}"
    )


def registered(notebooks: Path) -> Ledger:
    """The claims registered beside notebooks; none without a claims.toml there.

    A missing, unknown or ill-valued key is a ValueError that names the claim and the key.
    """
    path = notebooks / LEDGER
    if not path.exists():
        return Ledger()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    family = tables.pop("family", None)
    claims = {claim_id: _claim(claim_id, table) for claim_id, table in tables.items()}
    compared = sum(claim.kind == "comparison" for claim in claims.values())
    if family is None:
        family = max(compared, 1)
    if type(family) is not int or family < max(compared, 1):
        raise ValueError(f"{path}: family = {family!r}, expected a whole number >= {compared}")
    return Ledger(claims, family)


def _claim(claim_id: str, table: object) -> Claim:
    if not isinstance(table, dict):
        raise ValueError(f"claim {claim_id} = {table!r:.60}, expected a table")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"claim {claim_id}: kind = {kind!r:.60}, expected one of {', '.join(KINDS)}"
        )
    required, optional = KINDS[kind]
    for key in required:
        if key not in table:
            raise ValueError(f"claim {claim_id}: {key} is missing")
    for key, value in table.items():
        if key not in (*required, *optional, "kind"):
            raise ValueError(f"claim {claim_id}: a {kind} has no key {key!r}")
        if expected := _wrong(key, value):
            raise ValueError(f"claim {claim_id}: {key} = {value!r:.60}, expected {expected}")
    arms = {"arms": tuple(table["arms"])} if "arms" in table else {}
    if kind in (*STUDIED, "demonstration") and table["first"] == table["rival"]:
        raise ValueError(
            f"claim {claim_id}: rival = {table['rival']!r}, expected another than first"
        )
    return Claim(id=claim_id, **(table | arms))


def _wrong(key: str, value: Any) -> str:
    """What was expected instead of a value; nothing if it will do."""
    if key == "better":
        return "" if value in ("lower", "higher") else "'lower' or 'higher'"
    if key in ("margin", "failure_margin"):
        number = isinstance(value, int | float) and type(value) is not bool
        fine = number and 0 < value < (1 if key == "failure_margin" else 1e300)
        return "" if fine else "a number above 0"
    if key == "arms":
        fine = isinstance(value, list) and value and all(isinstance(a, str) and a for a in value)
        return "" if fine else "a list of arms"
    return "" if isinstance(value, str) and value.strip() else "a text"
