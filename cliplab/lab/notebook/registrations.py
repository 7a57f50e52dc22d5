"""What was registered of a notebook before its verdict run: the file, and the seeds it fixes.

``records/NN.registration.json`` beside the folder ``notebooks``; of a notebook in any other folder,
in ``records`` there or, as in a copied collection, beside the notebook itself. It is a hash's own
witness: the seeds of the verdict run, and of its replication, follow from all that it says.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "REGISTRATION",
    "REPLICA",
    "find_registration",
    "read_registration",
    "records_of",
    "registration_path",
    "sealed",
]

# What lies beside a published record, NN.json and NN.csv: NN.registration.json, NN.replica.json
REGISTRATION, REPLICA = ".registration.json", ".replica"
SEALS = ("hash", "first_seed", "replica_seed")


def records_of(folder: Path) -> Path:
    """Where the records of a folder's notebooks are: beside ``notebooks``, in any other folder."""
    folder = Path(os.path.abspath(folder))
    root = folder.parent if folder.name == "notebooks" else folder
    return root / "records"


def registration_path(notebook: Path) -> Path:
    """Where the registration of a notebook is written."""
    return records_of(notebook.parent) / f"{notebook.stem}{REGISTRATION}"


def find_registration(notebook: Path) -> Path | None:
    """The registration of a notebook: among the records, else the copy beside the notebook."""
    written = registration_path(notebook)
    places = (written, notebook.with_name(written.name))
    return next((path for path in places if path.exists()), None)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its hash, and the two first seeds that are derived from the hash."""
    plain = {name: value for name, value in content.items() if name not in SEALS}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False)
    seal = hashlib.sha256(text.encode()).hexdigest()
    return {
        **plain,
        "hash": seal,
        "first_seed": _seed(seal),
        "replica_seed": _seed(f"{seal} again"),
    }


def _seed(text: str) -> int:
    """A seed from 10^6 (those below are for pilots and previews) to 10^9."""
    number = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    return 10**6 + number % (10**9 - 10**6)


def read_registration(notebook: Path) -> dict[str, Any] | None:
    """The registration of a notebook, None without one; ``ValueError`` if it was changed."""
    path = find_registration(notebook)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(content, dict) and content == sealed(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not whole:
        raise ValueError(f"{path}: its content does not match its hash: register again")
    return dict(content)
