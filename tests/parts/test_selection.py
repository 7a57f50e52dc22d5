"""Which parameters are clipped: by name, by group, and never one that cannot have a gradient."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import METHODS, optimizer_for, with_gradients
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import cliplab
from cliplab import Clipper
from cliplab.parts import select_parameters


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.PReLU()))


class Holder(nn.Module):
    """What wraps a model under the name that FSDP gives it."""

    def __init__(self, module):
        super().__init__()
        self._fsdp_wrapped_module = module


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.last = nn.Linear(3, 3)


def compiled(model):
    return torch.compile(model, backend="eager")


def inner(wrap):
    def build(model):
        model[1] = wrap(model[1])
        return model

    return build


def average(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.optim.swa_utils.AveragedModel(model)


WRAPPED = {
    "plain": lambda model: model,
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "averaged": average,
    "FSDP": Holder,
    "checkpointed": checkpoint_wrapper,
    "compiled DataParallel": lambda model: compiled(nn.DataParallel(model)),
    "DataParallel of compiled": lambda model: nn.DataParallel(compiled(model)),
    "checkpointed inside": inner(checkpoint_wrapper),
    "compiled inside": inner(compiled),
    "DataParallel inside": inner(nn.DataParallel),
    "all of them": lambda model: compiled(
        nn.DataParallel(Holder(inner(checkpoint_wrapper)(inner(nn.DataParallel)(model))))
    ),
}
PATTERNS = ["1.*", "*.bias", "1.0.*", "*weight", "0.weight", "1.1.weight", "[01].*", "?.*.bias"]


def selected(params, exclude=None):
    return [
        (n, p)
        for g in select_parameters(params, exclude).groups
        for n, p in zip(g.names, g.params, strict=True)
    ]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_leaves_out_the_same_whatever_wraps_the_model(wrap, pattern, pairs):
    expected = [name for name, _ in selected(net(), exclude=pattern)] if pattern != "[01].*" else []
    model = wrap(net())
    source = model.named_parameters() if pairs else model
    if not expected:
        with pytest.raises(ValueError, match="leaves none"):
            selected(source, exclude=pattern)
        return
    assert [name for name, _ in selected(source, exclude=pattern)] == expected
    assert 0 < len(expected) < 5


@pytest.mark.parametrize("scope", ["tensor", "unit"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_parts_have_the_names_of_the_model_without_wrappers(wrap, scope):
    expected = Clipper(net(), scope=scope).history.labels
    assert Clipper(wrap(net()), scope=scope).history.labels == expected


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_pattern_may_name_the_wrappers_too(wrap):
    model = wrap(net())
    for name, p in model.named_parameters():
        left = selected(model, exclude=name)
        assert len(left) == 4
        assert all(other is not p for _, other in left)


def test_a_module_of_that_name_is_no_wrapper_where_something_stands_beside_it():
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert [n for n, _ in selected(model)] == [n for n, _ in model.named_parameters()]
    with pytest.raises(ValueError, match="exclude='weight' matches no parameter"):
        Clipper(model, exclude="weight")
    assert len(Clipper(nn.Sequential(model), exclude="*.module.*").params) == 2


@pytest.mark.parametrize("pattern", ["head.*", "embed.*", "head.weight", "*d.weight"])
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, compiled])
def test_any_name_of_a_tied_weight_leaves_it_out(wrap, pattern):
    model = wrap(Tied())
    assert [name for name, _ in selected(model, exclude=pattern)] == ["last.weight", "last.bias"]
    pairs = model.named_parameters(remove_duplicate=False)
    assert [name for name, _ in selected(pairs, exclude=pattern)] == ["last.weight", "last.bias"]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("*.bais", r" \(did you mean '\*.bias'\?\); near are .*\.bias"),
        ("0.wieght", r" \(did you mean '0.weight'\?\); near are 0.weight"),
        ("1.0.Weight", r" \(did you mean '1.0.weight'\?\); near are 1.0.weight"),
        ("head.*", "; near are "),
        ("", "; near are "),
        (["*.bias", "2.*"], "; near are "),
    ],
)
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_pattern_that_matches_nothing_is_refused_with_near_names(wrap, pattern, hint):
    wanted = pattern if isinstance(pattern, str) else pattern[-1]
    named = wanted.replace("*", r"\*")
    for make in (
        lambda: Clipper(wrap(net()), exclude=pattern),
        lambda: cliplab.create("agc", wrap(net()), exclude=pattern),
        lambda: Clipper(wrap(net()).named_parameters(), exclude=pattern),
    ):
        with pytest.raises(
            ValueError, match=f"exclude='{named}' matches no parameter.*{hint}"
        ) as e:
            make()
        assert len(str(e.value)) < 300
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("exclude", [3, nn.Linear(2, 2), [nn.Linear(2, 2)], [None], net()])
def test_patterns_are_text(exclude):
    with pytest.raises(ValueError, match="exclude takes patterns of names, got"):
        Clipper(net(), exclude=exclude)


def test_no_pattern_at_all_leaves_nothing_out():
    assert len(Clipper(net(), exclude=[]).params) == 5


def test_a_pattern_may_match_only_what_is_not_clipped_anyway():
    model = net()
    model[0].requires_grad_(False)
    assert len(Clipper(model, exclude="0.*").params) == 3
    groups = [
        {"params": list(model[0].named_parameters()), "clip": False},
        {"params": list(model[1].named_parameters())},
    ]
    assert len(Clipper(groups, exclude="weight").params) == 3


@given(st.text(alphabet="01.*?[]!weightbas", max_size=8))
def test_every_accepted_pattern_takes_something_away(pattern):
    model = nn.DataParallel(net())
    try:
        left = len(Clipper(model, exclude=pattern).params)
    except ValueError:
        left = 0
    assert left < 5


# --- groups -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"threshold": 0.1}, {"clip": False}])
def test_a_rule_for_no_parameter_is_refused(rule):
    params = with_gradients([1.0], [2.0])
    with pytest.raises(ValueError, match="group 1 has a rule of its own and no parameters"):
        Clipper([{"params": params}, {"params": [], **rule}])
    Clipper([{"params": params}, {"params": []}])


@pytest.mark.parametrize("first", [{}, {"threshold": 1.0}, {"clip": False}])
@pytest.mark.parametrize("second", [{}, {"threshold": 1.0}, {"clip": False}])
def test_a_parameter_in_two_groups_needs_one_rule(first, second):
    params = with_gradients([1.0], [2.0])
    groups = [{"params": params, **first}, {"params": params[1:], "name": "head", **second}]
    if not first and not second:
        assert len(Clipper(groups).params) == 2
        return
    with pytest.raises(ValueError, match="a parameter stands in group 0 and in head: whose rule"):
        Clipper(groups)


@pytest.mark.parametrize("bad", ["False", 0, None, torch.tensor(False)])
def test_clip_is_a_bool(bad):
    with pytest.raises(ValueError, match="clip of group 0 must be True or False, got"):
        Clipper([{"params": with_gradients([1.0]), "clip": bad}])


# --- frozen, lazy, and no parameters at all -----------------------------------------------------


def lora():
    """A frozen base, quantised, with trained factors beside it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    for dtype in (torch.uint8, torch.float8_e4m3fn):
        base = nn.Parameter(torch.ones(4, 4).to(dtype), requires_grad=False)
        model.register_parameter(f"base_{str(dtype)[6:]}", base)
    return model


SOURCES = {
    "module": lambda model: model,
    "pairs": lambda model: model.named_parameters(),
    "parameters": lambda model: model.parameters(),
    "group": lambda model: [{"params": model.parameters()}],
    "ruled group": lambda model: [{"params": model.parameters(), "threshold": 1e-3}],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_frozen_parameters_are_no_part_of_a_clipper(source, method):
    if method in ("value", "adamw_clip") and source is SOURCES["ruled group"]:
        source = SOURCES["module"]
    torch.manual_seed(0)
    model = lora()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_for(method, trained)
    clipper = cliplab.create(method, source(model))
    assert [id(p) for p in clipper.params] == [id(p) for p in trained]
    with clipper.attach(optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().sum().mul(100).backward()
            clipper.observe(1.0)
            optimizer.step()
    assert len(clipper.history) == 3


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_model_that_is_frozen_altogether_is_refused(source):
    model = lora().requires_grad_(False)
    message = r"no parameters to clip: all are frozen \(requires_grad is False\)"
    with pytest.raises(ValueError, match=message):
        Clipper(source(model))


def test_plain_tensors_are_clipped_whatever_they_require():
    weight = torch.zeros(2)
    weight.grad = torch.tensor([3.0, 4.0])
    for source in ([weight], weight, [("w", weight)], [{"params": [weight]}]):
        weight.grad = torch.tensor([3.0, 4.0])
        assert Clipper(source, 1.0).clip().norm_before == 5.0
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "element", "member"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_lazy_module_wants_a_forward_pass_first(source, scope):
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyConvTranspose2d(2, 2))
    with pytest.raises(
        ValueError, match=r" is lazy, it has no shape yet: run a forward pass first"
    ):
        Clipper(source(model), scope=scope)
    layer = nn.LazyLinear(3)
    layer(torch.ones(2, 4)).sum().backward()
    if scope != "member" and source is not SOURCES["ruled group"]:
        assert Clipper(source(layer), scope=scope).clip().norm_before.sum() > 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (torch.optim.SGD(net().parameters()), "an optimizer .SGD.: pass the model or optimizer.pa"),
        ("model", "got 'model'"),
        (3.0, "got 3.0"),
        (None, "got None"),
        ({"params": [torch.zeros(2)]}, "pass a list of groups, or .items"),
        (net().state_dict(), "pass a list of groups, or .items"),
        ([net(), net()], r"got a module .Sequential.: pass its .parameters\(\)"),
        (["0.weight"], "got '0.weight'"),
        ([(torch.zeros(2), torch.zeros(2))], "must be tensors, got .a tensor"),
        ([(torch.zeros(2), "0.weight")], "must be tensors, got .a tensor"),
        ([("a", "b", "c")], "must be tensors, got .'a'"),
        ([{"params": net()}], "group 0 needs its params, tensors, got a module"),
        ([{"parms": [torch.zeros(2)]}], "group 0 needs its params, tensors, got None"),
        ([{"params": [torch.zeros(2)], "clip": False}], "none were given, or all with clip=False"),
    ],
)
def test_what_is_no_selection_of_parameters_is_named_in_a_line(params, message):
    for make in (lambda: Clipper(params), lambda: cliplab.create("agc", params)):
        with pytest.raises(ValueError, match=message) as error:
            make()
        assert len(str(error.value)) < 200
        assert "\n" not in str(error.value)
