"""Optimizers of other libraries with a clipper attached: the clipped step, or no step at all."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from needs import need
from torch import Tensor, nn

from cliplab import Clipper

peers = need("pytorch_optimizer", "parity")
schedulefree = need("schedulefree", "parity")

# Optimizers that cannot be built from parameters alone, or step on them.
NEED_MORE = {
    "adahessian": "second derivatives",
    "adalomo": "the model, and steps in the backward pass",
    "adammini": "the model",
    "alig": "a closure",
    "bsam": "a closure",
    "demo": "einops and ranks",
    "distributedmuon": "ranks",
    "lbfgs": "a closure",
    "lomo": "the model, and steps in the backward pass",
    "sophiah": "second derivatives",
    "spectralsphere": "matrices alone",
}
MUONS = ("adago", "adamuon", "muon", "muonclip", "normuon")
ARGUMENTS = {"ranger21": {"num_iterations": 100}, "adashift": {"keep_num": 2}}
ARGUMENTS |= {"kron": {"balance_prob": 0.0}}  # else by numpy's dice, which no test seeds
# Those whose step from this start does not depend on the gradients' common scale.
SCALE_FREE = {"adalite", "dadaptlion", "emofact"}
STILL = {"sara"}  # trains only weights below a bound that is 0 here


def by_name(name: str) -> Callable[[list[Tensor]], Any]:
    def build(params: list[Tensor]) -> Any:
        if name in MUONS:
            matrices = [p for p in params if p.ndim == 2]
            others = [p for p in params if p.ndim != 2]
            groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
            return peers.load_optimizer(name)(groups)
        return peers.load_optimizer(name)(params, **ARGUMENTS.get(name, {}))

    return build


OPTIMIZERS = {name: by_name(name) for name in peers.get_supported_optimizers()}
OPTIMIZERS = {name: build for name, build in OPTIMIZERS.items() if name not in NEED_MORE}
OPTIMIZERS |= {
    "schedulefree sgd": lambda ps: schedulefree.SGDScheduleFree(ps, lr=0.1),
    "schedulefree adamw": lambda ps: schedulefree.AdamWScheduleFree(ps, lr=0.1),
    "schedulefree adamw, reference": lambda ps: schedulefree.AdamWScheduleFreeReference(ps, lr=0.1),
    "schedulefree adamw, paper": lambda ps: schedulefree.AdamWScheduleFreePaper(ps, lr=0.1),
    "schedulefree radam": lambda ps: schedulefree.RAdamScheduleFree(ps, lr=0.1),
    "schedulefree wrapper": lambda ps: schedulefree.ScheduleFreeWrapper(
        torch.optim.SGD(ps, lr=0.1)
    ),
    "lookahead": lambda ps: peers.Lookahead(torch.optim.Adam(ps, lr=0.1), k=2),
    "lookahead, momentum pulled back": lambda ps: peers.Lookahead(
        torch.optim.SGD(ps, lr=0.1, momentum=0.9), k=2, pullback_momentum="pullback"
    ),
    "lookahead of schedule-free": lambda ps: peers.Lookahead(peers.ScheduleFreeSGD(ps), k=2),
    "orthograd": lambda ps: peers.OrthoGrad(torch.optim.AdamW(ps, lr=0.1)),
    "orthograd of lookahead": lambda ps: peers.OrthoGrad(
        peers.Lookahead(torch.optim.SGD(ps, lr=0.1), k=2)
    ),
    "trac": lambda ps: peers.TRAC(torch.optim.AdamW(ps, lr=0.1), s_prev=0.1),
    "schedule-free wrapper": lambda ps: peers.ScheduleFreeWrapper(torch.optim.AdamW(ps, lr=0.1)),
}
every_one = pytest.mark.parametrize("name", OPTIMIZERS)


class Run:
    """A small model, an optimizer, and gradients that are the same in every run."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.params = list(self.model.parameters())
        self.optimizer = OPTIMIZERS[name](self.params)
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()

    def take(self, *steps: int, size: float = 1.0, clip: Callable[[], Any] | None = None) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for p in self.params:
                p.grad = size * torch.randn(p.shape, generator=generator)
            if clip is not None:
                clip()
            self.optimizer.step()

    def weights(self) -> list[bytes]:
        return [content(p) for p in self.params]

    def moved(self) -> bool:
        torch.manual_seed(0)
        start = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        return any(
            not torch.equal(a, b) for a, b in zip(self.params, start.parameters(), strict=True)
        )


def content(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def picture(thing: Any, seen: frozenset[int] = frozenset()) -> Any:
    """All that an optimizer remembers, in its groups, its state and itself, to compare."""
    if isinstance(thing, Tensor):
        return str(thing.dtype), tuple(thing.shape), content(thing)
    if id(thing) in seen:
        return "above"
    seen |= {id(thing)}
    if isinstance(thing, dict):
        kept = [(k, picture(v, seen)) for k, v in thing.items() if not callable(v)]
        return [(k if isinstance(k, str) else "a parameter", v) for k, v in kept]
    if isinstance(thing, list | tuple | set):
        return [picture(item, seen) for item in thing]
    return picture(vars(thing), seen) if hasattr(thing, "__dict__") else repr(thing)


def attach(clipper: Clipper, optimizer: Any) -> bool:
    """Whether it is attached; else the optimizer was refused by its name."""
    try:
        clipper.attach(optimizer)
    except ValueError as error:
        refusal = str(error)
    else:
        return True
    assert type(optimizer).__name__ in refusal
    assert "\n" not in refusal
    return False


def test_no_optimizer_is_left_out_unsaid():
    assert set(NEED_MORE) <= set(peers.get_supported_optimizers())
    assert len(OPTIMIZERS) > 110


@every_one
def test_the_steps_are_those_after_clipping_by_hand(name):
    by_hand, attached, raw = Run(name), Run(name), Run(name)
    other = Clipper(by_hand.params, 0.5)
    for run, clip in ((by_hand, other.clip), (raw, None)):
        torch.manual_seed(1)
        run.take(*range(8), clip=clip)
    clipper = Clipper(attached.params, 0.5)
    assert attach(clipper, attached.optimizer)
    torch.manual_seed(1)
    attached.take(*range(8))
    assert clipper.history.clip_fraction == 1.0
    assert len(clipper.history) == 8
    assert attached.weights() == by_hand.weights()
    assert picture(attached.optimizer) == picture(by_hand.optimizer)
    assert by_hand.moved() != (name in STILL)
    if name not in SCALE_FREE | STILL:
        assert by_hand.weights() != raw.weights()


# Has no hooks: what it holds is attached to, and does only a part of its step.
REFUSED = {"schedulefree wrapper"}


@every_one
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("bad", ["too large", "not finite"])
def test_a_skipped_step_is_no_step(name, before, bad):
    run, calm = Run(name), Run(name)
    how = {"mode": "skip"} if bad == "too large" else {"nonfinite": "skip"}
    clipper = Clipper(run.params, 100.0, **how)
    assert attach(clipper, run.optimizer) != (name in REFUSED)
    if name in REFUSED:
        return
    torch.manual_seed(1)
    run.take(*range(before))
    weights, remembered = run.weights(), picture(run.optimizer)
    run.take(99, size=1e4 if bad == "too large" else float("nan"))
    assert clipper.history.skipped.tolist() == [False] * before + [True]
    assert run.weights() == weights
    assert picture(run.optimizer) == remembered
    run.take(before, before + 1)
    torch.manual_seed(1)
    calm.take(*range(before + 2))
    assert run.weights() == calm.weights(), "something was remembered of it"
    assert picture(run.optimizer) == picture(calm.optimizer)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_the_second_of_two_passes_is_clipped(base):
    """Sharpness-aware minimisation: the clipper belongs to the optimizer inside, which steps."""

    def train(attached: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = peers.SAM(model.parameters(), base, rho=0.05, lr=0.1)
        clipper = Clipper(model.parameters(), 0.1)
        if attached:
            clipper.attach(optimizer.base_optimizer)
        for _ in range(5):
            x = torch.randn(16, 5)
            for step in (optimizer.first_step, optimizer.second_step):
                optimizer.zero_grad()
                (model(x) - x[:, :3] ** 2).square().mean().backward()
                if step == optimizer.second_step and not attached:
                    clipper.clip()
                step()
        assert clipper.history.clip_fraction == 1.0
        return [p.detach() for p in model.parameters()]

    for a, b in zip(train(True), train(False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "optimizer", ["SGDScheduleFreeClosure", "AdamWScheduleFreeClosure", "RAdamScheduleFreeClosure"]
)
def test_a_step_that_computes_its_gradients_is_refused(optimizer):
    model = nn.Linear(3, 1)
    optimizer = getattr(schedulefree, optimizer)(model.parameters(), lr=0.1)
    Clipper(model.parameters(), 1.0).attach(optimizer)
    weight = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="closure"):
        optimizer.step(lambda: model(torch.ones(3)).sum())
    assert torch.equal(model.weight, weight)
