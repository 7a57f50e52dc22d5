"""Going back to an earlier step, as after loading the state of one."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab import Clipper, History, Percentile


def recorded(steps, max_bytes=1 << 28, first=0, updates=()):
    """A history of sizes 0.5, 1.5, 2.5, ... under a limit of 1."""
    history = History(["a", "b"], max_bytes=max_bytes)
    history.first_step = first
    for i in range(steps):
        size = torch.tensor([i + 0.5, 0.25])
        row = [size, size.clamp(max=1), size * 0 + 1, (1 / size).clamp(max=1), size > 1, size * 0]
        history.append(torch.stack([column.float() for column in row]), 0.1 * i)
        if i in updates:
            history.put_update(float(i))
    return history


@given(
    steps=st.integers(0, 40),
    back=st.integers(0, 40),
    first=st.integers(0, 5),
    small=st.booleans(),
    more=st.integers(0, 5),
)
def test_it_is_as_if_the_dropped_steps_had_never_been(steps, back, first, small, more):
    bytes_of_ten = 10 * 2 * (6 * 2 * 4 + 24)
    history = recorded(steps, bytes_of_ten if small else 1 << 28, first, updates=range(0, 40, 3))
    begin, counts, rows, lr = history.first_step, history.counts, history.rows, history.lr
    updates = history.update_norm
    step = max(begin, begin + len(history) - back)
    history.rewind(step)
    keep = step - begin
    assert (len(history), history.first_step, history.counts) == (keep, begin, counts)
    assert history.rows.tolist() == rows[:keep].tolist()
    assert history.lr.tolist() == lr[:keep].tolist()
    assert torch.equal(history.update_norm.nan_to_num(-1.0), updates[:keep].nan_to_num(-1.0))
    for _ in range(more):
        history.append(rows.new_ones(6, 2) if len(rows) else torch.ones(6, 2), None)
    assert history.first_step + len(history) == step + more
    assert history.counts["steps"] == counts["steps"] + more
    assert history.counts["clipped"] == counts["clipped"] + more
    tail = history.lr[len(history) - more :] if more else history.lr[:0]
    assert all(map(math.isnan, tail.tolist()))


@pytest.mark.parametrize("step", [3, 100])
def test_a_gap_begins_afresh(step):
    history = recorded(4, first=10)
    history.rewind(step)
    assert (len(history), history.first_step) == (0, step)


def test_a_log_goes_on_with_what_takes_the_place_of_the_dropped():
    told = []
    history = recorded(5)
    log = history.log_to(lambda numbers, step: told.append(step))
    assert log() == 5
    history.rewind(2)
    assert log() == 0
    history.append(torch.ones(6, 2), None)
    assert log() == 1
    assert told == [0, 1, 2, 3, 4, 2]


def test_steps_after_a_rollback_have_the_numbers_of_the_state():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    clipper = Clipper(model, Percentile(50.0))

    def step(scale):
        model.zero_grad()
        model(scale * torch.ones(2, 3)).sum().backward()
        clipper.clip()

    for i in range(3):
        step(1 + i)
    saved = copy.deepcopy(clipper.state_dict())
    for i in range(4):
        step(10 + i)
    then = clipper.history.norm_before.tolist()
    clipper.load_state_dict(saved)
    assert (clipper.steps, clipper.history.counts["steps"]) == (3, 3)
    assert clipper.history.norm_before.tolist() == then[:3]
    step(10)
    assert (clipper.steps, len(clipper.history), clipper.history.first_step) == (4, 4, 0)
    assert clipper.history.norm_before.tolist() == then[:4]


def test_a_bad_number_is_refused():
    with pytest.raises(ValueError, match="step must be"):
        recorded(2).rewind(-1)
