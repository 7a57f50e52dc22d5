"""A skipped step is no step: for torch's optimizers, others, and what goes around their step."""

import copy
import inspect
import math
import pickle
import warnings

import pytest
import torch
from making import with_gradients
from needs import need
from torch import nn

from cliplab import Clipper

SKIPPING = [{"mode": "skip"}, {"nonfinite": "skip"}]
SPIKES = {"mode": [30.0, 40.0], "nonfinite": [math.nan, 1.0]}


class Own(torch.optim.Optimizer):
    """As many write theirs: decays, and counts in its groups, in itself and in its state."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "step": 0})
        self.taken, self.seen = 0, {"steps": 0}

    @torch.no_grad()
    def step(self, closure=None):
        self.taken += 1
        self.seen["steps"] += 1
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                p.mul_(0.9)
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)
                    self.state[p]["step"] = self.state[p].get("step", 0) + 1


class Nested(Own):
    def step(self, closure=None):
        return super().step(closure)


class Lookahead(torch.optim.Optimizer):
    """Goes back half the way to where it was two steps ago."""

    def __init__(self, params):
        params = list(params)
        super().__init__(params, {"lr": 0.1})
        self.inner, self.counter = torch.optim.SGD(params, lr=0.1), 0
        self.slow = [p.detach().clone() for p in params]

    @torch.no_grad()
    def step(self, closure=None):
        self.inner.step()
        self.counter += 1
        if self.counter % 2 == 0:
            for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
                p.copy_(slow.lerp_(p, 0.5))


TORCHS = [  # all that step on dense gradients without a closure
    kind
    for name, kind in sorted(vars(torch.optim).items())
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam")
]


def frozen_in_time(value):
    """A value, by its numbers, that the next step cannot change."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().flatten().tolist()
    if isinstance(value, dict):
        named = ((k if isinstance(k, str | int) else id(k), v) for k, v in value.items())
        return {k: frozen_in_time(v) for k, v in named if k != "params"}
    if isinstance(value, list | tuple):
        return [frozen_in_time(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else None


def everything(optimizer):
    parts = ("state", "param_groups", "taken", "seen", "counter", "slow")
    held = {name: frozen_in_time(getattr(optimizer, name, None)) for name in parts}
    return repr(held), frozen_in_time([p for g in optimizer.param_groups for p in g["params"]])


def assert_a_spike_is_no_step(make, settings, shape=(2,)):
    cause = next(iter(settings))
    params = [nn.Parameter(torch.ones(*shape)), nn.Parameter(torch.ones(*shape))]
    optimizer = make(params)
    clipper = Clipper(params, 10.0, **settings)
    clipper.attach(optimizer)
    for spikes in (True, False, True, True, False, False, True):
        for p in params:
            p.grad = torch.full(shape, 0.3)
        if spikes:
            params[0].grad[...] = torch.tensor(SPIKES[cause])
        before, raw = everything(optimizer), params[0].grad.clone()
        optimizer.step()
        assert (everything(optimizer) == before) is spikes
        if spikes:
            assert torch.equal(params[0].grad.nan_to_num(), raw.nan_to_num())
    assert clipper.history.skipped.tolist() == [True, False, True, True, False, False, True]


@pytest.mark.parametrize("settings", SKIPPING, ids=SPIKES.keys())
@pytest.mark.parametrize("kind", [Own, Nested, Lookahead])
def test_a_skipped_step_of_an_optimizer_that_counts_is_none(kind, settings):
    assert_a_spike_is_no_step(kind, settings)


@pytest.mark.parametrize("settings", SKIPPING, ids=SPIKES.keys())
@pytest.mark.parametrize("kind", TORCHS)
def test_a_skipped_step_of_an_optimizer_of_torch_is_none(kind, settings):
    assert_a_spike_is_no_step(lambda params: kind(params, lr=0.1), settings, shape=(2, 2))


@pytest.mark.parametrize("settings", SKIPPING, ids=SPIKES.keys())
@pytest.mark.parametrize("name", ["SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree"])
def test_a_skipped_step_of_schedulefree_is_none(name, settings):
    schedulefree = need("schedulefree", "parity")

    def make(params):
        optimizer = getattr(schedulefree, name)(params, lr=0.1)
        optimizer.train()
        return optimizer

    assert_a_spike_is_no_step(make, settings)


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("settings", SKIPPING, ids=SPIKES.keys())
@pytest.mark.parametrize(
    "name",
    ["AdaBelief", "Adan", "CAME", "DAdaptAdam", "Lamb", "Lion", "SOAP", "StableAdamW", "Lookahead"],
)
def test_a_skipped_step_of_pytorch_optimizer_is_none(name, settings):
    library = need("pytorch_optimizer", "parity")

    def make(params):
        if name == "Lookahead":
            return library.Lookahead(torch.optim.SGD(params, lr=0.1), k=2)
        return getattr(library, name)(params, lr=0.1)

    assert_a_spike_is_no_step(make, settings, shape=(2, 2))


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_ranger21_is_not_called_without_gradients():
    library = need("pytorch_optimizer", "parity")
    assert_a_spike_is_no_step(
        lambda params: library.Ranger21(params, num_iterations=9, num_warm_up_iterations=1),
        {"mode": "skip"},
        shape=(2, 2),
    )


# --- what goes around a step ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Own, Nested, torch.optim.SGD])
@pytest.mark.parametrize("scheduled", ["before attach", "after attach", "both", "never"])
def test_a_scheduler_sees_the_steps_and_detach_leaves_none_of_ours(kind, scheduled):
    params = with_gradients([30.0, 40.0])
    optimizer = kind(params, lr=0.1)

    def schedule(when):
        if scheduled in (when, "both"):
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5**k)
        return None

    first = schedule("before attach")
    clipper = Clipper(params, 1.0, mode="skip")
    clipper.attach(optimizer)
    second = schedule("after attach")
    scheduler = second or first
    weights = [1.0, 1.0]
    for _ in range(2):
        optimizer.step()
        if scheduler is not None:
            scheduler.step()  # warns if it missed the step
    assert params[0].tolist() == weights
    clipper.detach()
    optimizer.step()
    assert params[0].tolist() != weights
    assert len(clipper.history) == 2
    if scheduled == "never":
        assert "step" not in vars(optimizer)
    clipper.attach(optimizer)
    optimizer.step()
    assert len(clipper.history) == 3


@pytest.mark.parametrize("kind", [Own, Nested])
def test_a_copy_of_the_optimizer_is_neither_clipped_nor_bound_to_it(kind):
    params = with_gradients([0.3, 0.4])
    optimizer = kind(params)
    clipper = Clipper(params, 1.0, mode="skip")
    clipper.attach(optimizer)
    signature = inspect.signature(kind(params).step)
    assert inspect.signature(optimizer.step) == signature
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        other.taken, other.seen = 0, {"steps": 0}  # torch copies groups and state alone
        (twin,) = other.param_groups[0]["params"]
        twin.grad = torch.tensor([30.0, 40.0])
        other.step()
        assert twin.tolist() == pytest.approx([0.9 - 3.0, 0.9 - 4.0])
    assert params[0].tolist() == [1.0, 1.0]
    assert len(clipper.history) == 0


def test_a_step_taken_hold_of_before_attach_is_an_error_that_says_what_to_do():
    params = with_gradients([0.3, 0.4])
    optimizer = Own(params)
    step = optimizer.step
    clipper = Clipper(params, 1.0, mode="skip")
    clipper.attach(optimizer)
    with pytest.raises(RuntimeError, match="attach first, then hand the optimizer on"):
        step()
    assert params[0].tolist() == [1.0, 1.0]
    optimizer.step()
    assert len(clipper.history) == 1


@pytest.mark.parametrize("scaled", [False, True])
def test_hooks_and_scalers_see_that_no_step_was_taken(scaled):
    params = with_gradients([0.0, 0.0])
    optimizer = Own(params)
    clipper = Clipper(params, 1.0, mode="skip")
    clipper.attach(optimizer)
    taken = []
    optimizer.register_step_post_hook(lambda *_: taken.append(len(clipper.history)))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled)
    for size in (0.1, 10.0, 0.2):
        optimizer.zero_grad()
        scaler.scale((params[0] * size).sum()).backward()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scaler.step(optimizer)
        scaler.update()
    assert taken == [1, 3]
    assert optimizer.taken == 2
    assert clipper.history.skipped.tolist() == [False, True, False]


def test_two_skipping_clippers_leave_the_optimizer_as_they_found_it():
    params = with_gradients([0.3, 0.4], [30.0, 40.0])
    optimizer = Own(params)
    clippers = [Clipper(params[:1], 1.0, mode="skip"), Clipper(params[1:], 1.0, mode="skip")]
    for clipper in clippers:
        clipper.attach(optimizer)
    optimizer.step()
    assert optimizer.taken == 0
    for clipper in clippers:
        clipper.detach()
    optimizer.step()
    assert optimizer.taken == 1
    assert [c.history.skipped.tolist() for c in clippers] == [[False], [True]]
