import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import METHODS, optimizer_for, with_gradients
from needs import need
from policies import leaves
from torch import nn

import cliplab
from cliplab import Clipper, Decay, Fixed, MovingAverage, NonFiniteGradientError, Percentile, Switch


def grads(params):
    return [p.grad.tolist() for p in params]


# --- scopes -----------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=8), st.floats(1e-3, 1e3))
def test_global_norm_is_at_most_the_threshold_and_keeps_the_direction(values, threshold):
    params = with_gradients(values)
    before = params[0].grad.clone()
    report = Clipper(params, threshold).clip()
    after = params[0].grad
    assert after.norm() <= threshold * (1 + 1e-5)
    if before.norm() <= threshold:
        assert torch.equal(after, before)
    torch.testing.assert_close(after, before * report.factor)
    torch.testing.assert_close(report.norm_after, after.norm(), rtol=1e-5, atol=1e-30)


def test_no_eps_a_norm_at_the_threshold_is_untouched():
    params = with_gradients([3.0, 4.0])
    report = Clipper(params, 5.0).clip()
    assert grads(params) == [[3.0, 4.0]]
    assert not report.clipped


def test_tensor_scope_clips_each_tensor_by_its_own_norm():
    params = with_gradients([3.0, 4.0], [0.3, 0.4])
    report = Clipper(params, 1.0, scope="tensor").clip()
    assert grads(params)[0] == pytest.approx([0.6, 0.8])
    assert grads(params)[1] == pytest.approx([0.3, 0.4])
    assert report.clipped.tolist() == [True, False]


def test_tensor_scope_with_a_gradient_missing_on_some_steps():
    params = with_gradients([3.0, 4.0], [6.0, 8.0])
    clipper = Clipper(params, MovingAverage(1.0, window=2, warmup=1), scope="tensor")
    clipper.clip()
    params[0].grad = None
    report = clipper.clip()
    assert report.norm_before.tolist() == [0.0, 10.0]
    assert clipper.policy.state["count"].tolist() == [1, 2]


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6), st.floats(0.01, 5))
def test_element_scope_is_clamp(values, limit):
    params = with_gradients(values)
    expected = params[0].grad.clamp(-limit, limit)
    report = Clipper(params, limit, scope="element").clip()
    assert torch.equal(params[0].grad, expected)
    assert bool(report.clipped) == any(abs(value) > torch.tensor(limit) for value in values)
    assert report.norm_before == max(map(abs, values))


def test_entries_that_are_all_within_are_not_written_to():
    (param,) = params = with_gradients([3.0, -4.0])
    version = param.grad._version
    report = Clipper(params, 4.0, scope="element").clip()
    assert param.grad._version == version
    assert (float(report.norm_before), float(report.factor)) == (4.0, 1.0)
    assert not report.clipped


def test_member_scope_equals_a_global_clipper_per_member():
    generator = torch.Generator().manual_seed(3)
    stacked = [torch.randn(4, *s, generator=generator) * 3 for s in [(2, 3), (5,)]]
    params = with_gradients(*stacked)
    Clipper(params, 2.0, scope="member").clip()
    for m in range(4):
        alone = with_gradients(*[s[m] for s in stacked])
        Clipper(alone, 2.0).clip()
        for p, q in zip(params, alone, strict=True):
            torch.testing.assert_close(p.grad[m], q.grad)


def test_switch_gives_members_their_own_policies():
    params = with_gradients([[3.0, 4.0], [3.0, 4.0]])
    policy = Switch([([True, False], Fixed(1.0)), ([False, True], Fixed(math.inf))])
    Clipper(params, policy, scope="member").clip()
    assert params[0].grad[0].norm().item() == pytest.approx(1.0)
    assert params[0].grad[1].tolist() == [3.0, 4.0]


def test_only_lr_times_threshold_matters_when_every_step_is_clipped_bit_for_bit():
    def train(lr, threshold):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        clipper = Clipper(model, threshold)
        clipper.attach(optimizer)
        for _ in range(30):
            optimizer.zero_grad()
            (model(torch.randn(16, 4)) * 100).square().mean().backward()
            optimizer.step()
        assert clipper.history.clipped.all()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(train(0.1, 0.5), train(0.2, 0.25))


# --- which parameters -------------------------------------------------------------------------


def test_modules_groups_names_and_duplicates():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert len(Clipper(model).params) == 4
    assert len(Clipper(model, exclude="*.bias").params) == 2
    assert len(Clipper(model.named_parameters(), exclude=["1.*"]).params) == 2
    assert len(Clipper([model[0].weight, model[0].weight]).params) == 1
    groups = [{"params": [model[0].weight]}, {"params": [model[1].weight], "clip": False}]
    assert len(Clipper(groups).params) == 1
    assert Clipper([{"params": model[0].weight}]).params[0] is model[0].weight


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Clipper(p, -1.0), "got -1.0"),
        (lambda p: Clipper(p, math.nan), "got nan"),
        (lambda p: Clipper(p, True), "got True"),
        (lambda p: Clipper(p, "1.0"), "got '1.0'"),
        (lambda p: Clipper(p, scope="layer"), "scope must be one of global, .*, got 'layer'"),
        (lambda p: Clipper(p, mode="half"), "one of rescale, soft, skip, normalise, got 'half'"),
        (lambda p: Clipper(p, nonfinite="ignore"), "got 'ignore'"),
        (lambda p: Clipper(p, norm_type=-1), "norm_type must be a number > 0 or inf, got -1"),
        (lambda p: Clipper([]), "no parameters to clip"),
        (lambda p: Clipper([1.0]), "parameters must be tensors, got 1.0"),
        (lambda p: Clipper(p, exclude="a*"), "needs a module or named parameters"),
        (lambda p: Clipper(p, Decay(), scope="element"), "needs a fixed threshold"),
        (lambda p: Clipper(p, scope="element", mode="skip"), 'mode "skip" needs scope'),
        (
            lambda p: Clipper(p, scope="element", mode="normalise"),
            'mode "normalise" cannot be used',
        ),
        (
            lambda p: Clipper([{"params": p, "threshold": 2.0}], scope="member"),
            'scope "member" takes one policy',
        ),
        (lambda p: Clipper([*p, nn.Parameter(torch.zeros(3))], scope="member"), "leading axis"),
    ],
)
def test_bad_arguments_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make(with_gradients([1.0, 2.0]))


# --- non-finite gradients ---------------------------------------------------------------------

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("scope", ["global", "tensor", "element"])
def test_raise_names_the_step_and_leaves_everything(bad, scope):
    params = with_gradients([1.0, 2.0], [bad, 4.0])
    clipper = Clipper(params, 1.0, scope=scope)
    with pytest.raises(NonFiniteGradientError, match="at step 0"):
        clipper.clip()
    assert params[0].grad.tolist() == [1.0, 2.0]
    assert len(clipper.history) == 0


@pytest.mark.parametrize("bad", BAD)
def test_zero_zeroes_only_the_parts_concerned(bad):
    params = with_gradients([3.0, 4.0], [bad, 4.0])
    Clipper(params, 1.0, scope="tensor", nonfinite="zero").clip()
    assert grads(params) == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    params = with_gradients([[3.0, 4.0], [bad, 4.0]])
    Clipper(params, 1.0, scope="member", nonfinite="zero").clip()
    assert grads(params) == [[pytest.approx([0.6, 0.8]), [0.0, 0.0]]]
    for scope in ("global", "element"):
        params = with_gradients([3.0, 4.0], [bad, 4.0])
        Clipper(params, 1.0, scope=scope, nonfinite="zero").clip()
        assert grads(params) == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("nonfinite", ["skip", "zero", "propagate"])
@pytest.mark.parametrize("policy", [Decay, MovingAverage, Percentile])
def test_a_nonfinite_size_never_enters_the_policy(bad, nonfinite, policy):
    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, policy(), nonfinite=nonfinite)
    clipper.clip()
    before = clipper.policy.state_dict()
    params[0].grad = torch.tensor([bad, 1.0])
    clipper.clip()
    assert all(map(torch.equal, leaves(before), leaves(clipper.policy.state_dict())))


def test_skip_leaves_every_gradient_alone():
    for scope in ("global", "tensor", "element"):
        params = with_gradients([3.0, 4.0], [math.inf])
        assert Clipper(params, 1.0, scope=scope, nonfinite="skip").clip().skipped.all()
        assert grads(params) == [[3.0, 4.0], [math.inf]]


def test_without_a_limit_one_bad_entry_stays_one_bad_entry():
    params = with_gradients([math.inf, 1.0])
    cliplab.create("none", params, nonfinite="propagate").clip()
    assert params[0].grad.tolist() == [math.inf, 1.0]


@pytest.mark.parametrize("scope", ["global", "tensor", "element", "member"])
@pytest.mark.parametrize("nonfinite", ["raise", "zero", "skip", "propagate"])
def test_no_gradient_at_all_is_a_step_of_size_zero(scope, nonfinite):
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    clipper = Clipper(params, 1.0, scope=scope, nonfinite=nonfinite)
    with pytest.warns(UserWarning, match="no gradient at all"):
        report = clipper.clip()
    assert not report.norm_before.any()
    assert not report.skipped.any()


@pytest.mark.parametrize("scope", ["global", "tensor", "member"])
def test_the_factor_keeps_its_precision_on_half_gradients(scope):
    p = nn.Parameter(torch.zeros(1, 1000, dtype=torch.float16))
    p.grad = torch.full_like(p, 3000.0)
    Clipper([p], 1e-2, scope=scope).clip()
    assert p.grad.float().norm().item() == pytest.approx(1e-2, rel=0.03)


def test_history_holds_no_graph_and_no_alias():
    p = nn.Parameter(torch.ones(2))
    (p.grad,) = torch.autograd.grad((p**2).sum(), p, create_graph=True)
    clipper = Clipper([p], 1.0)
    report = clipper.clip()
    report.threshold.zero_()
    assert not clipper.history.norm_before.requires_grad
    assert clipper.history.threshold.tolist() == [1.0]


def test_propagate_is_what_the_arithmetic_gives():
    params = with_gradients([math.nan, 1.0])
    Clipper(params, 1.0, nonfinite="propagate").clip()
    assert params[0].grad.isnan().all()


# --- state and history ------------------------------------------------------------------------


class Whole:
    """Everything that a run has to save."""

    def __init__(self, method):
        torch.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        parameters = self.model.parameters()
        self.optimizer = optimizer_for(method, parameters, lr=0.5, momentum=0.9)
        self.clipper = cliplab.create(method, self.model)
        self.clipper.attach(self.optimizer)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "clipper": self.clipper}

    def train(self, first, last):
        for step in range(first, last):
            data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            loss = (self.model(data) * (1 + step)).square().mean()
            loss.backward()
            self.clipper.observe(loss)
            self.optimizer.step()
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def state(self):
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load(self, state):
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


@pytest.mark.parametrize("method", METHODS)
@given(cut=st.integers(0, 11))
def test_a_resumed_run_is_bit_identical(method, cut):
    whole = Whole(method).train(0, 12)
    run, buffer = Whole(method), io.BytesIO()
    run.train(0, cut)
    torch.save(run.state(), buffer)
    buffer.seek(0)
    again = Whole(method)
    again.load(torch.load(buffer, weights_only=True))
    assert again.clipper.steps == cut
    assert torch.equal(again.train(cut, 12), whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", [1, 7])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_run_resumed_from_a_distributed_checkpoint_is_bit_identical(method, cut, tmp_path):
    import torch.distributed.checkpoint as dcp

    whole = Whole(method).train(0, 12)
    run = Whole(method)
    run.train(0, cut)
    dcp.save(run.state(), checkpoint_id=tmp_path, no_dist=True)
    again = Whole(method)
    again.train(0, 1)  # momentum buffers to load into
    state = again.state()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    again.load(state)
    assert torch.equal(again.train(cut, 12), whole)


def test_history_to_frame():
    need("pandas", "lab")
    params = with_gradients([3.0, 4.0], [0.0])
    clipper = Clipper(params, 1.0, scope="tensor")
    optimizer = torch.optim.SGD(params, lr=0.5)
    clipper.attach(optimizer)
    for _ in range(3):
        params[0].grad = torch.tensor([3.0, 4.0])
        optimizer.step()
    frame = clipper.history.to_frame()
    assert list(frame["step"]) == [0, 0, 1, 1, 2, 2]
    assert list(frame["norm_before"]) == [5.0, 0.0] * 3
    assert list(frame["effective_lr"]) == pytest.approx([0.1, 0.5] * 3)
    assert clipper.history.clip_fraction.tolist() == [1.0, 0.0]
    assert clipper.history.excess.tolist() == [4.0, 0.0]


def test_the_threshold_object_is_copied():
    policy = Decay()
    first, second = Clipper(with_gradients([1.0]), policy), Clipper(with_gradients([9.0]), policy)
    second.clip()
    assert first.policy is not second.policy
    assert first.policy.state["hits"].tolist() == [0]


# --- methods by name --------------------------------------------------------------------------


def test_methods_have_sources_and_take_clipper_settings():
    names = {m.name for m in cliplab.list_methods()}
    assert names >= {"none", "value", "norm", "tensor_norm", "decay", "moving_average", "autoclip"}
    assert all(m.summary and m.source for m in cliplab.list_methods())
    params = with_gradients([3.0, 4.0])
    clipper = cliplab.create("norm", params, threshold=2.0, mode="skip")
    assert clipper.clip().skipped
    with pytest.raises(ValueError, match=r"unknown method 'clip' .*; known: adagc, adamw_clip"):
        cliplab.create("clip", params)
    with pytest.raises(ValueError, match="norm has no parameter 'percentile'"):
        cliplab.create("norm", params, percentile=3)
