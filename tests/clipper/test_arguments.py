"""What a clipper takes, and what it says to the rest."""

import inspect

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
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


@pytest.mark.parametrize(
    "word",
    ["max_norm", "clip_norm", "max_grad_norm", "clip_value", "grad_clip", "gradient_clip_val"],
)
def test_another_librarys_word_for_the_limit_is_told_ours(word):
    with pytest.raises(TypeError, match=f"no argument '{word}'.*threshold=1.0"):
        Clipper(with_gradients([1.0]), **{word: 1.0})
    with pytest.raises(TypeError, match="unexpected keyword argument 'maximum'"):
        Clipper(with_gradients([1.0]), maximum=1.0)


def test_the_signature_is_the_clippers_own():
    names = list(inspect.signature(Clipper).parameters)
    own = ["params", "threshold", "scope", "norm_type", "mode", "nonfinite", "exclude", "target"]
    assert names == [*own, "eps", "reduce", "check_ranks"]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Clipper(p, 0.0),
        lambda p: Clipper(p, Fixed(0.0), scope="element"),
        lambda p: Clipper([{"params": p, "threshold": 0}]),
        lambda p: cliplab.create("norm", p, threshold=0),
    ],
)
def test_a_limit_of_zero_is_said_once(make):
    with pytest.warns(UserWarning, match=r"0 .* every gradient 0.*inf") as said:
        clipper = make(with_gradients([3.0, 4.0]))
    assert [w.filename for w in said] == [__file__]
    clipper.clip()


def test_ranks_are_checked_where_there_are_some():
    assert Clipper(with_gradients([3.0, 4.0]), check_ranks=True).clip().norm_before == 5.0
    with pytest.raises(ValueError, match="check_ranks must be True or False, got 'yes'"):
        Clipper(with_gradients([1.0]), check_ranks="yes")


@pytest.mark.parametrize("reduce", ["ranks", 3, [], [None], nn.Linear(1, 1).weight])
def test_what_sums_over_ranks_is_a_group_or_a_function(reduce):
    (weight,) = with_gradients([3.0, 4.0])
    with pytest.raises(ValueError, match=r"^reduce must be process groups .*, or a function"):
        Clipper([weight], reduce=reduce)
    with pytest.raises(ValueError, match=r"^reduce of head must be process groups .*, or a func"):
        Clipper([{"params": weight, "name": "head", "reduce": reduce}])


def test_a_function_sums_over_ranks_what_it_is_given():
    """As if another rank held the same."""
    given = []

    def twice(numbers):
        given.append(numbers.tolist())
        return numbers * 2

    (weight,) = with_gradients([3.0, 4.0])
    report = Clipper([weight], 5.0, reduce=twice).clip()
    assert given == [[2.0], [1.0], [25.0], [1.0]]  # entries, and powers, each with what is there
    torch.testing.assert_close(report.norm_before, torch.tensor(50.0).sqrt())
    torch.testing.assert_close(weight.grad.norm(), torch.tensor(12.5).sqrt())


@pytest.mark.parametrize("loss", ["1.0", None, [1.0]])
def test_a_loss_is_a_number(loss):
    with pytest.raises(ValueError, match="loss must be a number or a tensor, got"):
        one_entry(1.0).observe(loss)
