"""A file, a folder or bytes become a log: what format it is, is read off what it holds."""

from __future__ import annotations

from pathlib import Path

from cliplab.diagnosis.logs.assemble import Log, assemble
from cliplab.diagnosis.logs.columns import Unfinished
from cliplab.diagnosis.logs.events import MARK, event_files, read_events
from cliplab.diagnosis.logs.json_files import LINES, is_lines, read_document, read_lines
from cliplab.diagnosis.logs.names import Naming
from cliplab.diagnosis.logs.tables import head_of, read_table
from cliplab.history import History

HISTORY, TABLE, EVENTS = "a saved history", "CSV", "TensorBoard events"
ZIP = b"PK\x03\x04"  # what torch.save writes


def read_log(source: Path | bytes, naming: Naming | None = None, *, growing: bool = False) -> Log:
    """Read norms, and what stands beside them, from a file, a folder, or the bytes of a file.

    A ``.pt`` or a CSV of a ``History``; a ``trainer_state.json`` of Hugging Face; JSON, one object
    a line or a list of them; any CSV; event files of TensorBoard. ``growing``: a last line without
    its end is left for later.

    ``OSError`` if it cannot be read, ``Unfinished`` if there is nothing to diagnose yet,
    ``ValueError`` for what is no such file, or where it cannot be told which column is what.
    """
    naming = naming or Naming()
    if isinstance(source, bytes):
        return _read(source, None, naming, growing)
    if (state := source / "trainer_state.json").is_file():
        source = state
    if source.is_dir() or MARK in source.name:
        return assemble(read_events(event_files(source)), naming, EVENTS)
    return _read(source.read_bytes(), source, naming, growing)


def _read(data: bytes, path: Path | None, naming: Naming, growing: bool) -> Log:
    if data.startswith(ZIP) or (path is not None and path.suffix.lower() == ".pt"):
        return _history(path, naming, growing)
    if b"\0" in data[:4096]:
        raise ValueError("not text, and no saved history: expected CSV or JSON in UTF-8")
    text = data.decode("utf-8-sig", errors="replace")  # a torn line may end within a letter
    if not text.strip():
        raise Unfinished("an empty file")
    if text.lstrip()[0] in "{[" and not is_lines(text):
        kind, columns = read_document(text)
        return assemble(columns, naming, kind)
    if growing:
        text = text[: text.rfind("\n") + 1]
        if not text:
            raise Unfinished("no whole line yet")
    if text.lstrip().startswith("{"):
        return assemble(read_lines(text), naming, LINES)
    if {"norm_before", "part"} <= set(head_of(text)) and path is not None:
        return _history(path, naming, growing)
    return assemble(read_table(text), naming, TABLE)


def _history(path: Path | None, naming: Naming, growing: bool) -> Log:
    """What a ``History`` has written: nothing needs to be guessed."""
    if path is None:
        raise ValueError("a saved history is read from its file, not from standard input")
    if naming.is_given:
        raise ValueError("a saved history says itself which column is what: name none")
    try:
        return Log(History.load(path), HISTORY)
    except ValueError as error:
        if growing:  # it may just be written again
            raise Unfinished(str(error)) from None
        raise
