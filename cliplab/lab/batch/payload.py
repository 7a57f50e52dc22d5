"""What an executed notebook gave: the record of cliplab, the values of papermill's world."""

from __future__ import annotations

import json
import re
from typing import Any

from cliplab.lab.batch.spec import RunError
from cliplab.lab.runs.record import MIME

OLD_RECORD = "application/papermill.record+json"
_GLUED = r"application/scrapbook\.scrap\.(json|text)\+json"
_KINDS = "|".join([re.escape(MIME), re.escape(OLD_RECORD), _GLUED])
_SHAPE = {"rows": list, "curves": list, "choices": dict, "values": dict, "provenance": dict}


def payload_of(notebook: Any) -> dict[str, Any]:
    """Rows at most once, and values, the last of a name.

    Values are also what scrapbook glued, and what papermill's ``record`` of old displayed.
    """
    payload: dict[str, Any] = {"rows": [], "curves": [], "choices": {}, "provenance": {}}
    values: dict[str, Any] = {}
    tables = 0
    for kind, content in outputs_of(notebook, _KINDS):
        if kind == MIME:
            _refuse_other_shapes(content)
            tables += "rows" in content
            values |= content.get("values", {})
            payload |= content
        elif not isinstance(content, dict):
            raise RunError(f"an output of type {kind} is no object: {content!r:.60}", retry=False)
        elif kind == OLD_RECORD:
            values |= content
        elif isinstance(content.get("name"), str) and "data" in content:
            values[content["name"]] = content["data"]
        else:
            raise RunError(f"an output of type {kind} has no name and data", retry=False)
    if tables > 1:
        why = f"record(rows) must be called once in the notebook, not {tables} times"
        raise RunError(why, retry=False)
    return payload | {"values": values}


def outputs_of(notebook: Any, kinds: str) -> list[tuple[str, Any]]:
    """The outputs whose type matches a pattern, as plain values: no nbformat types."""
    bundles = [o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", [])]
    return [
        (kind, json.loads(json.dumps(content)))
        for bundle in bundles
        for kind, content in bundle.items()
        if re.fullmatch(kinds, kind)
    ]


def _refuse_other_shapes(content: Any) -> None:
    """Anything may display an output of the type that ``record`` displays."""
    if not isinstance(content, dict):
        raise RunError(f"an output of type {MIME} is no object: {content!r:.60}", retry=False)
    for name, part in content.items():
        kind = _SHAPE.get(name)
        if kind is None or not isinstance(part, kind):
            raise RunError(f"an output of type {MIME} has {name} = {part!r:.60}", retry=False)
    for part in (*content.get("rows", []), *content.get("curves", [])):
        if not (isinstance(part, dict) and isinstance(part.get("arm"), str) and "seed" in part):
            raise RunError(f"an output of type {MIME} has the row {part!r:.60}", retry=False)
