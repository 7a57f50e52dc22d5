"""Norms of updates: known after the step that they belong to was recorded."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from needs import need

from cliplab.history import History
from cliplab.thresholds import Step

NUMBERS = Step(2.0, 1.0, 1.0, 0.5, 1.0, 0.0)
ROW = torch.tensor(NUMBERS)[:, None]
ON_DEVICE = torch.tensor(0.25, dtype=torch.float64)


def texts(values):
    return [str(float(value)) for value in values]  # NaN is like NaN


class Recorder:
    def __init__(self):
        self.logged = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.logged.append((tag, scalar_value, global_step))


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(st.sampled_from([0.5, 0.0, math.inf, math.nan, ON_DEVICE]), max_size=2),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.sampled_from([1 << 28, 4000, 600]),
    st.booleans(),
)
def test_every_norm_is_that_of_the_step_recorded_before_it(steps, max_bytes, look):
    history, expected = History(scalar=True, max_bytes=max_bytes), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliplab.checks.LOOK", look)
        for of_numbers, norms, read in steps:
            history.append(NUMBERS if of_numbers else ROW, 0.1)
            expected.append(math.nan)
            for norm in norms[-1:]:
                history.put_update(norm)
                expected[-1] = norm
            if read:
                assert len(history.rows) == len(history)
    assert history.first_step + len(history) == len(expected)
    assert texts(history.update_norm) == texts(expected[history.first_step :])
    assert history.update_norm.dtype is torch.float64
    assert texts(copy.deepcopy(history).update_norm) == texts(history.update_norm)


def test_the_last_word_counts():
    history = History(scalar=True)
    for step in (NUMBERS, ROW):
        history.append(step, None)
        for norm in (1.0, ON_DEVICE, 3):
            history.put_update(norm)
    assert history.update_norm.tolist() == [3.0, 3.0]


def test_without_a_step_there_is_nothing_to_put_it_to():
    with pytest.raises(RuntimeError, match="last recorded step, and there is none"):
        History().put_update(1.0)


@pytest.mark.parametrize(
    "norm", [-1.0, None, "1", True, torch.ones(2), torch.tensor(1), torch.tensor(-1.0), [1.0]]
)
def test_what_is_no_norm_is_refused(norm):
    history = History(scalar=True)
    history.append(NUMBERS, 0.1)
    with pytest.raises(ValueError, match=r"norm of an update must be .*, got"):
        history.put_update(norm)
    assert not history.measures_updates


def test_where_none_is_measured_nothing_speaks_of_updates(tmp_path):
    history = History(scalar=True)
    history.append(NUMBERS, 0.1)
    history.to_tensorboard(writer := Recorder())
    assert not any("update" in tag for tag, _, _ in writer.logged)
    assert not any("update" in key for key in history.summary())
    assert "update" not in repr(history) + history._repr_html_()


def test_where_some_are_measured_all_that_is_made_of_a_history_has_them():
    history = History(["a", "b"])
    for norm in (2.0, None, 6.0, 4.0):
        history.append(ROW.expand(6, 2), 0.1)
        if norm is not None:
            history.put_update(norm)
    summary = history.summary()
    assert (summary["update_norm_median"], summary["update_norm_max"]) == (4.0, 6.0)
    assert "update norm median 4" in repr(history)
    assert "update_norm_max" in history._repr_html_()
    history.to_tensorboard(writer := Recorder())
    logged = [(value, step) for tag, value, step in writer.logged if tag == "clip/update_norm"]
    assert logged == [(2.0, 0), (6.0, 2), (4.0, 3)]
    need("pandas", "lab")
    frame = history.to_frame()
    assert texts(frame["update_norm"]) == texts([2, 2, math.nan, math.nan, 6, 6, 4, 4])


def test_a_rewritten_norm_on_a_device_is_a_copy():
    history, norm = History(scalar=True), torch.tensor(0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliplab.checks.LOOK", False)
        history.append(ROW, 0.1)
        history.put_update(norm)
    norm.fill_(7.0)
    assert history.update_norm.tolist() == [0.5]


def test_a_replay_has_other_updates():
    history = History(scalar=True)
    history.append(NUMBERS, 0.1)
    history.put_update(1.0)
    assert not history.replay(1.0).measures_updates
