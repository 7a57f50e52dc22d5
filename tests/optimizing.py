"""Optimizers of torch and of other libraries, and a run of any of them on gradients that repeat."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from needs import need
from torch import Tensor, nn

from cliplab import Clipper

peers = need("pytorch_optimizer", "parity")
schedulefree = need("schedulefree", "parity")

Build = Callable[[list[Tensor]], Any]

SHAPES = [(8, 6), (8,), (4, 8), (4,)]
MATRICES = [(8, 6), (4, 8)]

# Optimizers of pytorch_optimizer that cannot be built from parameters alone, or step on them.
NEED_MORE = {
    "adahessian": "second derivatives",
    "adalomo": "the model, and steps in the backward pass",
    "adammini": "the model",
    "alig": "a closure",
    "bsam": "a closure, and a size of the data",
    "demo": "einops and ranks",
    "distributedmuon": "ranks",
    "lbfgs": "a closure",
    "lomo": "the model, and steps in the backward pass",
    "sophiah": "second derivatives",
    "spectralsphere": "matrices alone",
}
MUONS = ("adago", "adamuon", "muon", "muonclip", "normuon")
ARGUMENTS = {"ranger21": {"num_iterations": 100}, "adashift": {"keep_num": 2}}
# Their rates begin at d0: 1e-6 unless told, and steps that small are lost in rounding.
ARGUMENTS |= {name: {"d0": 0.01} for name in ("dadaptadam", "dadaptadan", "dadaptlion")}
ARGUMENTS |= {"kron": {"balance_prob": 0.0}}  # else by numpy's dice, which no test seeds


def by_name(name: str) -> Build:
    def build(params: list[Tensor]) -> Any:
        if name in MUONS:
            matrices = [p for p in params if p.ndim == 2]
            others = [p for p in params if p.ndim != 2]
            groups = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
            return peers.load_optimizer(name)(groups)
        return peers.load_optimizer(name)(params, **ARGUMENTS.get(name, {}))

    return build


FOREIGN = {name: by_name(name) for name in peers.get_supported_optimizers()}
FOREIGN = {name: build for name, build in FOREIGN.items() if name not in NEED_MORE}
FOREIGN |= {
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


class Kind(NamedTuple):
    """An optimizer: ``build`` makes it for parameters of ``shapes``.

    ``closes``: it steps only with a closure. ``curved``: the loss must be one, and not linear.
    ``sparse``: it takes the sparse gradient of an embedding.
    """

    library: str
    name: str
    build: Build
    shapes: list[tuple[int, ...]] = SHAPES
    closes: bool = False
    curved: bool = False
    sparse: bool = False


def torch_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Every optimizer of torch, by name."""
    classes = {name: x for name, x in vars(torch.optim).items() if inspect.isclass(x)}
    base = torch.optim.Optimizer
    return {k: x for k, x in classes.items() if issubclass(x, base) and x is not base}


def kinds() -> Iterator[Kind]:
    """All that can be built here: torch's, also foreach and fused, and those of others."""
    for name, kind in sorted(torch_optimizers().items()):
        known = inspect.signature(kind).parameters
        momentum = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        momentum |= {"max_iter": 4} if name == "LBFGS" else {}
        for way in ({}, {"foreach": True}, {"fused": True}):
            if not way.keys() <= known.keys():
                continue

            def build(params: list[Tensor], kind=kind, given=momentum | way) -> Any:
                return kind(params, lr=0.1, **given)

            lbfgs = name == "LBFGS"
            yield Kind(
                "torch.optim",
                ", ".join([name, *way]),
                build,
                MATRICES if name == "Muon" else [(8, 3)] if name == "SparseAdam" else SHAPES,
                closes=lbfgs,
                curved=lbfgs,
                sparse=name == "SparseAdam",
            )
    for name, build in FOREIGN.items():
        yield Kind(
            "schedulefree" if name.startswith("schedulefree ") else "pytorch_optimizer", name, build
        )
    sphere = peers.load_optimizer("spectralsphere")
    yield Kind("pytorch_optimizer", "spectralsphere", sphere, MATRICES)
    yield Kind("pytorch_optimizer", "alig", by_name("alig"), closes=True)
    for name in ("SGD", "AdamW", "RAdam"):
        free = getattr(schedulefree, f"{name}ScheduleFreeClosure")
        yield Kind("schedulefree", f"schedulefree {name}, closure", free, closes=True)
    for name in ("SAM", "LookSAM", "FriendlySAM"):
        yield Kind("pytorch_optimizer", name, sharpness_aware(name), closes=True)


def sharpness_aware(name: str) -> Build:
    return lambda ps: getattr(peers, name)(ps, torch.optim.SGD, lr=0.1)


class Run:
    """Parameters, an optimizer, and gradients that are the same in every run."""

    def __init__(self, kind: Kind, decay: float | None = None) -> None:
        torch.manual_seed(0)
        self.kind = kind
        self.params = [nn.Parameter(torch.randn(shape)) for shape in kind.shapes]
        self.optimizer = kind.build(self.params)
        for group in self.optimizer.param_groups:
            if decay is not None and "weight_decay" in group:
                group["weight_decay"] = decay
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()

    def backward(self, step: int, size: float = 1.0) -> Tensor:
        """Gradients of this step, which do not depend on the weights unless the loss is curved."""
        generator = torch.Generator().manual_seed(0 if self.kind.curved else step)
        self.optimizer.zero_grad()
        loss = torch.zeros(())
        for p in self.params:
            slope = size * torch.randn(p.shape, generator=generator)
            if self.kind.sparse:
                rows = torch.tensor([step % 8, (3 * step + 1) % 8])
                loss = loss + (nn.functional.embedding(rows, p, sparse=True) * slope[:2]).sum()
            else:
                loss = loss + (p * slope).sum()
            if self.kind.curved:
                loss = loss + p.square().sum() ** 2
        loss.backward()
        return loss

    def take(
        self,
        *steps: int,
        size: float = 1.0,
        clip: Callable[[], Any] | None = None,
        closes: bool | None = None,
    ) -> None:
        """Steps, with gradients clipped by hand or not, computed before or in a closure."""
        for step in steps:

            @torch.enable_grad()  # some of others call it without
            def closure(step: int = step) -> Tensor:
                loss = self.backward(step, size)
                if clip is not None:
                    clip()
                return loss

            torch.manual_seed(step)  # some draw
            if self.kind.closes if closes is None else closes:
                self.optimizer.step(closure)
            else:
                closure()
                self.optimizer.step()

    def attach(self, clipper: Clipper) -> str | None:
        """What the optimizer was refused with; None if it was not."""
        try:
            clipper.attach(self.optimizer)
        except ValueError as error:
            return str(error)
        return None

    def set(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for p, w in zip(self.params, weights, strict=True):
                p.copy_(w)

    def weights(self) -> list[bytes]:
        return [content(p) for p in self.params]

    def moved(self) -> bool:
        start = Run(self.kind)
        return self.weights() != start.weights()


def content(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def picture(thing: Any, seen: frozenset[int] = frozenset()) -> Any:
    """All that an optimizer remembers, in its groups, its state and itself, to compare."""
    if isinstance(thing, Tensor):
        if thing.is_sparse:
            return "sparse", picture(thing.to_dense())
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
