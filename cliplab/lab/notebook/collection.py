"""This collection of notebooks, to be copied to where one works."""

from __future__ import annotations

from pathlib import Path

from cliplab.lab.notebook.presets import MARK
from cliplab.lab.notebook.registrations import REGISTRATION, find_registration, records_of

WHAT = "notebooks"


def collection() -> Path:
    """Where the collection is: within the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "collection"
    return installed if installed.is_dir() else package.parent / "notebooks"


def find_records(given: str = "") -> Path:
    """The folder of published rows and registrations that a running notebook is to read.

    The one given; else those of the folder that it runs in; else those that came with this
    installation. ``ValueError``: there are no registrations.
    """
    own = collection()
    places = [Path(given)] if given else [records_of(Path()), records_of(own), own]
    for place in places:
        if any(place.glob(f"*{REGISTRATION}")):
            return place
    raise ValueError(f"no registrations in {', '.join(map(str, places))}")


def copy_collection(folder: Path) -> list[Path]:
    """Copy notebooks, presets, claims and registrations; the files that were not there before.

    With its registration beside it, a notebook's verdict preset has the registered seeds there too.
    ``ValueError``, and nothing is copied: a file of the folder is not as it would be.
    """
    source = collection()
    notebooks = sorted(source.glob("*.ipynb"))
    files = [*notebooks, source / "presets.toml", source / "claims.toml"]
    if not notebooks or not all(path.is_file() for path in files):
        raise ValueError(f"this installation of cliplab has no notebooks in {source}")
    files += [path for notebook in notebooks if (path := find_registration(notebook))]
    wanted = {folder / path.name: path.read_bytes() for path in files}
    wanted[folder / MARK] = f"{WHAT}\n".encode()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    there = [path for path in wanted if path.exists() or path.is_symlink()]
    other = [path.name for path in there if not _holds(path, wanted[path])]
    if other:
        raise ValueError(f"{folder} has other files of these names: {', '.join(other)}")
    folder.mkdir(parents=True, exist_ok=True)
    made = [path for path in wanted if path not in there]
    for path in made:
        path.write_bytes(wanted[path])
    return made


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
