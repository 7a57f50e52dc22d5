"""``cliplab diagnose``: what a saved history, or any trainer's log, shows."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cliplab.cli.arguments import REFUSED, fail

if TYPE_CHECKING:
    from cliplab.diagnosis import Findings, Log

NOTHING, FOUND = 0, 1
EVERY = 1.0  # seconds between two looks at a file that grows
STDIN = Path("-")
# The severities that make the exit status 1, by what --fail-on says.
BARS: dict[str, tuple[str, ...]] = {
    "info": ("info", "warning", "critical"),
    "warning": ("warning", "critical"),
    "critical": ("critical",),
    "error": ("critical",),
    "never": (),
}
PATIENCE = 5  # a log is read again after so many times what its reading took


def diagnose(options: argparse.Namespace) -> int:
    """``cliplab diagnose``: the exit status is 0 (nothing found), 1 (something), 2 (trouble)."""
    if options.watch:
        if options.history == STDIN:
            raise ValueError("--watch reads a file again as it grows: name it, not standard input")
        return _watch(options)
    if options.seconds is not None or options.every is not None:
        raise ValueError("--every and --for go with --watch")
    log = _read(options)
    found = _advise(log, options)
    _say_what_was_read(log, options, set())
    if options.json:
        print(json.dumps(_as_data(log, found), indent=1, allow_nan=False))
    else:
        print(f"{_extent(log)}: {found.headline}")
        print("".join(f"\n{finding}\n" for finding in found), end="")
    return _status(found, options)


def _read(options: argparse.Namespace) -> Log:
    """The log, every error with the name of the file."""
    from cliplab.diagnosis import Naming, Unfinished, read_log

    # Else tensorboard would import all of TensorFlow, where that is installed, to read files.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    naming = Naming(options.norm, options.loss, options.lr_column, options.step, options.threshold)
    source = sys.stdin.buffer.read() if options.history == STDIN else options.history
    try:
        return read_log(source, naming, growing=options.watch)
    except OSError as error:
        raise ValueError(f"cannot read {_name(options)}: {error.strerror}") from None
    except ValueError as error:
        kind = Unfinished if isinstance(error, Unfinished) else ValueError
        told = str(error).removeprefix(f"{options.history}: ")  # some say it themselves
        raise kind(f"{_name(options)}: {told}") from None


def _advise(log: Log, options: argparse.Namespace) -> Findings:
    from cliplab.diagnosis import diagnose as advise

    return advise(log.history, options.lr, loss=log.loss, steps=log.steps)


def _watch(options: argparse.Namespace) -> int:
    """Read the log again as it grows, and print what is new, until Ctrl-C or for a time."""
    from cliplab.diagnosis import Unfinished

    told: set[str] = set()
    log = found = None
    try:
        for _ in _changes(options):
            try:
                log = _read(options)
            except Unfinished as why:
                _tell_once(f"waiting: {why}", told)
                continue
            found = _advise(log, options)
            _say_what_was_read(log, options, told)
            for finding in found:
                if (what := f"{finding.severity}: {finding.name}") not in told:
                    told.add(what)
                    data = {"steps": len(log.history), **finding.as_dict()}
                    text = f"{_extent(log)}: {finding}\n"
                    print(json.dumps(data, allow_nan=False) if options.json else text, flush=True)
    except KeyboardInterrupt:
        pass
    if log is None or found is None:
        return fail(REFUSED, f"{_name(options)}: nothing to diagnose was written while watching")
    if not options.json:
        print(f"{_extent(log)}: {found.headline}")
    return _status(found, options)


def _changes(options: argparse.Namespace) -> Iterator[None]:
    """Once now, and whenever the file (or a file of the folder) has changed."""
    end = math.inf if options.seconds is None else time.monotonic() + options.seconds
    seen: object = None
    while True:
        begin, now = time.monotonic(), _stamp(options.history)
        if now != seen:
            seen = now
            yield
        pause = max(options.every or EVERY, PATIENCE * (time.monotonic() - begin))
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))


def _stamp(path: Path) -> object:
    """What changes when a file, or one in a folder, is written to."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [file.stat() for file in files if file.exists()]
    return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


def _name(options: argparse.Namespace) -> str:
    return "standard input" if options.history == STDIN else str(options.history)


def _extent(log: Log) -> str:
    """How many steps there are, and which, where the log numbers them."""
    steps = f"{len(log.history)} steps"
    if log.steps is None or not log.columns.get("step"):
        return steps
    return f"{steps} ({int(log.steps[0])} to {int(log.steps[-1])})"


def _say_what_was_read(log: Log, options: argparse.Namespace, told: set[str]) -> None:
    """On stderr: which column was taken for what, and what was odd; nothing of a saved history."""
    if log.columns:
        taken = ", ".join(f"{role}: {column or 'none'}" for role, column in log.columns.items())
        if log.columns["threshold"] is None:
            taken += " (--threshold says at which norms were clipped)"
        _tell_once(f"{_name(options)} ({log.format}): {taken}", told)
    for note in log.notes:
        _tell_once(note, told)


def _tell_once(line: str, told: set[str]) -> None:
    """A line on stderr, unless it was there already, maybe with other numbers."""
    if (what := re.sub(r"\d+", "", line)) not in told:
        told.add(what)
        print(f"cliplab: {line}", file=sys.stderr, flush=True)


def _as_data(log: Log, found: Findings) -> dict[str, Any]:
    """What was read and found, as plain values."""
    first = log.history.first_step if log.steps is None else int(log.steps[0])
    last = first + len(log.history) - 1 if log.steps is None else int(log.steps[-1])
    return {
        "format": log.format,
        "steps": len(log.history),
        "first_step": first,
        "last_step": last,
        "columns": log.columns,
        "notes": log.notes,
        "findings": [finding.as_dict() for finding in found],
    }


def _status(found: Findings, options: argparse.Namespace) -> int:
    bar = BARS[options.fail_on]
    return FOUND if any(finding.severity in bar for finding in found) else NOTHING
