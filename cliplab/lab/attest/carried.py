"""What a published record's key says today: measured with this code, carried to it, or neither."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

About = Mapping[str, Any]  # records/NN.json


def as_json(about: About) -> str:
    """The text of ``records/NN.json``."""
    return json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def state(about: About, code_key: str) -> str:
    """``current``, ``carried`` or ``superseded``."""
    if about["code_key"] == code_key:
        return "current"
    return "carried" if (about.get("carried") or {}).get("code_key") == code_key else "superseded"


def sentence(about: About) -> str:
    """With which code the rows were measured, and which other code gave the same ones."""
    measured = about["provenance"]
    text = f"measured with the code of {_sha(measured['git_sha'])} ({measured.get('finished')})"
    if carried := about.get("carried"):
        updates = carried.get("updates")
        run = f"a short run of {updates} updates" if updates else "a short run"
        text += (
            f"; the code of {_sha(carried['to'])} ({carried['date']}) gave the same "
            f"{carried['n_rows']} rows in {run}"
        )
    if pending := about.get("pending"):
        text += f"; **superseded, run pending**: {pending}"
    return text


def changes(about: About) -> str:
    """How many definitions changed while the rows stayed the same, and in how many modules."""
    names = (about.get("carried") or {}).get("changed", [])
    modules = {name.partition(":")[0] for name in names}
    return f"{len(names)} in {len(modules)} modules, listed in records/" if names else ""


def accepted(abouts: Mapping[str, About]) -> list[dict[str, str]]:
    """What a person vouched for (no run entered it, or its meaning changed), and where."""
    found: dict[tuple[str, str], list[tuple[str, set[str]]]] = {}
    for notebook, about in abouts.items():
        for entry in (about.get("carried") or {}).get("accepted", []):
            where = found.setdefault((entry["pattern"], entry["why"]), [])
            where.append((notebook.partition("_")[0], set(entry["names"])))
    return [
        {
            "Accepted": pattern,
            "Names": _few(sorted(set().union(*(names for _, names in where)))),
            "In": ", ".join(notebook for notebook, _ in where),
            "Why": why,
        }
        for (pattern, why), where in found.items()
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{len(names)}, listed in records/"


def _sha(sha: str | None) -> str:
    return f"`{sha[:12]}`" if sha else "no commit"
