"""What was registered of a notebook before its verdict run: the file, and the seeds it fixes.

``records/NN.registration.json`` beside the folder of the notebooks. It is a hash's own witness: the
seeds of the verdict run, and of its replication, follow from all that it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_registration", "registration_path", "sealed"]

SEALS = ("hash", "first_seed", "replica_seed")


def registration_path(notebook: Path) -> Path:
    """Where the registration of a notebook is, or would be."""
    return notebook.parent.parent / "records" / f"{notebook.stem}.registration.json"


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
    path = registration_path(notebook)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, dict) or content != sealed(content):
        raise ValueError(f"{path}: its content does not match its hash: register again")
    return content
