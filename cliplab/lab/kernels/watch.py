"""In a kernel: notes which files below its folder are opened that were there before it.

A script that imports no cliplab. ``OPENED`` is the file that gets their paths, a null byte behind
each. What a library opens without Python is not seen; SQLite's files are.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig

MOST = 10_000  # files that are looked at
WRITES = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def watch(opened: str) -> None:
    """Note what this process, and those forked from it, open from now on."""
    notes = os.open(opened, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.utime(opened)
    folder, began = os.path.join(os.getcwd(), ""), os.stat(opened).st_mtime  # by the files' clock
    library = tuple(os.path.join(sysconfig.get_path(n), "") for n in ("stdlib", "platstdlib"))
    installed = tuple(f"{os.sep}{name}-packages{os.sep}" for name in ("site", "dist"))
    asked: set[tuple] = set()
    seen: set[str] = set()

    def note(path: str) -> None:
        if path in seen:
            return
        seen.add(path)
        places = (path, os.path.realpath(path))  # a link may lead into the folder, or out of it
        path = next((place for place in places if place.startswith(folder)), "")
        if not path or path.startswith(library) or any(part in path for part in installed):
            return
        found = os.stat(path)
        before = max(found.st_mtime, found.st_ctime) < began  # else the run wrote it
        if before and stat.S_ISREG(found.st_mode):
            os.write(notes, os.fsencode(path) + b"\0")

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" or event == "sqlite3.connect":
            try:
                name, flags = arguments[0], arguments[2] if event == "open" else 0
                if (flags or 0) & WRITES or isinstance(name, int) or len(asked) >= MOST:
                    return
                here = name, os.getcwd()
                if here not in asked:
                    asked.add(here)
                    note(os.path.abspath(os.fsdecode(name)))
            except Exception:  # whatever it is, the notebook's code goes on
                pass

    sys.addaudithook(hook)


if "OPENED" in globals():
    watch(globals()["OPENED"])
