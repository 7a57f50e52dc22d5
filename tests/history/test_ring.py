"""What the ring holds, and that the process's defaults are nothing to it."""

import copy
import math
import pickle
import sys
from itertools import product

import pytest
import torch
from making import with_gradients

from cliplab import Clipper
from cliplab.history import ClipReport, History
from cliplab.thresholds import Step

NUMBERS = Step(2.0, 1.0, 1.0, 0.5, 1.0, 0.0)
ROW = torch.tensor(NUMBERS)[:, None]


def held(history):
    """Bytes of all that grows with the steps: tensors, arrays, numbers in lists."""
    total, stack, seen = 0, [vars(history)], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            total += item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, str | type) or item is None:
            continue
        elif hasattr(item, "__slots__") and not hasattr(item, "__len__"):
            stack += [getattr(item, name) for name in item.__slots__]
        else:
            total += sys.getsizeof(item)
            stack += item if not hasattr(item, "typecode") and hasattr(item, "__iter__") else []
    return total


RATES, MEASURED = (0.1, None, torch.tensor(0.1)), (30_000, 15_000, 0)


@pytest.mark.parametrize(
    ("of_numbers", "lr", "measured"),
    [  # every pair of values; the other halves by night
        pytest.param(of_numbers, RATES[i], MEASURED[k], marks=marks)
        for i, k in product(range(3), range(3))
        for of_numbers, marks in ((i % 2 == k % 2, ()), (i % 2 != k % 2, [pytest.mark.nightly]))
    ],
)
def test_all_that_a_ring_holds_is_within_its_bytes(of_numbers, lr, measured):
    history = History(scalar=True, max_bytes=1 << 18)
    most = 0
    for step in range(30_000):
        history.append(NUMBERS if of_numbers else ROW, lr if lr is None else lr + step)
        if step >= measured:
            history.put_update(step)
        if step % 97 == 0:
            most = max(most, held(history))
    assert 1 << 17 < most <= 1 << 18
    assert history.first_step + len(history) == 30_000
    assert len(history.lr) == len(history)
    assert history.measures_updates == (measured < 30_000)
    if history.measures_updates:
        assert history.update_norm[-1].item() == 29_999


def test_a_ring_of_next_to_nothing_holds_the_last_step():
    history = History(scalar=True, max_bytes=1)
    for step in range(5):
        history.append(NUMBERS, step)
    assert (len(history), history.first_step, history.lr.tolist()) == (1, 4, [4.0])


@pytest.mark.parametrize("max_bytes", [0, -1, 1e6, math.nan, None, True])
def test_bytes_must_be_a_count(max_bytes):
    with pytest.raises(ValueError, match="max_bytes must be an integer >= 1"):
        History(max_bytes=max_bytes)


def test_learning_rates_are_kept_as_they_were_given():
    history = History(scalar=True)
    rates = [0.1, torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64), None, 3]
    for lr in rates:
        history.append(NUMBERS, lr)
        history.append(ROW, lr)
    single = float(torch.tensor(0.1))
    expected = [lr for lr in (0.1, single, single, math.nan, 3.0) for _ in range(2)]
    assert history.lr.dtype is torch.float64
    assert str(history.lr.tolist()) == str(expected)
    assert history.effective_lr.dtype is torch.float32


def test_a_rate_that_is_a_tensor_is_copied():
    history, lr = History(scalar=True), torch.tensor(0.5)
    history.append(NUMBERS, lr)
    lr.fill_(7.0)
    assert history.lr.tolist() == [0.5]


def test_steps_without_parts_are_recorded():
    history = History()
    history.append(torch.zeros(6, 0), 0.1)
    assert history.norm_before.shape == (1, 0)


def test_a_ring_that_began_in_inference_mode_goes_on_outside():
    history = History(scalar=True)
    with torch.inference_mode():
        history.append(ROW, 0.1)
    history.append(ROW, 0.1)
    history.append(NUMBERS, 0.1)
    assert history.norm_before.tolist() == [2.0] * 3


# --- defaults of the process ------------------------------------------------------------------


def record(folder, row):
    """All that a history does, as text."""
    history = History(scalar=True)
    if row.dtype is torch.float32:
        history.append(NUMBERS, 0.1)
    history.append(row, 0.1)
    history.append(row * math.nan, None)
    history.save(folder / "a.pt")
    history.to_csv(folder / "a.csv")
    text = [repr(ClipReport(NUMBERS, True)), repr(ClipReport(Step(*row), True)), repr(history)]
    for one in (
        history,
        History.load(folder / "a.pt"),
        History.load(folder / "a.csv"),
        history.replay(2.0),
        History(),
    ):
        columns = [getattr(one, name) for name in (*ClipReport.fields, "lr", "effective_lr")]
        columns += [one.rows, one.total, one.shares, one.excess, one.clip_fraction, one.nonfinite]
        text += [f"{c.dtype} {c.device} {c.tolist()}" for c in columns]
        text.append(str(one.summary()))
    return text


@pytest.fixture
def defaults():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64, "meta"])
def test_defaults_of_the_process_change_nothing(tmp_path, default, dtype):
    row = torch.tensor([5.0804, 1.0, 1.0, 1 / 3, 1.0, 0.0], dtype=dtype)[:, None]
    expected = record(tmp_path, row)
    if default == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(default)
    assert record(tmp_path, row) == expected


# --- copies -----------------------------------------------------------------------------------


class Follower:
    def __init__(self):
        self.show = lambda: None  # no pickle takes this

    def update(self):
        pass

    close = update


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_what_is_watched_is_watched_by_nobody(copied):
    clipper = Clipper(with_gradients([3.0, 4.0]), 1.0)
    clipper.clip()
    clipper.history.follower = Follower()
    other = copied(clipper)
    assert other.history.follower is None
    assert clipper.history.follower is not None
    other.params[0].grad = torch.tensor([3.0, 4.0])
    other.clip()
    assert (len(clipper.history), len(other.history)) == (1, 2)
    assert other.history.norm_before.tolist() == [5.0, 5.0]
