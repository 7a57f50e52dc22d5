"""What errors say of a value, and of a name that is almost right."""

import functools
import math
from typing import Literal

import pytest
import torch
from torch import nn

import cliplab
from cliplab.checks import (
    check_choice,
    check_count,
    check_norm_type,
    check_positive,
    described,
    near,
)

HUGE = [
    nn.Sequential(*[nn.Linear(2, 2) for _ in range(50)]),
    torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.1),
    torch.arange(1000.0),
    nn.Parameter(torch.randn(20, 20)),
    nn.LazyLinear(3).weight,
    [nn.Linear(2, 2)] * 100,
    tuple(torch.randn(9) for _ in range(30)),
    {"params": [torch.randn(9)] * 30, "lr": 0.1},
    functools.partial(print, nn.Linear(2, 2)),
    "a long text " * 50,
    {"a": {"b": [nn.Linear(1, 1)]}},
]
CHECKS = [
    lambda value: check_choice("scope", value, Literal["global", "unit"]),
    lambda value: check_positive("c", value),
    lambda value: check_count("steps", value),
    lambda value: check_norm_type(value),
]


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
def test_whatever_a_value_is_it_is_described_in_a_short_line(value):
    text = described(value)
    assert len(text) <= 62
    assert "\n" not in text
    assert "in_features" not in text
    assert "Parameter Group" not in text


def test_a_description_says_what_a_value_is():
    assert described(nn.Linear(2, 2)) == "a module (Linear)"
    assert described(HUGE[1]) == "an optimizer (SGD)"
    assert described(torch.zeros(2, 3).half()) == "a tensor of shape (2, 3), torch.float16"
    assert described(torch.zeros((), device="meta")) == "a tensor of shape (), torch.float32"
    assert described(torch.tensor(-1.5)) == "tensor(-1.5000)"
    assert described(cliplab.EMA) == "the class EMA"
    assert described((1.5,)) == "(1.5,)"
    assert described([]) == "[]"
    assert described({"lr": torch.zeros(2)}) == "{'lr': a tensor of shape (2,), torch.float32}"
    for plain in (1.5, "x", None, True, math.nan):
        assert described(plain) == repr(plain)


@pytest.mark.parametrize("value", HUGE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_refuses_a_value_says_so_in_a_line(check, value):
    with pytest.raises(ValueError, match=r"must be .*, got ") as error:
        check(value)
    assert len(str(error.value)) < 140
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("AutoClip", "autoclip"),
        ("auto_clip", "autoclip"),
        ("AGC", "agc"),
        ("spikeskip", "spike_skip"),
        ("adgc", "adagc"),
    ],
)
def test_a_name_that_is_almost_right_is_hinted_at(given, meant):
    assert near(given, ["adagc", "agc", "autoclip", "spike_skip"]) == f" (did you mean {meant!r}?)"


@pytest.mark.parametrize("given", ["", "transformer", 3, None, nn.Linear(1, 1)])
def test_no_name_is_made_up(given):
    assert near(given, ["adagc", "agc", "autoclip"]) == ""


@pytest.mark.parametrize("option", ["scope", "mode", "nonfinite"])
def test_options_of_the_clipper_hint_at_what_was_meant(option):
    known = {"scope": "tensor", "mode": "rescale", "nonfinite": "propagate"}[option]
    with pytest.raises(ValueError, match=rf"{option} must be .* \(did you mean '{known}'\?\)"):
        cliplab.Clipper([torch.zeros(2)], **{option: known[:-1].title()})


@pytest.mark.parametrize("check", [check_positive, lambda _, x: check_norm_type(x)])
def test_a_number_too_large_for_a_float_is_no_number(check):
    with pytest.raises(ValueError, match="must be a number > 0"):
        check("c", 10**400)
