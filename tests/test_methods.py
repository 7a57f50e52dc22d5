import html
import math
import re

import pytest
import torch
from torch import nn

import cliplab
from cliplab import (
    AGGC,
    EMA,
    RMS,
    AdaNorm,
    AfterWarmup,
    Bounded,
    Deviations,
    EntryDeviations,
    GradientStabilizer,
    LossRatio,
    Percentile,
    Queue,
    RateScaled,
    Surprise,
    TargetRate,
    TrustRatio,
    WeightRatio,
    ZScore,
    as_policy,
)
from cliplab.methods.naming import METHODS, OF_CLIPPER

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
    return METHODS[name].build(**parameters)


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
    again = settings(name, **METHODS[name].parameters)
    assert repr(built) == repr(again)
    assert set(built) <= {"threshold", "scope"}


@pytest.mark.parametrize(
    ("name", "policy", "scope"),
    [
        ("adamw_clip", EntryDeviations(3.0, 0.999, 1e-10, 0), "element"),
        ("adanorm", AdaNorm(0.95), "tensor"),
        ("agc_tensor", WeightRatio(0.3, 1e-3), "tensor"),
        ("aggc", AGGC(0.95, (0.95, 0.98), (0.6, 0.7), None, (0.4, 0.3), 0.01, (0.9, 1.1)), "group"),
        ("gradient_stabilizer", GradientStabilizer(0.6, 0.999, 1e-12), "tensor"),
        ("katago", RateScaled(5500.0), "global"),
        ("lamb_trust", TrustRatio(1.0), "tensor"),
        ("loss_ratio", LossRatio(4.0, 9), "global"),
        ("olmo_ratio", EMA(2.0, 0.95, 0), "tensor"),
        ("percentile_window", Bounded(Percentile(95.0, 1000), high=1.0), "global"),
        ("stable_adamw", Surprise(), "tensor"),
        ("update_history", Deviations(3.0, 128, 64), "global"),
        ("update_rms", RMS(1.0), "tensor"),
        ("warmup_tight", AfterWarmup(1.0, 1000, until=10.0), "global"),
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


def test_a_normalised_gradient_has_the_norm_asked_for():
    assert settings("normalise") == {"threshold": 1.0, "mode": "normalise"}
    weight = nn.Parameter(torch.zeros(2))
    for grad in ([30.0, 40.0], [0.003, 0.004]):
        weight.grad = torch.tensor(grad)
        cliplab.create("normalise", [weight], threshold=2.0).clip()
        torch.testing.assert_close(weight.grad, torch.tensor([1.2, 1.6]))


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
        "r": 0.5,
        "gamma1": 0.5,
        "gamma2": 0.5,
        "raise_small": True,
    }
    for method in cliplab.list_methods():
        for name, default in method.parameters.items():
            value = other[name] if name in other else (default or 0) + 11
            value = 11.0 if value == math.inf else value
            assert repr(method.build(**{name: value})) != repr(method.build()), (method.name, name)


def net():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))


ALL = [method.name for method in cliplab.list_methods()]
CLIPPERS = {
    "scope": ["global", "group", "tensor", "unit", "element", "member"],
    "mode": ["rescale", "soft", "normalise", "skip"],
    "nonfinite": ["raise", "skip", "zero", "propagate"],
    "norm_type": [1.0, 2.0, math.inf],
    "target": ["gradient", "update"],
    "eps": [0.0, 1e-6],
}


def test_the_clippers_arguments_are_all_tried_and_documented():
    others = ["exclude", "reduce", "check_ranks"]
    assert sorted([*CLIPPERS, *others]) == sorted(OF_CLIPPER)
    for name in (*ALL, *OF_CLIPPER):
        assert re.search(rf"\b{name}\b", cliplab.create.__doc__), name


@pytest.mark.parametrize(
    ("argument", "given"), [(name, x) for name, values in CLIPPERS.items() for x in values]
)
@pytest.mark.parametrize("method", ALL)
def test_every_method_takes_the_clippers_arguments_and_they_win(method, argument, given):
    """Or the clipper refuses what does not go together, in its own words."""
    if argument in METHODS[method].parameters:
        return  # its own, by the same name
    if given == "member":
        model = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(2))]
    else:
        model = net()
    built = settings(method)
    whole = {"scope": "global", "mode": "rescale", **built, argument: given}
    policy = as_policy(built["threshold"])
    of_entries = isinstance(policy, EntryDeviations)
    clashes = {
        "a fixed threshold": whole["scope"] == "element" and not (policy.stateless or of_entries),
        'needs scope "element"': whole["scope"] != "element" and of_entries,
        "with a band": policy.band and whole["mode"] != "rescale",
        'mode "skip" needs scope': whole["mode"] == "skip"
        and whole["scope"] not in ("global", "group", "tensor"),
        f'mode "{whole["mode"]}" cannot': whole["mode"] in ("soft", "normalise")
        and whole["scope"] == "element",
        "eps=1e-06": whole.get("eps", 0) > 0
        and (
            whole["scope"] == "element"
            or whole["mode"] in ("soft", "skip")
            or as_policy(built["threshold"]).band
        ),
        'target "update" cannot skip': whole.get("target") == "update"
        and "skip" in (whole["mode"], whole.get("nonfinite")),
    }
    if any(clashes.values()):
        with pytest.raises(ValueError, match="|".join(w for w, bad in clashes.items() if bad)):
            cliplab.create(method, model, **{argument: given})
        return
    clipper = cliplab.create(method, model, **{argument: given})
    assert getattr(clipper, argument) == given
    assert repr(clipper.policy) == repr(policy)
    for other in {"scope", "mode", "nonfinite"} - {argument}:
        expected = built.get(other, {"scope": "global", "mode": "rescale"}.get(other, "raise"))
        assert getattr(clipper, other) == expected
    assert len(cliplab.create(method, net(), exclude="1.*", mode="rescale").params) == 2


@pytest.mark.parametrize("method", ALL)
def test_a_threshold_is_taken_where_it_is_the_methods_own(method):
    if "threshold" in METHODS[method].parameters:
        clipper = cliplab.create(method, net(), threshold=0.25)
        assert "0.25" in repr(clipper.policy)
        return
    why = f"{method} has no parameter 'threshold': it makes its own"
    with pytest.raises(ValueError, match=why):
        cliplab.create(method, net(), threshold=0.25)


@pytest.mark.parametrize("method", ALL)
def test_a_typo_in_a_parameter_is_named_with_what_was_meant(method):
    own = METHODS[method].parameters
    for name in (*own, *OF_CLIPPER):
        typo = name.replace("_", "").upper() + "s"
        message = rf"{method} has no parameter '{typo}' \(did you mean '{name}'\?\); it takes "
        if len(name) > 1:
            with pytest.raises(ValueError, match=message):
                cliplab.create(method, net(), **{typo: 1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            ("AutoClip", net()),
            r"unknown method 'AutoClip' \(did you mean 'autoclip'\?\); known: ad",
        ),
        (
            ("spike-skip", net()),
            r"'spike-skip' \(did you mean 'spike_skip'\?\); known: adagc, adamw_clip",
        ),
        (("transformer", net()), "unknown method 'transformer'; known: adagc, adamw_clip"),
        (
            (net(), "autoclip"),
            r"name first, got a module \(Sequential\): create\('autoclip', ...\)",
        ),
        ((list(net().parameters()), "agc"), r"name first, got \[.*: create\('agc', ...\)"),
        ((net(), net()), r"name first, got a module \(Sequential\)$"),
        ((3, net()), "name first, got 3"),
        (("agc", torch.optim.SGD(net().parameters())), "pass the model or optimizer.param_groups"),
        (("agc", "agc"), "expected a module, tensors or groups to clip, got 'agc'"),
    ],
)
def test_what_is_no_call_of_create_is_named_in_a_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        cliplab.create(*call)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_methods_read_as_a_table_and_are_a_list():
    methods = cliplab.list_methods()
    assert isinstance(methods, list)
    text, page = repr(methods), methods._repr_html_()
    assert str(methods) == text
    assert max(map(len, text.splitlines())) <= 80
    assert page.count("<tr>") == len(methods) + 1
    words = " ".join(text.split())
    for method in methods:
        assert re.search(rf"^{method.name} +\S", text, re.MULTILINE)
        assert method.summary in words
        assert method.defaults in words
        assert html.escape(method.summary) in page
        assert html.escape(method.source) in page
        assert "function" not in repr(method)
        assert method.name in repr(method)
    assert "<function" not in text + page
    assert repr(methods[:0]) == "[]"
    assert repr(type(methods)()) == "[]"
