"""A saved state is taken over whole or not at all, whatever is wrong with it."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import POLICIES, feed, leaves, start

from cliplab import Clipper, Decay, Percentile, Switch
from cliplab.thresholds import Threshold

STREAM = [0.5, 1.5, 2.5, 0.2, 8.0, 3.0]
STATEFUL = [make for make in POLICIES if leaves(start(make).state_dict())]


def paths(state, above=()):
    """Where all tensors of a nested state are."""
    nested = (paths(v, (*above, k)) for k, v in state.items() if isinstance(v, dict))
    own = [(*above, k) for k, v in state.items() if isinstance(v, torch.Tensor)]
    return own + [path for found in nested for path in found]


def at(state, path):
    for name in path:
        state = state[name]
    return state


def put(state, path, value):
    at(state, path[:-1])[path[-1]] = value


def real(tensor):
    return tensor.is_floating_point()


DAMAGES = {
    "missing": None,
    "another name": None,
    "one part more": lambda t: torch.cat([t, t[:1]]),
    "one part": lambda t: t[:1],
    "no axis": lambda t: t.flatten()[0],
    "one axis more": lambda t: t[None],
    "another kind of number": lambda t: t.long() if real(t) else t.float(),
    "bools": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "no values": lambda t: t.to("meta"),
    "NaN or below 0": lambda t: t * float("nan") if real(t) else t - 10**9,
    "None": lambda t: None,
    "a ragged list": lambda t: [*t.tolist(), []],
    "a list of text": lambda t: ["x"] * len(t),
    "a list of too much": lambda t: torch.cat([t, t]).tolist(),
    "a list of large numbers": lambda t: [10**400] * len(t),
    "text": lambda t: "state",
    "a state": lambda t: {"state": t},
    "an array of text": lambda t: np.full(tuple(t.shape), "x"),
    "an array of objects": lambda t: np.full(tuple(t.shape), None),
}


@pytest.mark.parametrize("damage", DAMAGES)
@given(st.sampled_from(STATEFUL), st.data())
def test_a_damaged_state_is_refused_and_changes_nothing(damage, make, data):
    policy, other = start(make), start(make)
    feed(policy, STREAM)
    feed(other, STREAM[::-1])
    state = other.state_dict()
    path = data.draw(st.sampled_from(paths(state)))
    held = at(state, path)
    if DAMAGES[damage] is None:
        del at(state, path[:-1])[path[-1]]
        if damage == "another name":
            put(state, (*path[:-1], "x"), held)
    else:
        put(state, path, DAMAGES[damage](held))
    before = [tensor.clone() for tensor in leaves(policy.state_dict())]
    with pytest.raises(ValueError, match=r"^\w+: ") as refused:
        policy.load_state_dict(state)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    after = leaves(policy.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("state", [None, 3, "state", [], torch.ones(1000), {1: 2, "x": 3}])
@pytest.mark.parametrize("make", STATEFUL)
def test_what_is_no_state_is_refused(make, state):
    policy = start(make)
    before = leaves(policy.state_dict())
    with pytest.raises(ValueError, match="expected") as refused:
        policy.load_state_dict(state)
    assert len(str(refused.value)) < 300
    assert all(map(torch.equal, before, leaves(policy.state_dict())))


def shapes(state):
    return [(path, at(state, path).shape) for path in paths(state)]


@pytest.mark.parametrize("make", STATEFUL)
def test_a_state_of_other_names_or_shapes_is_refused(make):
    for other in STATEFUL:
        policy, saved = start(make), start(other).state_dict()
        if shapes(saved) != shapes(policy.state_dict()):
            with pytest.raises(ValueError, match="expected"):
                policy.load_state_dict(saved)


def as_arrays(state):
    """A state of arrays, but for its lists."""
    if isinstance(state, dict):
        return {name: as_arrays(entry) for name, entry in state.items()}
    return state if isinstance(state, list) else state.numpy()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("make", STATEFUL)
def test_arrays_and_other_widths_are_taken_as_tensors_are(make, wide):
    policy, other = start(make), start(make)
    feed(other, STREAM)
    state = other.state_dict()
    if wide:
        for path in paths(state):
            held = at(state, path)
            put(state, path, held.double() if real(held) else held.long())
    policy.load_state_dict(state if wide else as_arrays(state))
    for a, b in zip(leaves(policy.state_dict()), leaves(other.state_dict()), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert torch.equal(feed(policy, STREAM, first=6), feed(other, STREAM, first=6))


@pytest.mark.parametrize("make", STATEFUL)
def test_a_state_that_was_taken_over_is_not_shared(make):
    policy, other = start(make), start(make)
    state = other.state_dict()
    arrays = paths(state)
    policy.load_state_dict(as_arrays(state))
    for path in arrays:
        at(state, path)[...] = 7
    again = leaves(policy.state_dict())
    assert all(map(torch.equal, again, leaves(other.state_dict())))


@pytest.mark.parametrize("make", STATEFUL)
def test_what_inference_mode_has_made_can_be_used_outside_of_it(make):
    reference = start(make)
    expected = feed(reference, STREAM * 2)
    with torch.inference_mode():
        policy = start(make)
        first = feed(policy, STREAM[:3])
        again = start(make)
        again.load_state_dict(policy.state_dict())
    limits = torch.cat([first, feed(again, (STREAM * 2)[3:], first=3)])
    assert torch.equal(limits, expected)
    assert torch.equal(feed(policy, (STREAM * 2)[3:], first=3), expected[3:])


def test_a_clipper_made_in_inference_mode_goes_on_outside_of_it():
    weight = torch.nn.Parameter(torch.zeros(2))
    with torch.inference_mode():
        clipper = Clipper([weight], Percentile(50))
    for size in (1.0, 3.0):
        weight.grad = torch.tensor([size, 0.0])
        clipper.clip()
    assert weight.grad.tolist() == [2.0, 0.0]


def test_a_state_is_loaded_where_a_default_device_says_otherwise():
    policy, other = start(Decay), start(Decay)
    feed(other, [9.0] * 6)
    torch.set_default_device("meta")
    try:
        policy.load_state_dict(as_arrays(other.state_dict()))
    finally:
        torch.set_default_device(None)
    assert policy.state["limit"].tolist() == pytest.approx([0.9, 0.9])


def test_a_switch_with_one_damaged_policy_keeps_the_others():
    make = lambda: Switch([([True, False], Decay()), ([False, True], Percentile(50))])  # noqa: E731
    policy, other = start(make), start(make)
    feed(other, [5.0] * 3)
    state = other.state_dict()
    state["1"]["count"] = -state["1"]["count"]
    with pytest.raises(ValueError, match="Percentile: count must not hold counts below 0"):
        policy.load_state_dict(state)
    assert policy.state_dict()["0"]["hits"].tolist() == [0, 0]


def test_gradients_of_a_state_are_left_behind():
    policy = start(Decay)
    state = policy.state_dict()
    state["limit"] = (state["limit"].requires_grad_() * 2).requires_grad_()
    policy.load_state_dict(state)
    assert not policy.state["limit"].requires_grad
    torch.save(policy.state_dict(), io.BytesIO())


class Counting(Threshold):
    """A policy as anyone may write it, without a dtype."""

    def start(self, n_parts, device):
        return {"seen": torch.full((n_parts,), 0.1, device=device)}

    def step(self, sizes, state, context):
        return state["seen"], {"seen": state["seen"] + 1}


def test_a_policy_of_ones_own_is_checked_alike():
    policy = start(Counting)
    with pytest.raises(ValueError, match="Counting: seen must be like a tensor of shape"):
        policy.load_state_dict({"seen": torch.ones(2, dtype=torch.long)})
