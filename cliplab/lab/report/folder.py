"""The folder of a report: made by cliplab and marked so; what it did not write there stays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.presets import MARK
from cliplab.lab.runs.files import check_writable, is_leftover

INDEX, CLAIMS, PAGES = "index.html", "claims.json", "pages"
HEAD_BYTES = 1000  # of a page, in which its <meta> lines stand
POLICY = b"\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\""


def claim_folder(reports: Path) -> None:
    """Make the folder and mark it as cliplab's; an older report, without a mark, is taken over.

    ``ValueError``: see :func:`check_folder`; or it cannot be written.
    """
    check_folder(reports)
    check_writable(reports, "--reports")
    (reports / MARK).touch()


def check_folder(reports: Path) -> None:
    """``ValueError`` if a report cannot go there: cliplab did not write what it would replace."""
    if not reports.exists():
        return
    if not reports.is_dir():
        raise ValueError(f"--reports {reports} is not a folder")
    for path in sorted(reports.iterdir()):
        foreign = _foreign_in(path)
        if foreign and not _is_marked(reports):
            raise ValueError(
                f"--reports {reports} holds {foreign.relative_to(reports)}, which cliplab did not "
                "write: choose a folder of its own"
            )
    for name in (INDEX, CLAIMS):
        check_ours(reports / name)


def check_ours(path: Path) -> None:
    """``ValueError`` if something is there that cliplab did not write."""
    if path.exists() and not is_ours(path):
        raise ValueError(f"{path} was not written by cliplab: move it, or choose other --reports")


def is_ours(path: Path) -> bool:
    """Whether cliplab wrote this file of a report, under this name."""
    try:
        if path.suffix == ".html":
            with path.open("rb") as file:
                return _is_page(file.read(HEAD_BYTES), path.name)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return _is_claims(content)


def _is_marked(reports: Path) -> bool:
    """Whether cliplab made this folder, for reports; asked late, as another batch may do it now."""
    try:
        return not (reports / MARK).read_text("utf-8", "replace").startswith("notebooks")
    except OSError:
        return False


def _foreign_in(path: Path) -> Path | None:
    """The first thing at or below a path that is no part of a report."""
    if path.name == PAGES and path.is_dir():
        return next((page for page in sorted(path.iterdir()) if not _is_part(page)), None)
    return None if _is_part(path) else path


def _is_part(path: Path) -> bool:
    if path.name == MARK:
        return _is_marked(path.parent)
    if is_leftover(path):
        return True
    return (path.suffix == ".html" or path.name == CLAIMS) and is_ours(path)


def _is_page(head: bytes, name: str) -> bool:
    """A page says which it is, so that a copy of another name is its maker's."""
    found = re.search(rb'<meta name="generator" content="([^"]*)">', head)
    return found[1] == f"cliplab: {name}".encode() if found else POLICY in head


def _is_claims(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(claim, dict) and {"id", "statement", "verdict"} <= claim.keys()
        for claim in content
    )
