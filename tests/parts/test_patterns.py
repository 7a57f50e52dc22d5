"""Thresholds by name: each parameter is ruled by the first pattern that matches it."""

import math
import re
from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cliplab
from cliplab import Clipper, MovingAverage
from cliplab.parts import select_parameters


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.PReLU()))


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPED = {
    "plain": lambda model: model,
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "compiled DataParallel": lambda model: compiled(nn.DataParallel(model)),
}
NAMES = [name for name, _ in net().named_parameters()]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5)
        self.head.weight = self.embed.weight


def ruled(params, thresholds, exclude=None):
    """Names by pattern."""
    return {g.label: g.names for g in select_parameters(params, exclude, thresholds).groups}


def expected(patterns, names):
    """Names by the first pattern that matches; None where the patterns are to be refused."""
    first = [next((p for p in patterns if fnmatchcase(n, p)), None) for n in names]
    if None in first or set(first) != set(patterns):
        return None
    return {p: [n for n, f in zip(names, first, strict=True) if f == p] for p in patterns}


def pieces(name):
    """Patterns that a name matches, and a few that it does not."""
    parts = name.split(".")
    forms = [name, f"*.{parts[-1]}", f"{parts[0]}.*", f"*{parts[-1][1:]}", "?.*", "*", "2.*"]
    return st.sampled_from(forms)


ANY_PATTERNS = st.lists(st.sampled_from(NAMES).flatmap(pieces), min_size=1, max_size=5, unique=True)


@given(ANY_PATTERNS, st.sampled_from(list(WRAPPED)), st.booleans())
def test_every_parameter_is_in_the_group_of_the_first_pattern_that_matches(patterns, wrap, pairs):
    model = WRAPPED[wrap](net())
    source = list(model.named_parameters()) if pairs else model
    thresholds = {p: float(i) for i, p in enumerate(patterns)}
    wanted = expected(patterns, NAMES)
    if wanted is None:
        with pytest.raises(ValueError, match=r"threshold: (the|no) pattern"):
            ruled(source, thresholds)
        return
    groups = select_parameters(source, None, thresholds).groups
    assert {g.label: g.names for g in groups} == wanted
    assert [g.threshold for g in groups] == list(thresholds.values())
    held = [id(p) for g in groups for p in g.params]
    assert sorted(held) == sorted({id(p) for p in model.parameters()})


@given(
    st.lists(st.text("01.*?[]weightbas", max_size=8), min_size=1, max_size=4, unique=True),
    st.sampled_from(["*", "?.*", "*[ts]"]),
)
def test_patterns_of_any_text_rule_as_fnmatch_says_or_are_refused(patterns, last):
    patterns = [*dict.fromkeys([*patterns, last])]
    wanted = expected(patterns, NAMES)
    if wanted is None:
        with pytest.raises(ValueError, match=r"threshold: (the|no) pattern"):
            ruled(net(), dict.fromkeys(patterns, 1.0))
        return
    assert ruled(net(), dict.fromkeys(patterns, 1.0)) == wanted


@given(st.sets(st.sampled_from(NAMES), max_size=len(NAMES) - 1))
def test_what_is_frozen_is_part_of_no_group(frozen):
    model = net()
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    wanted = expected(["*.bias", "0.*", "*"], NAMES)
    left = {p: [n for n in names if n not in frozen] for p, names in wanted.items()}
    found = ruled(model, {"*.bias": 1, "0.*": 2, "*": 3})
    assert found == {p: names for p, names in left.items() if names}


def test_what_is_frozen_needs_no_pattern():
    model = net()
    model[1].requires_grad_(False)
    assert ruled(model, {"0.*": 1.0}) == {"0.*": ["0.weight", "0.bias"]}


@pytest.mark.parametrize("pattern", ["head.weight", "embed.*", "*d.weight"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_any_name_of_a_tied_weight_rules_it(wrap, pattern):
    model = wrap(Tied())
    for source in (model, model.named_parameters(remove_duplicate=False)):
        assert ruled(source, {pattern: 1.0, "*": 2.0}) == {
            pattern: ["embed.weight"],
            "*": ["head.bias"],
        }


def test_a_pattern_may_name_the_wrappers_too():
    model = compiled(nn.DataParallel(net()))
    assert ruled(model, {"_orig_mod.module.0.*": 1.0, "*": 2.0}) == {
        "_orig_mod.module.0.*": ["0.weight", "0.bias"],
        "*": ["1.0.weight", "1.0.bias", "1.1.weight"],
    }


def groups_of(model, **first):
    return [
        {"params": list(model[0].named_parameters("0")), **first},
        {"params": list(model[1].named_parameters("1"))},
    ]


@pytest.mark.parametrize(
    ("params", "threshold", "message"),
    [
        (net(), {}, r"threshold by name takes patterns, .*, got {}"),
        (net(), {3: 1.0}, r"takes patterns, .*, got {3: 1.0}"),
        (net(), {"*.bias": -1, "*": 1}, r"'\*.bias': threshold must be a number >= 0, got -1"),
        (net(), {"*": None}, r"'\*': threshold must be a number or a policy .*got None"),
        (net(), {"*": {"*": 1.0}}, r"'\*': threshold must be a number or a policy .*got {'\*': 1"),
        (
            net(),
            {"*.bais": 1, "*": 2},
            r"the pattern '\*.bais' matches no parameter \(did you mean '\*.bias'\?\); near are",
        ),
        (
            net(),
            {"*": 1, "0.*": 2},
            r"'0.\*' rules nothing: all that it matches is ruled by '\*' b",
        ),
        (
            net(),
            {"*t": 1, "*s": 2, "0.*": 3},
            r"'0.\*' rules nothing: .* ruled by ('\*t', '\*s'|'\*s', '\*t') before it",
        ),
        (
            net(),
            {"*.bias": 1},
            r'no pattern matches 0.weight, 1.0.weight, 1.1.weight: end with "\*"',
        ),
        (
            nn.Sequential(*[nn.Linear(1, 1) for _ in range(9)]),
            {"0.*": 1},
            r"matches 1.weight, 1.bias, 2.weight, 2.bias, 3.weight and 11 more: end",
        ),
        (list(net().parameters()), {"*": 1}, "by name patterns needs a module or named param"),
        (
            [{"params": [torch.zeros(2)], "name": "head"}],
            {"*": 1},
            "by name patterns needs a module or named param",
        ),
        (groups_of(net(), threshold=1.0, name="head"), {"*": 1}, "head may have none of its own"),
        (groups_of(net(), clip=False), {"0.*": 1, "*": 1}, "it matches is excluded or not clipped"),
    ],
)
def test_what_rules_nothing_or_leaves_some_unruled_is_refused_in_a_line(params, threshold, message):
    for make in (Clipper, lambda p, t: cliplab.create("norm", p, threshold=t)):
        with pytest.raises(ValueError, match=message) as error:
            make(params, threshold)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


def test_what_is_excluded_is_not_ruled():
    assert ruled(net(), {"*.bias": 1, "*": 2}, exclude="1.*") == {
        "*.bias": ["0.bias"],
        "*": ["0.weight"],
    }
    with pytest.raises(
        ValueError, match=re.escape("'1.*' rules nothing: all that it matches is e")
    ):
        ruled(net(), {"1.*": 1, "*": 2}, exclude="1.*")


def test_groups_without_thresholds_are_divided_by_the_patterns_alone():
    assert ruled(groups_of(net()), {"*.bias": 1, "*": 2}) == {
        "*.bias": ["0.bias", "1.0.bias"],
        "*": ["0.weight", "1.0.weight", "1.1.weight"],
    }


# --- what becomes of a gradient -------------------------------------------------------------------


RULES = {"*.bias": MovingAverage(0.5, window=3, warmup=1), "0.*": 0.1, "*": math.inf}


def with_batch(model, step=0):
    torch.manual_seed(step)
    model.zero_grad()
    model(torch.randn(3, 4)).square().sum().mul(10).backward()
    return model


def by_pattern(model, patterns):
    named = dict(model.named_parameters())
    return {p: [named[n] for n in names] for p, names in expected(patterns, [*named]).items()}


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit"])
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise"])
def test_each_pattern_is_clipped_as_by_a_clipper_of_its_own(scope, mode):
    torch.manual_seed(0)
    model = net()
    other = net()
    other.load_state_dict(model.state_dict())
    clipper = Clipper(model, RULES, scope=scope, mode=mode)
    alone = [
        Clipper(params, RULES[p], scope=scope, mode=mode)
        for p, params in by_pattern(other, RULES).items()
    ]
    for step in range(4):
        with_batch(model, step)
        with_batch(other, step)
        report = clipper.clip()
        reports = [each.clip() for each in alone]
        for name in ("norm_before", "threshold", "factor", "clipped"):
            parts = torch.cat([getattr(r, name).reshape(-1) for r in reports])
            torch.testing.assert_close(getattr(report, name).reshape(-1), parts)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    if scope in ("global", "group"):
        assert clipper.history.labels == list(RULES)


def test_entries_are_clamped_to_the_limit_of_their_pattern():
    model = with_batch(net())
    raw = [p.grad.clone() for p in model.parameters()]
    Clipper(model, {"*.bias": 0.5, "0.*": 0.1, "*": math.inf}, scope="element").clip()
    for (name, p), grad in zip(model.named_parameters(), raw, strict=True):
        limit = 0.5 if name.endswith("bias") else 0.1 if name.startswith("0.") else math.inf
        assert torch.equal(p.grad, grad.clamp(-limit, limit))


def test_members_take_one_policy():
    params = [("a", nn.Parameter(torch.zeros(2, 3))), ("b", nn.Parameter(torch.zeros(2)))]
    with pytest.raises(ValueError, match='scope "member" takes one policy'):
        Clipper(params, {"a": 1.0, "*": 2.0}, scope="member")


@pytest.mark.parametrize("method", ["norm", "tensor_norm", "normalise", "value"])
def test_methods_with_a_threshold_take_one_by_name(method):
    model = with_batch(net())
    clipper = cliplab.create(method, model, threshold={"*.bias": 0.5, "*": 1.0})
    clipper.clip()
    shown = "{'*.bias': Fixed(value=0.5), '*': Fixed(value=1.0)}"
    assert repr(clipper).startswith(f"Clipper({shown}, scope=")


def test_a_resumed_run_goes_on_as_if_never_stopped():
    def run(clipper, model, steps):
        limits = []
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        with clipper.attach(optimizer):
            for step in steps:
                with_batch(model, step)
                optimizer.step()
                limits.append(clipper.history.threshold[-1].tolist())
        return limits

    torch.manual_seed(0)
    model = net()
    whole = run(Clipper(model, RULES), model, range(6))
    first, second = Clipper(model, RULES), Clipper(model, RULES)
    before = run(first, model, range(3))
    second.load_state_dict(first.state_dict())
    assert before + run(second, model, range(3, 6)) == whole
    assert len({limits[0] for limits in whole}) > 1


def test_a_state_of_other_patterns_is_refused():
    clipper = Clipper(net(), {"*.bias": 1.0, "*": 2.0})
    other = Clipper(net(), {"0.*": 1.0, "*": 2.0})
    with pytest.raises(ValueError, match=re.escape("expected ['*', '0.*'], got ['*.bias', '*']")):
        other.load_state_dict(clipper.state_dict())
