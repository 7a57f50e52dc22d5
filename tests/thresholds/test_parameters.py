"""Every parameter of every policy: what is taken, what is refused, and how it is said."""

import inspect
import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import cliplab
from cliplab import (
    AGGC,
    EMA,
    RMS,
    AdaNorm,
    AfterWarmup,
    Bounded,
    Clipper,
    Decay,
    Deviations,
    EntryDeviations,
    Fixed,
    GradientStabilizer,
    LossRatio,
    MovingAverage,
    Percentile,
    Queue,
    RateScaled,
    RobustSpike,
    SpikeSkip,
    Switch,
    TargetRate,
    TrustRatio,
    WeightRatio,
    ZScore,
    as_policy,
)

COUNTS = {"window", "warmup", "patience", "length", "steps", "span"}
POLICIES = [
    EMA, RMS, Decay, Fixed, MovingAverage, Percentile, Queue, RobustSpike, SpikeSkip, TargetRate,
    WeightRatio, ZScore, Bounded, AfterWarmup, AGGC, AdaNorm, Deviations, EntryDeviations,
    GradientStabilizer, LossRatio, RateScaled, TrustRatio,
]  # fmt: skip
PAIRS = ["low", "high", "turn", "caps"]  # of AGGC
OTHER = {"policy", "until", "response", "learn_spikes", "raise_small"}
GIVEN = {Bounded: {"policy": 1.0}, AfterWarmup: {"policy": 1.0}}
PARAMETERS = [
    (policy, name)
    for policy in POLICIES
    for name in inspect.signature(policy).parameters
    if name not in OTHER and not (policy is AGGC and name in PAIRS)
]
every = pytest.mark.parametrize(("policy", "name"), PARAMETERS)
numbers = pytest.mark.parametrize(
    ("policy", "name"), [(p, name) for p, name in PARAMETERS if name not in COUNTS]
)
counts = pytest.mark.parametrize(
    ("policy", "name"), [(p, name) for p, name in PARAMETERS if name in COUNTS]
)
NONE = {
    ("Percentile", "window"),
    ("AGGC", "steps"),
    ("RateScaled", "rate"),
}  # where None is a value


def build(policy, name, value):
    return policy(**(GIVEN.get(policy, {}) | {name: value}))


def shown(policy, name):
    """The name that an error has for a parameter."""
    return "threshold" if name == "value" else name


@every
@pytest.mark.parametrize(
    "value",
    [
        -1,
        math.nan,
        -math.inf,
        True,
        np.True_,
        1j,
        "1",
        b"1",
        "autoclip",
        None,
        [1.0],
        {},
        object,
        Decimal(1),
        np.float64("nan"),
        np.ones(2),
        torch.ones(1000),
        torch.tensor(True),
        torch.tensor(1j),
        torch.nn.Linear(3, 3),
        -(10**400),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number_is_named_in_one_line(policy, name, value):
    if value is None and (policy.__name__, name) in NONE:
        return
    with pytest.raises(ValueError, match=rf"^{shown(policy, name)} must be .* got ") as refused:
        build(policy, name, value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@every
@pytest.mark.parametrize("value", [10**400, Fraction(10**400)])
def test_a_number_too_large_for_a_float_is_named(policy, name, value):
    with pytest.raises(ValueError, match=rf"^{shown(policy, name)} must be .* got 1?0*"):
        build(policy, name, value)


LIMITS = {
    ("Fixed", "value"),
    ("RMS", "value"),
    ("Bounded", "low"),
    ("Bounded", "high"),
    ("RateScaled", "value"),
    ("LossRatio", "spike"),
}


@numbers
@pytest.mark.parametrize("value", [math.inf, 1e39, 1e300])
def test_what_single_precision_cannot_hold_is_refused_but_for_limits(policy, name, value):
    if (policy.__name__, name) in LIMITS:
        assert build(policy, name, value).init(2) is None
        return
    with pytest.raises(ValueError, match=rf"^{name} must be "):
        build(policy, name, value)


@counts
@pytest.mark.parametrize("value", [1.0, 2.5, Fraction(3), np.float32(2)])
def test_counts_are_whole_numbers(policy, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer"):
        build(policy, name, value)


@numbers
@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16, Fraction])
def test_numbers_of_other_kinds_are_what_they_are_worth(policy, name, kind):
    value = kind({"percentile": 3, "high": 2}.get(name, 0.5))
    built = build(policy, name, value)
    assert repr(built) == repr(build(policy, name, float(value)))
    assert repr(built) == repr(build(policy, name, torch.tensor(float(value))))
    built.init(2)


@counts
@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_counts_of_other_kinds_are_what_they_are_worth(policy, name, kind):
    short = (
        {"warmup": 2}
        if name == "window" and policy in (MovingAverage, SpikeSkip, Deviations)
        else {}
    )
    built = policy(**GIVEN.get(policy, {}), **short, **{name: kind(7)})
    assert repr(built) == repr(policy(**GIVEN.get(policy, {}), **short, **{name: 7}))
    built.init(2)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("value", [1.0, (1.0,), (1.0, -1.0), (1.0, math.nan), "12", None, {}])
def test_what_is_no_pair_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be (a number >= 0|two numbers >= 0), got "):
        AGGC(**{name: value})


@pytest.mark.parametrize("value", [1, 0, "no", None, torch.tensor(True)])
def test_whether_small_sizes_are_raised_is_a_bool(value):
    with pytest.raises(ValueError, match="raise_small must be True or False, got"):
        AGGC(raise_small=value)


@pytest.mark.parametrize("value", [1, 0, "no", None, torch.tensor(True)])
def test_whether_spikes_are_learnt_is_a_bool(value):
    with pytest.raises(ValueError, match="learn_spikes must be True or False, got"):
        ZScore(learn_spikes=value)


@pytest.mark.parametrize("value", [None, 1, ["mean"], torch.ones(1000)])
def test_a_response_is_one_of_three(value):
    with pytest.raises(ValueError, match="response must be reciprocal, mean or level, got"):
        ZScore(response=value)


@pytest.mark.parametrize(
    "value", ["autoclip", EMA, None, [1.0], object(), torch.nn.Linear(2, 2), lambda step: 1.0]
)
@pytest.mark.parametrize(
    "take", [as_policy, Bounded, AfterWarmup, lambda value: Clipper([weight()], value)]
)
def test_what_is_no_policy_is_told_what_is_one(take, value):
    wanted = r"a number or a policy such as EMA\(\); by name: cliplab.create\('autoclip', ...\)"
    with pytest.raises(ValueError, match=wanted) as refused:
        take(value)
    assert "\n" not in str(refused.value)


def weight():
    return torch.nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize(
    "cases",
    [
        None,
        3,
        [],
        1.0,
        [1.0],
        [(1.0,)],
        "ab",
        [([True], 1.0, 2)],
        [("ab", 1.0)],
        [([[True]], 1.0)],
        [([1.0, 0.0], 1.0)],
        [(torch.ones(1000), 1.0)],
        [([True], "x")],
        {"a": 1},
    ],
)
def test_bad_cases_of_a_switch_are_named(cases):
    with pytest.raises(ValueError, match=r"must be|needs") as refused:
        Switch(cases)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


def test_masks_may_be_lists_tuples_arrays_and_tensors():
    for kind in (list, tuple, np.array, torch.tensor):
        first, second = kind([True, False]), kind([False, True])
        assert Switch([(first, 1.0), (second, 2.0)]).cases[1][0].tolist() == [False, True]


def test_a_repr_shows_parameters_and_no_tensors():
    assert repr(Fixed(1)) == "Fixed(value=1.0)"
    assert repr(Percentile(10, 5)) == "Percentile(percentile=10.0, window=5)"
    policy = Switch([([True] * 99 + [False], EMA()), ([False] * 99 + [True], 1.0)])
    policy.init(100)
    ema = "EMA(ratio=1.05, beta=0.98, warmup=100, initial=1.0)"
    text = f"Switch([(99 of 100 parts, {ema}), (1 of 100 parts, Fixed(value=1.0))])"
    assert repr(policy) == text
    assert repr(Bounded(policy, high=2)) == f"Bounded(policy={text}, low=0.0, high=2.0)"


@pytest.mark.parametrize("percentile", [0.1, 0.999, 1e-9, Fraction(1, 2)])
@pytest.mark.parametrize(
    "make",
    [
        Percentile,
        lambda p: Percentile(p, 9),
        lambda p: cliplab.create("autoclip", [weight()], percentile=p),
    ],
)
def test_a_share_in_place_of_a_percentile_is_warned_of_once(make, percentile):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make(percentile)
        as_policy(made.policy if isinstance(made, Clipper) else made)
    (warning,) = caught
    assert warning.category is UserWarning
    value = float(percentile)
    share = f"{value:g} is nearly the minimum; for a share of {value:g} give {100 * value:g}"
    assert str(warning.message) == f"percentile is in percent: {share}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "percentile is in percent")
        make(percentile)


@pytest.mark.parametrize("percentile", [0, 1, 1.5, 10, 99.9, 100])
def test_percentiles_that_are_meant_are_taken_in_silence(percentile):
    Percentile(percentile)


def test_a_percentage_in_place_of_a_share_is_told_which_it_is():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 5 \(a share: 5 % is 0.05\)"):
        TargetRate(rate=5)
    with pytest.raises(ValueError, match=r"got 5 \(a share: 5 % is 0.05\)"):
        cliplab.create("target_rate", [weight()], rate=5)
