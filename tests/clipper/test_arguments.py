"""What a clipper takes, and what it says to the rest."""

import pytest
import torch
from making import with_gradients
from torch import nn

from cliplab import Bounded, Clipper, Fixed, Percentile, Scheduled, Switch


def one_entry(threshold):
    return Clipper(with_gradients([1.0]), threshold)


def test_numbers_where_tensors_or_policies_are_usual():
    params = with_gradients([3.0, 4.0])
    Clipper(params, Switch([([True], 1.0)])).clip(loss=1.0)
    assert params[0].grad.norm().item() == pytest.approx(1.0)
    params = with_gradients([3.0, 4.0])
    Clipper(params, Scheduled(lambda step, lr: torch.tensor([0.5]))).clip()
    assert params[0].grad.norm().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clipper(None), "expected a module, tensors or groups to clip, got None"),
        (lambda: Clipper(5), "got 5"),
        (lambda: Clipper([{"lr": 1}]), "group 0 needs its params"),
        (lambda: Clipper([{"params": nn.Linear(1, 1)}]), "group 0 needs its params"),
        (lambda: one_entry(torch.tensor(1 + 1j)), "threshold must be a number"),
        (lambda: one_entry(1.0).load_state_dict({"steps": 0, "policy": None}), "got None"),
        (
            lambda: one_entry(Bounded(Fixed(1.0))).load_state_dict(
                {"steps": 0, "policy": {"policy": 3}}
            ),
            "expected a state, got 3",
        ),
    ],
)
def test_errors_name_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_is_taken_over_whole_or_not_at_all():
    clipper = one_entry(Percentile(50))
    clipper.clip()
    state = one_entry(Percentile(50)).policy.state_dict()
    with pytest.raises(ValueError, match="x"):
        clipper.load_state_dict({"steps": "x", "policy": state})
    assert clipper.policy.state["count"].tolist() == [1]
