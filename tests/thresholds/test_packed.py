"""A percentile's state, saved without the room that is left in it."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import context_of

from cliplab import Percentile

EXACT = 6  # sizes that are kept


def small(n_parts):
    policy = Percentile(37.0)
    policy.exact_sizes = EXACT
    policy.init(n_parts)
    return policy


def feed(policy, steps):
    """Limits of a stream in which parts come and go."""
    limits = []
    for sizes, active in steps:
        mask = torch.tensor(active)
        answer = policy(torch.tensor(sizes), context_of(torch.tensor(sizes), mask))
        limits.append(answer.where(mask, 0.0).tolist())
    return limits


@st.composite
def streams(draw):
    parts = draw(st.integers(1, 4))
    sizes = st.lists(st.floats(0, 2.0**90, width=32), min_size=parts, max_size=parts)
    active = st.lists(st.booleans(), min_size=parts, max_size=parts)
    return parts, draw(st.lists(st.tuples(sizes, active), max_size=25))


@given(streams(), st.data(), st.sampled_from(["packed", "json", "as it lay in memory"]))
def test_limits_go_on_bit_for_bit_for_any_number_of_parts(stream, data, way):
    parts, steps = stream
    cut = data.draw(st.integers(0, len(steps)))
    whole, first, second = small(parts), small(parts), small(parts)
    expected = feed(whole, steps)
    feed(first, steps[:cut])
    state = first.state_dict()
    if way == "json":
        plain = {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        state = json.loads(json.dumps(plain))
    elif way == "as it lay in memory":  # and as versions before this one saved it
        state = {name: tensor.clone() for name, tensor in first.state.items()}
    second.load_state_dict(state)
    assert feed(second, steps[cut:]) == expected[cut:]
    assert str(second.state_dict()) == str(whole.state_dict())


def test_sizes_that_no_limit_depends_on_are_not_saved():
    policy = small(2)
    feed(policy, [([2.0, 3.0], [True, step % 3 == 0]) for step in range(EXACT + 1)])
    state = policy.state_dict()
    assert state["ordered"] == [[], [3.0, 3.0, 3.0]]
    assert [sum(often for _, often in pairs) for pairs in state["bins"]] == [EXACT + 1, 3]


LIES = {
    "too few sizes": {"ordered": [[1.0], [1.0]]},
    "too many sizes": {"ordered": [[1.0] * 9, [1.0] * 2]},
    "sizes of one part": {"ordered": [[1.0, 1.0]]},
    "sizes without lists": {"ordered": [1.0, 1.0]},
    "no sizes": {"ordered": [["a", "b"], [1.0, 1.0]]},
    "NaN": {"ordered": [[1.0, float("nan")], [1.0, 1.0]]},
    "too few in the bins": {"bins": [[[5, 1]], [[5, 2]]]},
    "a bin that is none": {"bins": [[[1 << 20, 2]], [[5, 2]]]},
    "a bin below 0": {"bins": [[[-1, 2]], [[5, 2]]]},
    "a count below 0": {"bins": [[[5, -2], [6, 4]], [[5, 2]]]},
    "a bin of no whole number": {"bins": [[[5.5, 2]], [[5, 2]]]},
    "a bin twice": {"bins": [[[5, 2], [5, 2]], [[5, 2]]]},
    "triples": {"bins": [[[5, 2, 1]], [[5, 2, 1]]]},
    "bins of one part": {"bins": [[[5, 2]]]},
    "no bins": {"bins": None},
    "a count for one part": {"count": torch.tensor([2])},
    "another count": {"count": torch.tensor([2, 3])},
    "no count": {"count": "two"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_state_that_lies_is_refused_and_changes_nothing(lie):
    policy, other = small(2), small(2)
    feed(policy, [([1.0, 2.0], [True, True])])
    feed(other, [([1.0, 2.0], [True, True])] * 2)
    before = str(policy.state)
    with pytest.raises(ValueError, match=r"^Percentile: ") as refused:
        policy.load_state_dict(other.state_dict() | LIES[lie])
    assert len(str(refused.value)) < 300
    assert str(policy.state) == before
    policy.load_state_dict(other.state_dict())
