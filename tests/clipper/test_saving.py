"""What is saved of a clipper: enough to go on bit for bit, in tensors or plain, and no more."""

import io
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import with_gradients
from policies import POLICIES, leaves
from torch import nn

from cliplab import Clipper, Percentile
from cliplab.clipper.engine import Signal


def as_tensors(state):
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=True)


def as_json(state):
    return json.loads(json.dumps(state))


WAYS = {"tensors": (False, as_tensors), "plain": (True, as_json)}


class Run:
    """A clipper of two parts on a made-up stream of gradients, some of which are not finite."""

    def __init__(self, make, dtype, mode):
        self.params = [nn.Parameter(torch.zeros(3, dtype=dtype)) for _ in range(2)]
        policy = make()
        mode = "rescale" if policy.band else mode
        self.clipper = Clipper(self.params, policy, scope="tensor", mode=mode, nonfinite="skip")

    def go(self, steps, seed):
        gradients = []
        for step in steps:
            draw = torch.Generator().manual_seed(seed * 1000 + step)
            for p in self.params:
                p.grad = torch.randn(3, generator=draw, dtype=torch.float64).to(p)
                p.grad *= 10 ** float(torch.randn((), generator=draw))
            if step % 7 == 3:
                self.params[step % 2].grad[1] = math.nan
            if step % 5 == 2:
                self.params[0].grad = None
            self.clipper.observe(float(torch.rand((), generator=draw)))
            self.clipper.step(Signal(lr=0.1 / (1 + step)))
            gradients += [p.grad.clone() for p in self.params if p.grad is not None]
        return gradients


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60)
@given(
    st.sampled_from(POLICIES),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["rescale", "soft", "skip"]),
    st.integers(0, 20),
    st.integers(0, 99),
)
def test_a_resumed_clipper_is_the_same_bit_for_bit(way, make, dtype, mode, cut, seed):
    plain, carried = WAYS[way]
    whole, first, second = (Run(make, dtype, mode) for _ in range(3))
    expected = whole.go(range(20), seed)
    begun = first.go(range(cut), seed)
    second.clipper.load_state_dict(carried(first.clipper.state_dict(plain=plain)))
    begun += second.go(range(cut, 20), seed)
    for found, wanted in zip(begun, expected, strict=True):
        assert torch.equal(found.nan_to_num(), wanted.nan_to_num())
    assert second.clipper.history.counts == whole.clipper.history.counts
    ours, theirs = second.clipper.state_dict(), whole.clipper.state_dict()
    assert all(map(torch.equal, leaves(ours["policy"]), leaves(theirs["policy"])))


def is_plain(state):
    if isinstance(state, dict):
        return all(type(name) is str and is_plain(entry) for name, entry in state.items())
    if isinstance(state, list):
        return all(map(is_plain, state))
    return type(state) in (str, int, float)


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize("scope", ["tensor", "unit"])
def test_a_plain_state_holds_nothing_else(make, scope):
    clipper = Clipper(with_gradients([[1.0]], [[2.0]]), make(), scope=scope, norm_type=math.inf)
    assert is_plain(clipper.state_dict(plain=True))
    state = clipper.state_dict()
    assert not leaves(state["policy"]) or not is_plain(state)


def test_counts_go_on():
    clipper, again = (Clipper(with_gradients([3.0, 4.0]), 1.0) for _ in range(2))
    for _ in range(3):
        clipper.params[0].grad = torch.tensor([3.0, 4.0])
        clipper.clip()
    again.load_state_dict(clipper.state_dict())
    again.clip()
    assert again.history.counts == {"steps": 4, "clipped": 4, "skipped": 0, "nonfinite": 0}
    assert len(again.history) == 1
    again.load_state_dict(clipper.state_dict())  # back to the checkpoint
    assert again.state_dict()["counts"] == clipper.state_dict()["counts"]


# --- what a state is of -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("target", "update", "target 'update'"),
        ("norm_type", math.inf, "norm_type inf"),
        ("scope", "group", "scope 'group'"),
        ("parts", 7, "7 parts"),
        ("method", "ZScore", "ZScore"),
    ],
)
def test_the_error_names_what_differs(field, value, told):
    clipper = Clipper(with_gradients([3.0, 4.0]), 1.0)
    state = {**clipper.state_dict(), "steps": 3, field: value}
    with pytest.raises(ValueError, match=rf"so they differ in {field}: make") as raised:
        clipper.load_state_dict(state)
    assert told in str(raised.value)
    assert clipper.steps == 0
    clipper.load_state_dict(state, strict=False)
    assert clipper.steps == 3


def test_a_state_that_does_not_say_so_is_of_gradients():
    params = with_gradients([3.0, 4.0])
    gradients, updates = Clipper(params), Clipper(params, target="update")
    state = gradients.state_dict()
    del state["target"], state["counts"], state["norm_type"]
    gradients.load_state_dict(state)
    updates.load_state_dict(updates.state_dict())
    with pytest.raises(ValueError, match="differ in target"):
        updates.load_state_dict(state)
    with pytest.raises(ValueError, match="differ in target"):
        gradients.load_state_dict(updates.state_dict())


@pytest.mark.parametrize(
    "damage",
    [
        {"steps": -1},
        {"steps": 1.5},
        {"steps": None},
        {"counts": None},
        {"counts": {"steps": 3}},
        {"counts": {"steps": 1, "clipped": 2, "skipped": 0, "nonfinite": 0}},
        {"policy": None},
        {"policy": {"ordered": [[1.0]], "bins": [[]], "count": [1]}},
        {"policy": {"ordered": [[1.0]], "bins": [[[5, 1]]], "count": [-1]}},
    ],
)
def test_a_state_is_taken_whole_or_not_at_all(damage):
    clipper, other = (Clipper(with_gradients([3.0, 4.0]), Percentile(50.0)) for _ in range(2))
    clipper.clip()
    other.clip()
    other.clip()
    before = clipper.state_dict(plain=True)
    with pytest.raises(ValueError, match=r"expected|must be|must not"):
        clipper.load_state_dict({**other.state_dict(), **damage})
    assert clipper.state_dict(plain=True) == before


def test_a_state_is_no_larger_than_what_is_filled():
    clipper = Clipper(with_gradients([3.0, 4.0]), Percentile(10.0))
    assert len(json.dumps(clipper.state_dict(plain=True))) < 1000
    draw = torch.Generator().manual_seed(0)
    size = 0
    for step in range(10_000):
        clipper.params[0].grad = torch.randn((), generator=draw).exp() * torch.ones(2)
        clipper.clip()
        if step in (4095, 9999):
            torch.save(clipper.state_dict(), file := io.BytesIO())
            size = file.tell()
            assert size < 50_000
    assert size < 15_000
