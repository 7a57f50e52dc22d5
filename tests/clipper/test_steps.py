"""What is a step: not one within a step, nor the one that makes an optimizer's state."""

import math

import pytest
import torch
from making import with_gradients
from policies import leaves
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict

import cliplab
from cliplab import Clipper, Percentile


class Once(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class Twice(Once):
    def step(self, closure=None):
        return super().step(closure)


class Thrice(Twice):
    def step(self, closure=None):
        return super().step(closure)


class Fails(Once):
    """Its inner step raises when told to."""

    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("inside")
        return super().step(closure)


class Catches(Fails):
    def step(self, closure=None):
        try:
            return super().step(closure)
        except RuntimeError:
            return None


class Lookahead(torch.optim.Optimizer):
    """Holds an optimizer of the same parameters, and runs the hooks of a step as that one does."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.param_groups = inner, inner.param_groups
        self._optimizer_step_pre_hooks = inner._optimizer_step_pre_hooks
        self._optimizer_step_post_hooks = inner._optimizer_step_post_hooks

    def step(self, closure=None):
        self.inner.step()


@pytest.fixture(autouse=True)
def _hooked():
    """Torch runs hooks in a base class's step from the first instance of that class on."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    for kind in (Once, Twice, Fails):
        kind([nn.Parameter(torch.zeros(1))], lr=0.1)


NESTED = {
    "once": Once,
    "twice": Twice,
    "thrice": Thrice,
    "lookahead": lambda params, **kw: Lookahead(torch.optim.SGD(params, **kw)),
    "lookahead of nested": lambda params, **kw: Lookahead(Twice(params, **kw)),
}


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise", "skip"])
def test_nested_steps_are_one_step(make, mode):
    params = with_gradients([3.0, 4.0])
    optimizer = make(params, lr=0.1)
    clipper = Clipper(params, 1.0, mode=mode)
    clipper.attach(optimizer)
    optimizer.step()
    assert len(clipper.history) == clipper.steps == 1
    grad = {"rescale": [0.6, 0.8], "soft": [0.5, 2 / 3], "skip": [3.0, 4.0]}.get(mode, [0.6, 0.8])
    assert params[0].grad.tolist() == pytest.approx(grad)
    moved = [0.0, 0.0] if mode == "skip" else grad
    assert params[0].tolist() == pytest.approx([1 - 0.1 * g for g in moved])


@pytest.mark.parametrize("method", ["adagc", "autoclip", "moving_average", "zclip", "spike_skip"])
def test_a_policy_learns_from_a_nested_step_once(method):
    def train(kind):
        torch.manual_seed(0)
        params = with_gradients([1.0, 1.0], [1.0])
        optimizer = kind(params, lr=0.1, momentum=0.9)
        clipper = cliplab.create(method, params)
        clipper.attach(optimizer)
        for _ in range(20):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        return torch.cat([p.detach() for p in params]), clipper.history.threshold

    for nested, plain in zip(train(Thrice), train(torch.optim.SGD), strict=True):
        assert torch.equal(nested.nan_to_num(), plain.nan_to_num())


@pytest.mark.parametrize("mode", ["rescale", "skip"])
def test_a_nested_step_that_raised_is_over(mode):
    params = with_gradients([3.0, 4.0])
    optimizer = Fails(params, lr=0.1)
    clipper = Clipper(params, 10.0, mode=mode)
    clipper.attach(optimizer)
    optimizer.fails = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside"):
            optimizer.step()
    optimizer.fails = False
    optimizer.step()
    assert clipper.steps == 3
    params[0].grad = torch.tensor([30.0, 40.0])
    optimizer.step()
    assert clipper.steps == 4
    assert clipper.history.norm_before.tolist() == pytest.approx([5.0, 5.0, 5.0, 50.0])


def test_an_inner_step_that_raised_within_an_outer_one_does_not_end_it():
    params = with_gradients([3.0, 4.0])
    optimizer = Catches(params, lr=0.1)
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    for fails in (True, False, True, False):
        optimizer.fails = fails
        params[0].grad = torch.tensor([3.0, 4.0])
        optimizer.step()
    assert clipper.history.norm_before.tolist() == [5.0] * 4
    assert params[0].tolist() == pytest.approx([1 - 2 * 0.06, 1 - 2 * 0.08])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own
def test_nested_steps_in_a_compiled_loop_are_one_step():
    params = with_gradients([3.0, 4.0])
    optimizer = Twice(params, lr=0.1)
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(3):
        params[0].grad = torch.tensor([3.0, 4.0])
        step()
    assert clipper.history.norm_before.tolist() == [5.0] * 3


# --- the step that makes an optimizer's state ------------------------------------------------

STATES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adamw, lr a tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nested": lambda p: Thrice(p, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES.keys())
@pytest.mark.parametrize("method", ["autoclip", "spike_skip", "adagc"])
def test_a_checkpoint_of_a_fresh_optimizer_takes_no_step(make, method):
    model = nn.Linear(3, 2)
    optimizer = make(model.parameters())
    clipper = cliplab.create(method, model)
    clipper.attach(optimizer)
    before = leaves(clipper.policy.state_dict())
    get_state_dict(model, optimizer)
    assert clipper.steps == len(clipper.history) == 0
    assert all(map(torch.equal, before, leaves(clipper.policy.state_dict())))
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert clipper.steps == len(clipper.history) == 1


def test_a_clipper_loaded_before_the_optimizer_continues_its_history():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    clipper = Clipper(model, Percentile(50))
    clipper.load_state_dict({**clipper.state_dict(), "steps": 500})
    clipper.attach(optimizer)
    get_state_dict(model, optimizer)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert clipper.history.first_step == 500
    assert clipper.steps == 501


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_warm_up_step_at_learning_rate_0_is_a_step(kind):
    params = with_gradients([3.0, 4.0])
    optimizer = kind(params, lr=0.0)
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    for _ in range(3):
        optimizer.step()
    assert clipper.steps == 3
    assert clipper.history.norm_before[0] == 5.0


@pytest.mark.parametrize("grad", [0.0, math.nan])
def test_zero_gradients_at_a_learning_rate_and_nan_at_none_are_steps(grad):
    params = with_gradients([grad, 0.0])
    clipper = Clipper(params, 1.0, nonfinite="propagate")
    optimizer = torch.optim.SGD(params, lr=0.0 if math.isnan(grad) else 0.1)
    clipper.attach(optimizer)
    optimizer.step()
    assert clipper.steps == 1
