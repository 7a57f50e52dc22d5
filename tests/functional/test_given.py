"""What the forms without state are given: a module is meant as its parameters, the rest is said."""

import pytest
import torch
from torch import nn

import cliplab

CALLS = {
    "clip_grad_norm_": lambda given: cliplab.clip_grad_norm_(given, 0.1),
    "clip_grad_value_": lambda given: cliplab.clip_grad_value_(given, 0.01),
    "clip_grads_with_norm_": lambda given: cliplab.clip_grads_with_norm_(
        given, 0.1, torch.tensor(3.0)
    ),
    "adaptive_clip_": lambda given: cliplab.adaptive_clip_(given, 0.01),
}
ON_TENSORS = {
    "get_total_norm": cliplab.get_total_norm,
    "clip_by_value_": lambda given: cliplab.clip_by_value_(given, -1.0, 1.0),
    "clip_by_norm_": lambda given: cliplab.clip_by_norm_(given, 1.0),
    "clip_by_global_norm_": lambda given: cliplab.clip_by_global_norm_(given, 1.0),
}


def model():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module(torch.ones(2, 3)).square().sum().backward()
    return module


WRONG = {
    "optimizer": lambda: torch.optim.SGD(model().parameters(), lr=0.1),
    "groups": lambda: torch.optim.SGD(model().parameters(), lr=0.1).param_groups,
    "names": lambda: model().named_parameters(),
    "modules": lambda: [model()],
    "text": lambda: "weight",
    "number": lambda: 1.0,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_module_is_its_parameters(call):
    whole, listed = model(), model()
    expected, given = call(list(listed.parameters())), call(whole)
    assert expected == given
    for p, q in zip(whole.parameters(), listed.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        assert p.grad.norm() < model()[0].weight.grad.norm()


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("call", [*CALLS.values(), *ON_TENSORS.values()], ids=[*CALLS, *ON_TENSORS])
def test_what_else_was_given_is_said_in_a_short_line(call, wrong):
    with pytest.raises(ValueError, match=r"expected .*tensors") as raised:
        call(wrong())
    assert len(str(raised.value)) < 250
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("call", ON_TENSORS.values(), ids=ON_TENSORS.keys())
def test_a_module_in_the_place_of_gradients_is_told_what_to_pass(call):
    with pytest.raises(ValueError, match=r"p\.grad for p in .*got a module \(Sequential\)"):
        call(model())


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: cliplab.clip_grad_norm_([], wrong),
        lambda wrong: cliplab.clip_grad_norm_([], 1.0, wrong),
        lambda wrong: cliplab.clip_grad_value_([], wrong),
        lambda wrong: cliplab.clip_grads_with_norm_([], 1.0, wrong),
        lambda wrong: cliplab.clip_by_value_([], wrong, 1.0),
        lambda wrong: cliplab.clip_by_norm_([], wrong),
        lambda wrong: cliplab.clip_by_norm_(torch.ones(2), 1.0, wrong),
        lambda wrong: cliplab.clip_by_global_norm_([], wrong),
        lambda wrong: cliplab.clip_by_global_norm_([], 1.0, wrong),
        lambda wrong: cliplab.clip_activation_grad_(wrong, 1.0),
        lambda wrong: cliplab.clip_activation_grad_(torch.ones(2), wrong),
        lambda wrong: cliplab.adaptive_clip_([], wrong),
    ],
)
@pytest.mark.parametrize("wrong", [model, lambda: model().state_dict()])
def test_no_error_pastes_a_model(call, wrong):
    with pytest.raises(ValueError, match="got") as raised:
        call(wrong())
    assert len(str(raised.value)) < 250
    assert "\n" not in str(raised.value)
