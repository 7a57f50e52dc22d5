import dataclasses
import hashlib
from pathlib import Path

import pytest

from cliplab.lab.data import shakespeare
from cliplab.lab.data.fetch import DataUnavailable
from cliplab.lab.data.shakespeare import TINY_SHAKESPEARE, shakespeare_corpus

TEXT = "".join(f"Line {i}: to be, or not to be?\n" for i in range(200))


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of ours lies in the cache in place of the plays; its path."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    sha256 = hashlib.sha256(TEXT.encode()).hexdigest()
    ours = dataclasses.replace(TINY_SHAKESPEARE, sha256=sha256, url="http://127.0.0.1:9/none")
    monkeypatch.setattr(shakespeare, "TINY_SHAKESPEARE", ours)
    path = tmp_path / "public" / TINY_SHAKESPEARE.name
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_text_is_cut_into_nine_tenths_and_two_halves_of_the_last(cached: Path) -> None:
    corpus = shakespeare_corpus()
    parts = [corpus.decode(ids) for ids in (corpus.train, corpus.valid, corpus.test)]
    assert "".join(parts) == TEXT
    assert len(parts[0]) == int(0.9 * len(TEXT))
    assert abs(len(parts[1]) - len(parts[2])) <= 1
    assert corpus.vocab == len(set(TEXT))
    assert corpus.alphabet == "".join(sorted(set(TEXT)))


def test_a_text_that_cannot_be_had_is_named(cached: Path) -> None:
    cached.unlink()
    with pytest.raises(DataUnavailable, match="tinyshakespeare"):
        shakespeare_corpus()


def test_the_pin_is_of_one_commit() -> None:
    assert "/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/" in TINY_SHAKESPEARE.url
    assert len(bytes.fromhex(TINY_SHAKESPEARE.sha256)) == 32
