"""A git filter: a notebook without what running it puts in. A script, to start quickly."""

from __future__ import annotations

import json
import sys


def strip(text: str) -> str:
    """The notebook without outputs, counts, widgets, and which Python ran it; else the text."""
    try:
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
            cell["metadata"].pop("execution", None)
        notebook["metadata"].pop("widgets", None)
        language = notebook["metadata"].get("language_info", {})
        notebook["metadata"]["language_info"] = {k: language[k] for k in language if k == "name"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # no notebook of today's
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
    sys.stdout.write(strip(sys.stdin.read()))
