import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplab.lab.data.tasks import (
    ADDING_CHANCE,
    ADDING_TOLERANCE,
    adding,
    class_chance,
    temporal_order,
)

lengths = st.integers(10, 130)
batch_sizes = st.integers(1, 40)
seeds = st.integers(0, 2**40)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(batch_sizes, lengths, seeds, st.booleans())
def test_temporal_order(batch: int, length: int, seed: int, three: bool) -> None:
    starts = [0.1, 0.3, 0.6] if three else [0.1, 0.5]
    inputs, classes = temporal_order(batch, length, seeded(seed), three=three)
    assert inputs.shape == (batch, length, 6)
    assert inputs.dtype == torch.float32
    assert classes.shape == (batch,)
    assert classes.dtype == torch.int64
    assert ((inputs == 0) | (inputs == 1)).all()
    assert (inputs.sum(-1) == 1).all()
    for sequence, label in zip(inputs.argmax(-1).tolist(), classes.tolist(), strict=True):
        relevant = [p for p, symbol in enumerate(sequence) if symbol < 2]
        assert len(relevant) == len(starts)
        for position, start in zip(relevant, starts, strict=True):
            first = int(round(start * length * 10) / 10)  # floor without .3 * 10 = 2.999…
            assert first <= position < first + length // 10
        assert label == sum(sequence[p] << bit for bit, p in enumerate(relevant))


@pytest.mark.parametrize("three", [False, True])
def test_temporal_order_uses_all_of_its_space_evenly(three: bool) -> None:
    inputs, classes = temporal_order(40_000, 30, seeded(1), three=three)
    symbols = inputs.argmax(-1)
    starts = (3, 9, 18) if three else (3, 15)
    places = {p for start in starts for p in range(start, start + 3)}
    assert set(torch.nonzero(symbols < 2)[:, 1].tolist()) == places
    n_classes = 2 ** len(starts)
    share = torch.bincount(classes, minlength=n_classes) / len(classes)
    torch.testing.assert_close(share, torch.full((n_classes,), 1 / n_classes), atol=0.01, rtol=0)
    distractors = torch.bincount(symbols[symbols > 1] - 2, minlength=4).double()
    torch.testing.assert_close(
        distractors / distractors.sum(), torch.full((4,), 0.25).double(), atol=0.005, rtol=0
    )


@settings(deadline=None)
@given(batch_sizes, lengths, seeds)
def test_adding(batch: int, length: int, seed: int) -> None:
    inputs, targets = adding(batch, length, seeded(seed))
    assert inputs.shape == (batch, length, 2)
    assert inputs.dtype == targets.dtype == torch.float32
    assert targets.shape == (batch,)
    marks, values = inputs.unbind(-1)
    assert ((values >= 0) & (values < 1)).all()
    assert ((marks == 0) | (marks == 1)).all()
    assert (marks.sum(1) == 2).all()
    early, late = torch.nonzero(marks)[:, 1].view(batch, 2).unbind(1)
    assert (early < length // 10).all()
    assert (late >= length // 10).all()
    assert (late < length / 2).all()
    torch.testing.assert_close(targets, (values * marks).sum(1) / 2)


def test_adding_chance_is_what_predicting_one_half_scores() -> None:
    inputs, targets = adding(200_000, 20, seeded(2))
    squared = (targets.double() - 0.5) ** 2
    assert squared.mean().item() == pytest.approx(ADDING_CHANCE.loss, rel=0.02)
    error = (squared > ADDING_TOLERANCE).double().mean().item()
    assert error == pytest.approx(ADDING_CHANCE.error, abs=0.005)
    places = torch.nonzero(inputs[..., 0])[:, 1]
    assert set(places.tolist()) == set(range(10))


def test_class_chance() -> None:
    assert class_chance(4) == (0.75, math.log(4))
    assert class_chance(8) == (0.875, math.log(8))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_generator_decides_everything(seed: int) -> None:
    for task in (temporal_order, adding):
        torch.manual_seed(0)
        inputs, targets = task(8, 50, seeded(seed))
        torch.manual_seed(1)  # the global generator has no say
        again, same_targets = task(8, 50, seeded(seed))
        assert torch.equal(inputs, again)
        assert torch.equal(targets, same_targets)
        generator = seeded(seed)
        assert torch.equal(inputs, task(8, 50, generator)[0])
        assert not torch.equal(inputs, task(8, 50, generator)[0])  # it moves on


@pytest.mark.parametrize("task", [temporal_order, adding])
def test_too_short_a_sequence_is_refused(task: object) -> None:
    with pytest.raises(ValueError, match=r"length must be at least 10.*: 9"):
        task(4, 9, seeded(0))  # type: ignore[operator]
