"""A folder of records of tests: a registration, and rows from its seeds."""

import json
from pathlib import Path
from typing import Any

from studying import comparison, study, surface

from cliplab.lab.claims import Claim
from cliplab.lab.notebook.registrations import sealed
from cliplab.lab.runs.csvrows import write_rows
from cliplab.lab.study import Study

NAME = "01_toy"


def publish(
    folder: Path,
    *claims: Claim,
    studies: list[Study] | None = None,
    size: str = "tiny",
    **changes: Any,
) -> list[dict[str, Any]]:
    """Write the claims' registration and the rows of its studies; ``changes`` break its seal."""
    studies = studies or [study(surface(gain=0.1))]
    content = sealed(
        {
            "notebook": NAME,
            "claims": {c.id: c.registered() for c in claims or [comparison()]},
            "studies": {one.name: one.about() for one in studies},
        }
    )
    (folder / f"{NAME}.registration.json").write_text(json.dumps(content | changes))
    rows = [row for one in studies for row in one.run(size, content["first_seed"])]
    (folder / f"{NAME}.csv").write_text(write_rows(rows))
    return rows
