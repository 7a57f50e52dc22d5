"""Counters of all steps ever recorded, whatever the ring has forgotten."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import with_gradients

from cliplab import Clipper
from cliplab.history import History
from cliplab.thresholds import Step

NONE = {"steps": 0, "clipped": 0, "skipped": 0, "nonfinite": 0}
FLAG = st.sampled_from([0.0, 1.0])
SIZE = st.sampled_from([0.5, 2.0, math.nan, math.inf])


def steps_of(parts):
    """Columns of a step: sizes, clipped and skipped of every part."""
    return st.lists(
        st.tuples(*[st.lists(kind, min_size=parts, max_size=parts) for kind in (SIZE, FLAG, FLAG)]),
        max_size=60,
    )


@given(st.data(), st.sampled_from([1, 500, 3000, 1 << 28]), st.integers(1, 3))
def test_counts_are_those_of_a_list_kept_beside(data, max_bytes, parts):
    history = History(scalar=parts == 1, max_bytes=max_bytes)
    expected = Counter(NONE)
    for sizes, clipped, skipped in data.draw(steps_of(parts)):
        if parts == 1 and data.draw(st.booleans()):
            history.append(Step(sizes[0], 1.0, 1.0, 1.0, clipped[0], skipped[0]), 0.1)
        else:
            rest = [[1.0] * parts] * 3
            history.append(torch.tensor([sizes, *rest, clipped, skipped]), 0.1)
        expected["steps"] += 1
        expected["clipped"] += any(clipped)
        expected["skipped"] += any(skipped)
        expected["nonfinite"] += not all(map(math.isfinite, sizes))
        if data.draw(st.booleans()):
            assert history.counts == expected
    assert history.counts == expected
    assert all(type(count) is int for count in history.counts.values())
    assert history.first_step + len(history) == expected["steps"]


def test_many_steps_of_numbers_through_a_small_ring():
    history = History(scalar=True, max_bytes=1 << 16)
    for step in range(20_000):
        history.append(Step(1.0, 1.0, 1.0, 1.0, float(step % 3 == 0), 0.0), None)
    assert len(history) < 2000
    assert history.counts == NONE | {"steps": 20_000, "clipped": 6667}


def test_counting_goes_on_from_elsewhere():
    history, given_counts = History(scalar=True, max_bytes=1), NONE | {"steps": 70, "skipped": 7}
    history.append(Step(math.inf, 1.0, 1.0, 1.0, 1.0, 1.0), None)
    history.count_from(given_counts)
    assert history.counts == given_counts
    for _ in range(3):
        history.append(Step(math.inf, 1.0, 1.0, 1.0, 0.0, 1.0), None)
    assert history.counts == {"steps": 73, "clipped": 0, "skipped": 10, "nonfinite": 3}


BAD = [
    None,
    {},
    NONE | {"more": 1},
    NONE | {"steps": -1},
    NONE | {"clipped": 1},
    NONE | {"steps": 1.0},
    NONE | {"steps": True},
]


@pytest.mark.parametrize("counts", BAD)
def test_what_cannot_have_been_counted_is_refused(counts):
    history = History(scalar=True)
    with pytest.raises(ValueError, match="counts must be whole numbers >= 0 of steps, clipped"):
        history.count_from(counts)
    assert history.counts == NONE


def test_a_file_keeps_what_the_ring_has_forgotten(tmp_path):
    history = History(scalar=True, max_bytes=1)
    for step in range(5):
        history.append(Step(1.0, 1.0, 1.0, 1.0, float(step < 3), 0.0), None)
    history.save(tmp_path / "a.pt")
    assert History.load(tmp_path / "a.pt").counts == NONE | {"steps": 5, "clipped": 3}
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save(state | {"counts": NONE | {"steps": -1}}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="not a saved history: counts must be"):
        History.load(tmp_path / "b.pt")
    del state["counts"]  # as older versions wrote it
    torch.save(state, tmp_path / "c.pt")
    assert History.load(tmp_path / "c.pt").counts == NONE | {"steps": 1}


def test_a_clipper_tells_the_share_of_all_its_steps():
    clipper = Clipper(with_gradients([3.0, 4.0]), 6.0)
    clipper.history = History(scalar=True, max_bytes=1)
    for size in (1.0, 2.0, 2.0, 1.0):
        clipper.params[0].grad = torch.tensor([3.0, 4.0]) * size
        clipper.clip()
    assert len(clipper.history) == 1
    assert "4 steps, 50 % clipped" in repr(clipper)
