"""Public full-size data sets, by URL: fetched with pooch only where a preset asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cliplab.lab.data.fetch import DataUnavailable, cache_dir


@dataclass(frozen=True)
class PublicFile:
    """One file on the web: `sha256` is its content's, `size` bytes; none of it is redistributed."""

    name: str
    url: str
    sha256: str
    size: int
    licence: str

    def __str__(self) -> str:
        return f"file {self.name!r} ({self.url})"


def download(file: PublicFile) -> Path:
    """The file, from the cache or the web; its sha256 is checked every time.

    Raises `DataUnavailable` with one line that names the file where the web cannot be reached or
    serves something else.
    """
    import pooch
    import requests

    try:
        path = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=re.sub(r"[^\w.-]", "_", file.name),
            path=cache_dir() / "public",
            progressbar=False,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        first_line = " ".join(str(error).split())[:200]
        raise DataUnavailable(f"{file} could not be fetched: {first_line}") from None
    return Path(path)
