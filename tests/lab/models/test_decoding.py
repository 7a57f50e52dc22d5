import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplab.lab.models.decoding import Translations, beam, greedy
from cliplab.lab.models.translation import LSTMTranslator, Memory, TransformerTranslator

PAD, BEGIN, END = range(3)


class Table:
    """A toy language: what comes next depends on the source's number and the last two symbols."""

    def __init__(self, symbols: int, seed: int, sources: int = 4) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scores = 2 * torch.randn(sources, symbols, symbols, symbols, generator=generator)

    def encode(self, source: Tensor) -> Memory:
        return Memory(source[:, :, None].double(), source != PAD)

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        which = memory.states[:, :1, 0].long() - 1
        before = torch.cat((torch.zeros_like(target[:, :1]), target[:, :-1]), 1)
        return self.scores[which, before, target]

    def log_prob(self, number: int, symbols: tuple[int, ...]) -> float:
        """Of a sentence of the source `[number]`, symbol by symbol: the definition."""
        total, two = 0.0, (PAD, BEGIN)
        for symbol in symbols:
            total += float(self.scores[number - 1][two].log_softmax(0)[symbol])
            two = two[1], symbol
        return total


def sentences(symbols: int, limit: int) -> Iterator[tuple[int, ...]]:
    """All that may come out: ended by END, or cut at the limit."""
    for length in range(limit):
        for words in itertools.product(range(3, symbols), repeat=length):
            yield (*words, END)
    yield from itertools.product(range(3, symbols), repeat=limit)


def listed(found: Translations) -> list[tuple[int, ...]]:
    return [tuple(i for i in row.tolist() if i != PAD) for row in found.ids]


SOURCES = torch.tensor([[2], [1], [4], [3]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.6, 1.0]))
def test_a_wide_beam_finds_what_trying_everything_finds(
    seed: int, limit: int, alpha: float
) -> None:
    symbols = 6
    model = Table(symbols, seed)
    everything = list(sentences(symbols, limit))
    found = beam(model, SOURCES, size=len(everything), limit=limit, alpha=alpha)
    for number, said, total in zip([2, 1, 4, 3], listed(found), found.log_probs, strict=True):
        scores = {
            words: model.log_prob(number, words) / ((5 + len(words)) / 6) ** alpha
            for words in everything
        }
        assert said == max(scores, key=scores.__getitem__)
        assert float(total) == pytest.approx(model.log_prob(number, said), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_greedy_takes_the_best_symbol_at_every_step(seed: int, limit: int) -> None:
    model = Table(7, seed)
    found = greedy(model, SOURCES, limit=limit)
    for number, said, total in zip([2, 1, 4, 3], listed(found), found.log_probs, strict=True):
        words: tuple[int, ...] = ()
        while len(words) < limit and END not in words:
            words += (max(range(2, 7), key=lambda s: model.log_prob(number, (*words, s))),)
        assert said == words
        assert float(total) == pytest.approx(model.log_prob(number, said), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9))
def test_a_beam_reports_the_probability_of_what_it_says(seed: int, size: int, limit: int) -> None:
    model = Table(6, seed)
    found = beam(model, SOURCES, size=size, limit=limit, alpha=0.7)
    for number, said, total in zip([2, 1, 4, 3], listed(found), found.log_probs, strict=True):
        assert END not in said[:-1]
        assert said[-1] == END or len(said) == limit
        assert not set(said) & {PAD, BEGIN}
        assert float(total) == pytest.approx(model.log_prob(number, said), abs=1e-4)


def test_finished_hypotheses_stay_and_are_found_though_longer_ones_go_on() -> None:
    model = Table(5, 0)
    model.scores.fill_(0.0)
    model.scores[..., 3] = 1.0  # the greedy path says 3 for ever, each a little improbable
    model.scores[:, PAD, BEGIN, END] = 0.9  # to stop at once is a close second
    said = beam(model, SOURCES, size=2, limit=6)
    assert listed(said) == [(END,)] * 4
    assert listed(greedy(model, SOURCES, limit=6)) == [(3,) * 6] * 4
    assert (said.log_probs > greedy(model, SOURCES, limit=6).log_probs).all()
    # Divided by its length, the long one is the better one.
    assert listed(beam(model, SOURCES, size=2, limit=6, alpha=4.0)) == [(3,) * 6] * 4


def test_symbols_may_be_forbidden() -> None:
    model = Table(6, 3)
    assert 3 not in greedy(model, SOURCES, limit=5, never=[3]).ids
    assert 3 not in beam(model, SOURCES, size=4, limit=5, never=[3]).ids
    assert 3 in greedy(model, SOURCES, limit=5).ids


def models() -> list[LSTMTranslator | TransformerTranslator]:
    return [
        LSTMTranslator(9, 8, 12, layers=2, seed=1),
        TransformerTranslator(9, 8, 12, layers=2, heads=3, seed=1).eval(),
    ]


@pytest.mark.parametrize("model", models(), ids=["lstm", "transformer"])
def test_a_sentence_is_translated_alike_alone_and_in_a_batch(
    model: LSTMTranslator | TransformerTranslator,
) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, 0.7, generator=torch.Generator().manual_seed(p.numel()))
    source = torch.tensor([[3, 4, 5, 6], [7, 8, PAD, PAD], [5, PAD, PAD, PAD]])
    together = beam(model, source, size=3, limit=7)
    for i, row in enumerate(source):
        alone = beam(model, row[row != PAD][None], size=3, limit=7)
        assert listed(alone)[0] == listed(together)[i]
        assert float(alone.log_probs) == pytest.approx(float(together.log_probs[i]), abs=1e-4)
    for said, total, row in zip(listed(together), together.log_probs, source, strict=True):
        target = torch.tensor([[BEGIN, *said]])
        logits = model(row[row != PAD][None], target[:, :-1])
        steps = logits.log_softmax(-1).gather(2, target[:, 1:, None])
        assert math.isclose(float(steps.detach().sum()), float(total), abs_tol=1e-4)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="size and limit must be at least 1, got 0 and 5"):
        beam(Table(5, 0), SOURCES, size=0, limit=5)
    with pytest.raises(ValueError, match="size and limit must be at least 1, got 1 and 0"):
        greedy(Table(5, 0), SOURCES, limit=0)
