import math

import pytest
import torch

import cliplab
from cliplab import EMA, RMS, Bounded, Queue, TargetRate, WeightRatio, ZScore
from cliplab.methods import _METHODS

NAMES = [
    "adagc",
    "agc",
    "autoclip",
    "block_rms",
    "decay",
    "edm_queue",
    "moving_average",
    "none",
    "norm",
    "target_rate",
    "tensor_norm",
    "value",
    "zclip",
]


def settings(name, **parameters):
    """What a method gives to its Clipper."""
    return _METHODS[name].build(**parameters)


def test_methods_are_listed_by_name_with_summary_and_source():
    methods = cliplab.list_methods()
    assert [m.name for m in methods] == sorted(m.name for m in methods)
    assert {m.name for m in methods} >= set(NAMES)
    for method in methods:
        assert method.summary.endswith(".")
        assert "\n" not in method.summary
        assert method.source


@pytest.mark.parametrize("name", NAMES)
def test_defaults_build(name):
    built = settings(name)
    again = settings(name, **_METHODS[name].parameters)
    assert repr(built) == repr(again)
    assert set(built) <= {"threshold", "scope"}


@pytest.mark.parametrize(
    ("name", "policy", "scope"),
    [
        ("block_rms", RMS(1.0), "tensor"),
        ("agc", WeightRatio(0.01, 1e-3), "unit"),
        ("adagc", EMA(1.05, 0.98, 100, 1.0), "tensor"),
        ("zclip", Bounded(ZScore(0.97, 2.5, 25), high=1.0), "global"),
        ("edm_queue", Queue(50, 1.5, 2.0, 3000.0), "global"),
        ("target_rate", TargetRate(0.05), "global"),
    ],
)
def test_published_defaults(name, policy, scope):
    built = settings(name)
    assert repr(built["threshold"]) == repr(policy)
    assert built.get("scope", "global") == scope


def test_zclip_without_its_fixed_limit_and_at_a_percentile():
    plain = settings("zclip", max_norm=None)["threshold"]
    assert isinstance(plain, ZScore)
    level = settings("zclip", max_norm=None, percentile=99.0)["threshold"]
    assert level.response == "level"
    assert level.z == pytest.approx(2.3263478740408408)
    for bad in (50, 100, 0.99, math.nan):
        with pytest.raises(ValueError, match=f"percentile must be between 50 and 100, got {bad!r}"):
            settings("zclip", percentile=bad)


def test_every_parameter_of_a_method_changes_what_it_builds():
    other = {
        "response": "mean",
        "window": 77,
        "percentile": 77.0,
        "max_norm": 3.0,
        "beta": 0.5,
        "alpha": 0.5,
        "rate": 0.5,
        "floor": 0.25,
    }
    for method in cliplab.list_methods():
        for name, default in method.parameters.items():
            value = other[name] if name in other else (default or 0) + 11
            assert repr(method.build(**{name: value})) != repr(method.build()), (method.name, name)


def test_create_takes_the_methods_parameters_and_the_clippers():
    weight = torch.nn.Parameter(torch.zeros(2))
    clipper = cliplab.create("zclip", [weight], z=3.0, nonfinite="skip")
    assert clipper.policy.policy.z == 3.0
    assert clipper.nonfinite == "skip"
    with pytest.raises(ValueError, match="zclip has no parameter 'ratio'"):
        cliplab.create("zclip", [weight], ratio=1.0)
    with pytest.raises(ValueError, match="adagc has no parameter 'scope'"):
        cliplab.create("adagc", [weight], scope="global")
