import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.data import corpora
from cliplab.lab.data.corpora import batches, char_corpus, windows
from cliplab.lab.data.fetch import DataSet, cache_dir

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Replaces a data set by a text of ours that lies in the cache already."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))

    def put(name: str, text: str) -> None:
        real: DataSet = getattr(corpora, name)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setattr(corpora, name, dataclasses.replace(real, sha256=sha256))
        path = cache_dir() / f"{real.package}-{real.version}" / real.member
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")

    return put


def wiki_text(articles: int) -> str:
    return "".join(
        f'<doc id="{i}" url="https://example.org/?curid={i}" title="a > b {i}">\n'
        f"Title {i}\n\nThe <b>text</b> of article {i}.\nResults.\n\n</doc>\n"
        for i in range(articles)
    )


def test_wikipedia_is_split_by_article(put: Callable[[str, str], None]) -> None:
    put("WIKIPEDIA", wiki_text(60))
    corpus = char_corpus("wikipedia")
    found = {}
    for split in ("train", "valid", "test"):
        ids = getattr(corpus, split)
        assert ids.dtype == torch.int64
        text = corpus.decode(ids)
        assert "doc" not in text
        assert "curid" not in text
        found[split] = re.findall(
            r"Title (\d+)\n\nThe <b>text</b> of article \1\.\nResults\.", text
        )
        assert (
            len(text)
            == sum(
                len(f"Title {i}The <b>text</b> of article {i}.Results.") + 5 for i in found[split]
            )
            - 2
        )
    assert found["valid"] == ["18", "38", "58"]
    assert found["test"] == ["19", "39", "59"]
    assert sorted((i for split in found.values() for i in split), key=int) == [
        str(i) for i in range(60)
    ]
    assert "CC BY-SA" in corpus.notice


def test_penn_is_read_never_run(
    put: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = tmp_path / "ran"
    put(
        "PENN_TREEBANK",
        f"penn = {{}}\nopen({str(ran)!r}, 'w')\n"
        'penn[\'train\'] = """ no it was n\'t <unk> \n N years\\/old \n\n"""\n'
        'penn[\'valid\'] = """ years old \n"""\n'
        'penn[\'test\'] = """ was it \n"""\n',
    )
    corpus = char_corpus("penn")
    assert not ran.exists()
    assert corpus.decode(corpus.train) == "no it was n't <unk>\nN years\\/old\n"
    assert corpus.decode(corpus.valid) == "years old\n"
    assert corpus.decode(corpus.test) == "was it\n"
    assert corpus.alphabet == "".join(sorted(set(corpus.decode(corpus.train))))
    assert "Linguistic Data Consortium" in capsys.readouterr().out


def test_fixture_is_always_the_same_text_and_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "nothing"))
    corpus = char_corpus("fixture")
    texts = [corpus.decode(ids) for ids in (corpus.train, corpus.valid, corpus.test)]
    assert 90_000 < sum(map(len, texts)) < 110_000
    assert 0.88 < len(texts[0]) / sum(map(len, texts)) < 0.92
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()
    assert digest == "cbd5fb9ff060cce63387f260dace11dde8b4d250d1aab9abe1126df11a121c91"
    assert corpus.vocab == len(corpus.alphabet) == 27
    assert not (tmp_path / "nothing").exists()
    # The verb agrees with the first noun, whatever stands between them.
    for line in texts[1].split("\n"):
        words = line.split()
        assert words[2].endswith("s") != words[-2].endswith("s")
    # There is something to learn: characters are far from uniform.
    share = torch.bincount(corpus.train).double() / len(corpus.train)
    assert -(share * share.log()).nansum() < math.log(corpus.vocab) - 0.2


texts = st.text(st.sampled_from("aabbcdeé\n\U0001f600"), min_size=1, max_size=60)


@given(texts, texts, texts, st.integers(2, 9))
def test_alphabet(train: str, valid: str, test: str, vocab_size: int) -> None:
    alphabet = corpora.alphabet_of(train, train + valid + test, vocab_size)
    assert len(alphabet) == len(set(alphabet)) <= vocab_size
    known = set(alphabet) - {corpora.UNKNOWN}
    if len(set(train + valid + test)) <= vocab_size and set(valid + test) <= set(train):
        assert known == set(alphabet) == set(train)
    else:
        assert alphabet[-1] == corpora.UNKNOWN
        rarest_kept = min((train.count(c) for c in known), default=0)
        assert all(train.count(c) <= rarest_kept for c in set(train) - known)
    for text in (train, valid, test):
        ids = corpora.encode(text, alphabet)
        decoded = "".join(alphabet[i] for i in ids.tolist())
        assert decoded == "".join(c if c in known else corpora.UNKNOWN for c in text)


def test_vocab_size_maps_rare_characters_to_one_symbol() -> None:
    corpus = char_corpus("fixture", vocab_size=10)
    assert corpus.vocab == 10
    assert int(corpus.train.max()) == 9
    assert corpus.decode(corpus.train[:40]).count(corpora.UNKNOWN) > 1


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match="no corpus 'brown': choose one of wikipedia, penn, fixture"
    ):
        char_corpus("brown")
    with pytest.raises(ValueError, match=r"vocab_size must be at least 2.*: 1"):
        char_corpus("fixture", vocab_size=1)


@given(st.data())
def test_windows(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 50))
    length = data.draw(st.integers(1, size - 1))
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    first = st.integers(0, size - length - 1)
    count = math.prod(shape)
    chosen = data.draw(st.lists(first, min_size=count, max_size=count))
    starts = torch.tensor(chosen, dtype=torch.int64).view(shape)
    inputs, targets = windows(torch.arange(size) * 3, starts, length)
    assert inputs.shape == targets.shape == (*shape, length)
    expected = (starts.unsqueeze(-1) + torch.arange(length)) * 3
    assert torch.equal(inputs, expected)
    assert torch.equal(targets, expected + 3)


@pytest.mark.parametrize(
    ("start", "length", "message"),
    [
        (-1, 3, r"starts must be in 0\.\.6: -1\.\.-1"),
        (7, 3, r"starts must be in 0\.\.6: 7\.\.7"),
        (0, 10, r"length must be in 1\.\.9.*: 10"),
        (0, 0, r"length must be in 1\.\.9.*: 0"),
    ],
)
def test_windows_outside_the_text_are_refused(start: int, length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows(torch.arange(10), torch.tensor([start]), length)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batches_reach_the_whole_text_and_follow_the_generator() -> None:
    ids = torch.arange(12)
    made = list(batches(ids, length=4, batch=50, steps=3, generator=seeded(5)))
    assert len(made) == 3
    assert made[0][0].shape == made[0][1].shape == (50, 4)
    assert {int(x[0]) for inputs, _ in made for x in inputs} == set(range(8))
    again = list(batches(ids, length=4, batch=50, steps=3, generator=seeded(5)))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(made, again, strict=True))
    assert not torch.equal(made[0][0], made[1][0])


def test_batches_of_several_seeds_are_those_of_each_alone() -> None:
    ids = torch.arange(1000)
    options = {"length": 7, "batch": 5, "steps": 4}
    together = list(batches(ids, **options, generator=[seeded(3), seeded(8)]))
    alone = [list(batches(ids, **options, generator=seeded(s))) for s in (3, 8)]
    for step, (inputs, targets) in enumerate(together):
        assert inputs.shape == targets.shape == (2, 5, 7)
        for member in range(2):
            assert torch.equal(inputs[member], alone[member][step][0])
            assert torch.equal(targets[member], alone[member][step][1])


@pytest.mark.network
@network
def test_real_wikipedia() -> None:
    corpus = char_corpus()
    assert corpus.vocab == 96
    sizes = [len(ids) for ids in (corpus.train, corpus.valid, corpus.test)]
    assert sizes == [1_663_574, 86_919, 84_361]
    for ids in (corpus.train, corpus.valid, corpus.test):
        assert (ids == corpus.vocab - 1).double().mean() < 0.001
        assert "<doc" not in corpus.decode(ids)


@pytest.mark.network
@network
def test_real_penn_has_the_sizes_of_the_literature() -> None:
    corpus = char_corpus("penn")
    sizes = [len(ids) for ids in (corpus.train, corpus.valid, corpus.test)]
    assert sizes == [5_017_482, 393_042, 442_423]
    assert corpus.vocab == 50
