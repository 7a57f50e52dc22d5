"""What is attached to: wrappers, what is no optimizer, and parameters that come and go."""

import gc
import warnings
import weakref

import pytest
import torch
from making import with_gradients
from needs import need
from torch import nn
from torch.distributed.fsdp import fully_shard

from cliplab import Clipper


class Wraps:
    """Holds an optimizer and passes everything on, like many a library's."""

    def __init__(self, inner, name):
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(plain(inner), factor=1.0)
        setattr(self, name, inner)
        self.inner_step = inner.step
        self.param_groups = inner.param_groups

    def step(self):
        self.inner_step()


class Poses(torch.optim.Optimizer):
    """The same, as an ``Optimizer`` that was never initialised as one."""

    def __init__(self, inner, name):
        setattr(self, name, inner)
        self.inner_step = inner.step
        self.param_groups = inner.param_groups

    def step(self, closure=None):
        self.inner_step()


class Average:
    def average_parameters(self, params):
        self.seen = params


def plain(optimizer):
    """The innermost optimizer."""
    while isinstance(optimizer, Wraps | Poses):
        held = vars(optimizer).values()
        (optimizer,) = [v for v in held if isinstance(v, Wraps | torch.optim.Optimizer)]
    return optimizer


NAMES = ["optimizer", "original_optimizer", "base_optimizer", "base", "_optimizer", "optim", "o"]


def post_local_sgd(inner):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own
        from torch.distributed.optim import PostLocalSGDOptimizer
    return PostLocalSGDOptimizer(inner, Average())


WRAPPERS = {f"Wraps {name}": (lambda o, name=name: Wraps(o, name)) for name in NAMES}
WRAPPERS |= {f"Poses {name}": (lambda o, name=name: Poses(o, name)) for name in NAMES}
WRAPPERS["twice"] = lambda o: Wraps(Poses(o, "optimizer"), "base")
WRAPPERS["post-local SGD"] = post_local_sgd


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_wrapper_is_attached_to_by_the_optimizer_that_steps(wrap):
    params = with_gradients([3.0, 4.0])
    optimizer = wrap(torch.optim.SGD(params, lr=1.0))
    clipper = Clipper(params, 1.0)
    assert repr(clipper.attach(optimizer)) == "Attachment(SGD, at work)"
    optimizer.step()
    assert len(clipper.history) == 1
    assert params[0].tolist() == pytest.approx([0.4, 0.2])
    clipper.detach()
    optimizer.step()
    assert len(clipper.history) == 1


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("settings", [{"mode": "skip"}, {"nonfinite": "skip"}])
def test_a_wrapper_cannot_be_skipped_and_says_what_can(wrap, settings):
    params = with_gradients([3.0, 4.0])
    inner = torch.optim.SGD(params, lr=1.0)
    clipper = Clipper(params, 1.0, **settings)
    with pytest.raises(ValueError, match=r"cannot skip a step of \w+, which may .* than the SGD"):
        clipper.attach(wrap(inner))
    clipper.attach(inner)


def test_schedulefrees_wrapper_is_attached_to_by_its_base():
    schedulefree = need("schedulefree", "parity")
    params = with_gradients([3.0, 4.0])
    optimizer = schedulefree.ScheduleFreeWrapper(torch.optim.SGD(params, lr=1.0), momentum=0.9)
    optimizer.train()
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    optimizer.step()
    assert clipper.history.norm_before.tolist() == [5.0]


class Keras:
    def apply(self, gradients, variables):
        raise NotImplementedError


def two_optimizers(params):
    wrapper = Wraps(torch.optim.SGD(params), "one")
    wrapper.other = torch.optim.SGD(params)
    return wrapper


def no_optimizer(params):
    wrapper = Poses(torch.optim.SGD(params), "optimizer")
    del wrapper.optimizer
    return wrapper


REFUSED = {
    "module": (lambda p: nn.Linear(2, 2), "got the module Linear: pass the optimizer"),
    "keras": (lambda p: Keras(), "attach takes a torch.optim.Optimizer, got Keras"),
    "none": (lambda p: None, "got NoneType"),
    "class": (lambda p: torch.optim.SGD, "got type"),
    "list": (lambda p: [torch.optim.SGD(p)], "got list"),
    "scaler": (lambda p: torch.amp.GradScaler("cpu"), "got GradScaler"),
    "parameters": (lambda p: p, "got list"),
    "scheduler": (
        lambda p: torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD(p)),
        "got ConstantLR",
    ),
    "two": (two_optimizers, "Wraps runs no step hooks and holds 2 optimizers"),
    "nothing": (no_optimizer, "Poses runs no step hooks and holds no optimizers"),
    "others": (lambda p: torch.optim.SGD(with_gradients([1.0])), "1 of 1 are missing"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_an_attach_that_fails_says_why_and_leaves_the_clipper_free(make, says):
    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, 1.0)
    with pytest.raises(ValueError, match=says) as error:
        clipper.attach(make(params))
    assert len(str(error.value)) < 250
    assert "\n" not in str(error.value)
    optimizer = torch.optim.SGD(params, lr=1.0)
    clipper.attach(optimizer)
    optimizer.step()
    assert len(clipper.history) == 1


# --- detach -----------------------------------------------------------------------------------


def test_a_clipper_is_detached_and_moved_without_a_handle():
    params = with_gradients([3.0, 4.0])
    first, second = (torch.optim.SGD(params, lr=0.1) for _ in range(2))
    clipper = Clipper(params, 1.0)
    clipper.detach()
    clipper.attach(first)
    with pytest.raises(ValueError, match=r"already attached to an optimizer: detach\(\) it first"):
        clipper.attach(second)
    clipper.detach()
    clipper.detach()
    first.step()
    assert len(clipper.history) == 0
    handle = clipper.attach(second)
    second.step()
    assert len(clipper.history) == 1
    handle.remove()
    assert repr(handle) == "Attachment(SGD, removed)"
    clipper.attach(first)


def test_an_attached_clipper_does_not_keep_the_optimizer_alive():
    params = with_gradients([3.0, 4.0])
    optimizer = torch.optim.AdamW(params)
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    optimizer.step()
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    clipper.detach()
    clipper.attach(torch.optim.SGD(params, lr=0.1))


# --- parameters that come, go, freeze and thaw -----------------------------------------------


def layers(frozen=()):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for i in frozen:
        model[i].requires_grad_(False)
    return model


def backward(model):
    model(torch.ones(1, 2)).sum().backward()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("holds", ["all", "trainable"])
def test_frozen_parameters_need_not_be_the_optimizers(holds, fused):
    model = layers(frozen=[0])
    held = [p for p in model.parameters() if p.requires_grad or holds == "all"]
    optimizer = torch.optim.SGD(held, lr=0.1, fused=fused)
    clipper = Clipper(model, 1e-3)
    clipper.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
    assert clipper.history.clipped.tolist() == [True] * 3


def test_a_parameter_frozen_later_may_leave_the_optimizer():
    model = layers()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    optimizer.add_param_group({"params": model[1].parameters(), "lr": 0.2})
    clipper = Clipper(model, 1.0)
    clipper.attach(optimizer)
    backward(model)
    optimizer.step()
    model[0].requires_grad_(False)
    optimizer.zero_grad()
    optimizer.param_groups.pop(0)
    backward(model)
    optimizer.step()
    assert clipper.history.lr.tolist() == pytest.approx([0.1, 0.2])


def test_a_parameter_thawed_later_that_is_not_the_clippers_is_warned_of_once():
    model = layers(frozen=[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipper = Clipper(model[1], 1.0)
    clipper.attach(optimizer)
    backward(model)
    optimizer.step()
    model[0].requires_grad_(True)
    with pytest.warns(UserWarning, match="steps 2 more parameters that the clipper does not clip"):
        optimizer.step()
    optimizer.step()
    assert len(clipper.history) == 3


@pytest.mark.parametrize("fused", [False, True])
def test_parameters_added_later_are_warned_of_once(monkeypatch, fused):
    monkeypatch.setattr("cliplab.clipper.fast_step.WORTH", 0)
    params = with_gradients([3.0, 4.0])
    optimizer = torch.optim.SGD(params, lr=1.0, fused=fused)
    Clipper(params, 1.0).attach(optimizer)
    (new,) = with_gradients([30.0, 40.0])
    optimizer.add_param_group({"params": [new]})
    with pytest.warns(UserWarning, match=r"1 more parameters.*detach\(\)") as warned:
        optimizer.step()
    assert len(warned) == 1
    assert new.tolist() == [-29.0, -39.0]  # not scaled by a factor that is none of its own
    assert params[0].tolist() == pytest.approx([0.4, 0.2])
    optimizer.step()


def test_frozen_parameters_added_later_are_nobodys():
    params = with_gradients([3.0, 4.0])
    optimizer = torch.optim.SGD(params, lr=1.0)
    Clipper(params, 1.0).attach(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2), requires_grad=False)]})
    optimizer.step()


def pop(optimizer, new):
    optimizer.param_groups.pop(0)


def replace(optimizer, new):
    optimizer.param_groups[0]["params"][0] = new


def replace_group(optimizer, new):
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "params": [new]}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("change", [pop, replace, replace_group])
def test_parameters_that_are_gone_are_an_error(change, fused):
    params = with_gradients([3.0, 4.0], [1.0])
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1.0, fused=fused)
    clipper = Clipper(params, 1.0)
    clipper.attach(optimizer)
    change(optimizer, with_gradients([30.0, 40.0])[0])
    for _ in range(2):
        with pytest.raises(ValueError, match="1 of 2 are missing; build the clipper from what"):
            optimizer.step()
    assert params[1].tolist() == [1.0]
    clipper.detach()
    optimizer.step()


def test_loading_a_state_and_regrouping_are_no_change():
    params = with_gradients([3.0], [4.0])
    optimizer = torch.optim.SGD([{"params": [params[0]], "lr": 0.1}, {"params": [params[1]]}])
    clipper = Clipper(params[1:], 1.0)
    clipper.attach(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
        first, second = optimizer.param_groups
        first["params"] += second["params"]
        optimizer.param_groups.pop()
        optimizer.step()
    assert clipper.history.lr.tolist() == pytest.approx([0.001, 0.1])


@pytest.fixture
def one_rank():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_clipper_built_before_fully_shard_says_so(one_rank):
    model = layers()
    early = Clipper(model, 1.0)
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="4 of 4 are missing; build the clipper after fully_shard"):
        early.attach(optimizer)
    Clipper(model, 1.0).attach(optimizer)
    backward(model)
    optimizer.step()
