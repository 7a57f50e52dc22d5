"""Whether runs are as they were registered: what a verdict says of itself, what publish refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.notebook.registrations import read_registration
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.runs.register import deviations

__all__ = ["as_registered"]


def as_registered(
    notebook: Path, records: Sequence[RunRecord], ledger: Ledger
) -> tuple[str, list[str]]:
    """The hash of a notebook's registration, and where its verdict or replica runs are not so.

    No hash, and nothing that deviates, where no study answers a claim of the notebook.
    """
    own = ledger.studied(notebook.stem)
    if not own:
        return "", []
    registration = read_registration(notebook)
    if registration is None:
        return "", [f"not registered: `cliplab register {notebook.stem}`"]
    claims = {claim.id: claim.registered() for claim in own}
    found = [why for record in records for why in deviations(registration, claims, vars(record))]
    return str(registration["hash"]), list(dict.fromkeys(found))
