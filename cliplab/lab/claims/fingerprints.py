"""Fingerprints: verdicts with time shortened, whose numbers a refactoring may not move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cliplab.lab.claims.ledger import Claim


def missing_arms(
    ledger: Mapping[str, Claim], notebook: str, rows: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Arms that the notebook's claims name, in a contrast or a control, and that no row has."""
    claims = [claim for claim in ledger.values() if claim.notebook == notebook]
    named = dict.fromkeys(
        arm for claim in claims for arm in (*claim.contrast, *(claim.control or {}))
    )
    found = {row["arm"] for row in rows}
    return [arm for arm in named if arm not in found]
