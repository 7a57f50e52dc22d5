"""Ranks that hold different tensors, two stages of a pipeline by two of experts, and the whole
model beside them: each case runs on every rank and returns what differs.
"""

import copy
import math
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import cliplab
from cliplab import RMS, Clipper, MovingAverage, NonFiniteGradientError, WeightRatio

STEPS = 4
NAN = math.nan


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x):
        hidden = torch.tanh(self.dense(x))
        routed = [expert(part) for expert, part in zip(self.experts, hidden.chunk(2), strict=True)]
        return hidden + torch.cat(routed)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(Stage(), Stage())


def backward(model, step):
    model.zero_grad()
    generator = torch.Generator().manual_seed(step)
    scale = 30.0 if step == 2 else 1.0
    (model(torch.randn(6, 4, generator=generator)) * scale).square().mean().backward()


class Here:
    """This rank's groups, and the tensors of the whole model that it holds."""

    def __init__(self, rank):
        self.mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("stage", "expert"))
        self.stage, self.expert = divmod(rank, 2)
        self.over_stages, self.over_experts = (self.mesh.get_group(d) for d in ("stage", "expert"))
        self.kinds = (f"{self.stage}.dense.", f"{self.stage}.experts.{self.expert}.")

    def own(self, whole):
        """A copy of what this rank holds, by name."""
        return {
            name: nn.Parameter(p.detach().clone())
            for name, p in whole.items()
            if name.startswith(self.kinds)
        }

    def reduces(self, functions):
        groups = {"dense": None, "experts": self.over_experts, "all": self.over_stages}
        if not functions:
            return groups
        return {
            k: g and (lambda x, g=g: dist.all_reduce(x, group=g) or x) for k, g in groups.items()
        }


def groups_of(named, reduces=None, **own):
    """Dense and expert parameters as param groups."""
    groups = []
    for kind in ("dense", "experts"):
        pairs = [(name, p) for name, p in named.items() if kind in name]
        groups.append({"params": pairs, "name": kind, **own.get(kind, {})})
        if reduces and reduces[kind] is not None:
            groups[-1]["reduce"] = reduces[kind]
    return groups


SETTINGS = {
    "fixed": {"threshold": 0.5},
    "order 1": {"threshold": 1.0, "norm_type": 1.0},
    "order 8": {"threshold": 0.2, "norm_type": 8.0},
    "order inf": {"threshold": 0.1, "norm_type": math.inf},
    "adaptive": {"threshold": MovingAverage(1.0, window=3, warmup=1)},
    "soft": {"threshold": 0.5, "mode": "soft"},
    "normalise": {"threshold": 0.5, "mode": "normalise"},
    "skip": {"threshold": MovingAverage(3.0, window=3, warmup=1), "mode": "skip"},
    "weights": {"threshold": WeightRatio(0.1)},
    "entries": {"threshold": RMS(0.05)},
    "group": {"threshold": MovingAverage(0.5, window=3, warmup=1), "scope": "group"},
    "by kind": {"threshold": {"*.experts.*": 0.1, "*": MovingAverage(0.5, 3, 1)}},
    "by stage": {"threshold": {"0.*": 0.1, "1.dense.*": 0.2, "*": 0.3}},
}
COLUMNS = ("norm_before", "norm_after", "threshold", "factor", "clipped", "skipped")


def columns(clipper):
    return {name: getattr(clipper.history, name).double() for name in COLUMNS}


def close(one, other):
    return torch.allclose(one, other, rtol=1e-6, atol=1e-8, equal_nan=True)


def beside_the_whole(here, settings, *, functions=False, own=None, spoil=None, steps=STEPS):
    """Train what this rank holds beside the whole model; what differs, and the numbers here."""
    model = make_model()
    named = dict(model.named_parameters())
    held = here.own(named)
    reduces = here.reduces(functions)
    whole = Clipper(groups_of(named, **own or {}), **copy.deepcopy(settings))
    mine = Clipper(
        groups_of(held, reduces, **own or {}), reduce=reduces["all"], **copy.deepcopy(settings)
    )
    mine = copy.deepcopy(mine)
    held = dict(zip(mine.partition.names, mine.params, strict=True))
    optimizers = [torch.optim.SGD(p.values(), lr=0.1, momentum=0.9) for p in (named, held)]
    whole.attach(optimizers[0])
    mine.attach(optimizers[1])
    differ = []
    for step in range(steps):
        backward(model, step)
        if spoil is not None:
            spoil(named, step)
        for name, p in held.items():
            grad = named[name].grad
            p.grad = None if grad is None else grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for name, p in held.items():
            grads = [q.grad for q in (p, named[name]) if q.grad is not None]
            if len(grads) == 1 or (grads and not close(*grads)) or not close(p, named[name]):
                differ.append(f"{name} at step {step}")
    numbers = columns(mine)
    differ += [name for name, column in columns(whole).items() if not close(numbers[name], column)]
    return {"differ": differ, "numbers": {k: v.flatten().tolist() for k, v in numbers.items()}}


def summed(rank, world):
    here = Here(rank)
    results = {}
    for name, settings in SETTINGS.items():
        results[name] = beside_the_whole(here, settings)
        if name != "order inf":
            results[f"{name}, functions"] = beside_the_whole(here, settings, functions=True)
    ruled = {"experts": {"threshold": MovingAverage(0.5, 3, 1)}}
    results["own threshold"] = beside_the_whole(here, {"threshold": 0.5}, own=ruled)
    left = {"dense": {"clip": False}}
    results["experts alone"] = beside_the_whole(here, {"threshold": 0.5}, own=left)
    return results


def lonely(named, step):
    """No gradient: of one stage at one step, of an expert, and at last of none at all."""
    for name, p in named.items():
        if (step == 1 and name.startswith("1.")) or "0.experts.1" in name or step == 3:
            p.grad = None


def spoiled(named, step):
    """A NaN that one rank has."""
    if step == 1:
        named["1.experts.0.weight"].grad[0, 0] = NAN


def missing(rank, world):
    """A gradient on some ranks only, and a NaN on one rank only."""
    here = Here(rank)
    results = {}
    for functions in (False, True):
        for scope in ("global", "group"):
            adaptive = {"threshold": MovingAverage(0.5, window=3, warmup=1), "scope": scope}
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                name = f"{scope}{', functions' * functions}"
                results[name] = beside_the_whole(here, adaptive, functions=functions, spoil=lonely)
            for answer in ("zero", "skip", "propagate"):
                results[f"{name}, {answer}"] = beside_the_whole(
                    here, {**adaptive, "nonfinite": answer}, functions=functions, spoil=spoiled
                )
    return results


def error_of(kind, make):
    try:
        make()
    except kind as error:
        return str(error)
    return ""


def raised(rank, world):
    """What is said on every rank of a NaN on one, and of a gradient that nobody has."""
    here = Here(rank)
    told = error_of(
        NonFiniteGradientError, lambda: beside_the_whole_alone(here, spoil=spoiled, steps=2)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        beside_the_whole_alone(here, spoil=lambda named, step: lonely(named, 3), steps=1)
    return {"nan": told, "nothing": [str(w.message) for w in caught]}


def beside_the_whole_alone(here, *, spoil, steps):
    """This rank's part alone."""
    model = make_model()
    named = dict(model.named_parameters())
    held, reduces = here.own(named), here.reduces(False)
    clipper = Clipper(groups_of(held, reduces), reduce=reduces["all"])
    for step in range(steps):
        backward(model, step)
        spoil(named, step)
        for name, p in held.items():
            p.grad = named[name].grad
        clipper.clip()
    return clipper


def far(rank, world):
    """Norms whose powers no fp64 holds, summed over groups in turn."""
    here = Here(rank)
    both = [here.over_experts, here.over_stages]
    ratios = {}
    for dtype, size in ((torch.float32, 1e30), (torch.float64, 1e200), (torch.float64, 1e-200)):
        for order in (0.5, 2.0, 8.0, math.inf):
            p = nn.Parameter(torch.zeros(1, dtype=dtype))
            p.grad = torch.full_like(p, size * (1 + rank))
            found = Clipper([p], math.inf, norm_type=order, reduce=both).clip().norm_before
            expected = torch.linalg.vector_norm(torch.tensor([1.0, 2, 3, 4]).double(), order) * size
            ratios[f"{dtype}, {size}, {order}"] = float(found.double() / expected)
    return ratios


def sharded_stages(rank, world):
    """Stages of a pipeline that are each sharded over two ranks."""
    here = Here(rank)
    results = {}
    for name in ("fixed", "order inf", "adaptive", "weights", "entries", "by kind", "by stage"):
        settings = SETTINGS[name]
        model, sharded = make_model(), make_model()
        stage = nn.ModuleDict({str(here.stage): sharded[here.stage]})
        fully_shard(stage[str(here.stage)], mesh=here.mesh["expert"])
        whole = Clipper(model, **copy.deepcopy(settings))
        mine = Clipper(stage, reduce=here.over_stages, **copy.deepcopy(settings))
        named = dict(model.named_parameters())
        differ = []
        for step in range(STEPS):
            backward(model, step)
            backward(sharded_copy := make_model(), step)
            full = dict(sharded_copy.named_parameters())
            for own, p in stage.named_parameters():
                p.grad = _like(full[own].grad, p)
            whole.clip()
            mine.clip()
            for own, p in stage.named_parameters():
                if not close(p.grad.full_tensor(), named[own].grad):
                    differ.append(f"{own} at step {step}")
        numbers = columns(mine)
        differ += [n for n, column in columns(whole).items() if not close(numbers[n], column)]
        values = {k: v.flatten().tolist() for k, v in numbers.items()}
        results[name] = {"differ": differ, "numbers": values}
    return results


def _like(full, p):
    whole = DTensor.from_local(full, p.device_mesh, run_check=False)
    return whole.redistribute(placements=p.placements)


def unlooked(rank, world):
    """The accelerator's way, with a guard where a value is looked at; what the other way gives."""
    from test_no_sync import Guard

    here = Here(rank)
    reduces = here.reduces(False)
    given = {}
    for look in (True, False):
        cliplab.checks.LOOK = look
        model = make_model()
        backward(model, 0)
        named = dict(model.named_parameters())
        held = here.own(named)
        adaptive = MovingAverage(0.5, window=3, warmup=1)
        clipper = Clipper(
            groups_of(held, reduces), adaptive, reduce=reduces["all"], nonfinite="skip"
        )
        for name, p in held.items():
            p.grad = named[name].grad
        clipper.clip()
        if look:
            clipper.clip()
        else:
            with Guard():
                clipper.clip()
        cliplab.checks.LOOK = True
        given[str(look)] = columns(clipper)["norm_after"].tolist()
    return given


def mistaken(rank, world):
    """What does not go together, and what no rank or not every rank holds."""
    here = Here(rank)
    named = dict(make_model().named_parameters())
    stage, held = here.over_stages, here.own(named)
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    double = nn.Parameter(torch.ones(2, dtype=torch.float64 if here.stage else torch.float32))
    sums = [lambda x: x, lambda x: None]
    makes = {
        "tensor": lambda: Clipper([weight], scope="tensor", reduce=stage),
        "unit": lambda: Clipper([{"params": weight, "reduce": stage}], scope="unit"),
        "element": lambda: cliplab.create("value", [weight], reduce=stage),
        "member": lambda: Clipper([weight], scope="member", reduce=stage),
        "text": lambda: Clipper([weight], reduce="stage"),
        "empty": lambda: Clipper([weight], reduce=[]),
        "mesh": lambda: Clipper([{"params": weight, "reduce": here.mesh, "name": "head"}]),
        "outside": lambda: Clipper([weight], reduce=[dist.GroupMember.NON_GROUP_MEMBER]),
        "inf": lambda: Clipper([weight], norm_type=math.inf, reduce=sums[0]),
        "nothing": lambda: Clipper([weight], reduce=sums[1]),
        "update": lambda: Clipper([weight], reduce=sums[0], target="update"),
        "parts": lambda: Clipper(
            [{"params": weight}] * (1 + here.stage), scope="group", reduce=stage
        ),
        "pattern": lambda: Clipper(held.items(), {"*.bais": 1.0, "*": 2.0}, reduce=stage),
        "precision": lambda: Clipper([double], reduce=stage),
        "two rules": lambda: Clipper([{"params": weight}, {"params": weight, "reduce": stage}]),
    }
    return {name: error_of(ValueError, make) for name, make in makes.items()}


def alike(rank, world):
    """``check_ranks``: what is said where ranks measure different sizes, and where they do not."""
    here = Here(rank)
    own = torch.randn(6, 4, generator=torch.Generator().manual_seed(rank))

    def replicated(scope="global", *, synchronised=True, bad=None, **options):
        model = DistributedDataParallel(nn.Linear(4, 2))
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(0.5)
        clipper = Clipper(model, 1.0, scope=scope, check_ranks=True, **options)
        for step in range(2):
            model.zero_grad()
            if synchronised:
                model(own).square().mean().backward()
            else:
                with model.no_sync():
                    model(own).square().mean().backward()
            if rank == bad:
                model.module.bias.grad[0] = NAN
            clipper.clip()
            if step == 0:  # later it is not looked at
                synchronised = False

    def staged(reduced):
        reduces = here.reduces(False)
        params = here.own(dict(make_model().named_parameters()))
        for name, p in params.items():
            p.grad = torch.full_like(p, 1.0 + here.expert * ("experts" in name) + here.stage)
        groups = groups_of(params, reduces if reduced else None)
        clipper = Clipper(groups, 1.0, reduce=reduces["all"] if reduced else None, check_ranks=True)
        clipper.clip()

    weights = [nn.Parameter(torch.ones(1)) for _ in range(1 + (rank == 3))]
    for weight in weights:
        weight.grad = torch.ones(1)
    runs = {
        "synchronised": replicated,
        "synchronised tensors": lambda: replicated("tensor"),
        "not synchronised": lambda: replicated(synchronised=False),
        "not synchronised tensors": lambda: replicated("tensor", synchronised=False),
        "nan on one": lambda: replicated(bad=1),
        "staged": lambda: staged(False),
        "staged and reduced": lambda: staged(True),
        "parts": lambda: Clipper(weights, scope="tensor", check_ranks=True).clip(),
    }
    return {name: error_of(RuntimeError, run) for name, run in runs.items()}


APART_CASES = {
    f.__name__: f for f in (summed, missing, raised, far, sharded_stages, unlooked, mistaken, alike)
}
