"""Measure published records again in full: does today's code give every row of them?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from cliplab.lab.attest.carried import as_json
from cliplab.lab.attest.checkout import git, uncommitted
from cliplab.lab.attest.compare import first_difference
from cliplab.lab.attest.rerun import rerun
from cliplab.lab.runs.csvrows import read_rows, write_rows
from cliplab.lab.runs.files import write_atomic

__all__ = ["drawn", "remeasured"]


def drawn(names: Iterable[str], commit: str, count: int) -> list[str]:
    """The names that a commit draws: the first by the SHA-256 of its hash, a space and the name.

    >>> drawn(["01_a", "02_b", "03_c"], "f06c21b", 2)
    ['01_a', '03_c']
    """
    return sorted(names, key=lambda name: sha256(f"{commit} {name}".encode()).digest())[:count]


def remeasured(notebook: Path, records: Path, root: Path, drawn_of: int = 0) -> str:
    """Run a published notebook once more, by its record's parameters, with the code of ``root``.

    What came of it, a difference too, is written into the record as ``remeasured``, and returned.
    ``drawn_of``: the number of records from which the commit drew this one, 0 if it was chosen.
    ``ValueError``: the checkout has changes or is of others' notebooks, or the notebook fails.
    """
    if root.resolve() not in notebook.resolve().parents:
        raise ValueError(f"{notebook} is not in {root}, whose code would run")
    if files := uncommitted(root):
        raise ValueError(f"remeasure needs a clean checkout; not committed:\n{files}")
    path = records / f"{notebook.stem}.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    published = read_rows(path.with_suffix(".csv").read_text(encoding="utf-8"))
    payload, _ = rerun(root, notebook, about["params"])
    found = read_rows(write_rows(payload["rows"]))
    difference = first_difference(_rows(published), _rows(found))
    about["remeasured"] = {
        "commit": git(root, "rev-parse", "HEAD"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "drawn_of": drawn_of,
        "n_rows": len(published),
        "difference": difference,
    }
    write_atomic(path, as_json(about))
    return f"not the same: {difference}" if difference else f"{len(published)} rows, all the same"


def _rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": rows, "curves": [], "choices": {}}
