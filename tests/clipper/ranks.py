"""Run by ``launching.py`` on every rank: each case returns numbers that the tests compare.

``python ranks.py WORLD STORE FOLDER CASE...`` writes ``FOLDER/RANK.json`` of every rank.
"""

import copy
import io
import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch._dynamo  # what works on a DTensor imports it: once, before the ranks are forked
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint.state_dict as states
from apart import APART_CASES
from increments import INCREMENT_CASES
from layouts import LAYOUT_CASES
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import cliplab
from cliplab import Clipper, MovingAverage, Percentile

STEPS = 4


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 6), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1)
    )


def make_wide_model():
    """Layers that tensor parallelism splits evenly, and data parallelism then unevenly."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(10, 4),
        nn.Flatten(),
        nn.Linear(8, 6),
        nn.Tanh(),
        nn.Linear(6, 4),
        nn.LayerNorm(4),
        nn.Linear(4, 1),
    )


PLAN = {
    "0": RowwiseParallel(input_layouts=Replicate()),
    "2": ColwiseParallel(),
    "4": RowwiseParallel(),
}
SEQUENCE_PLAN = PLAN | {
    "4": RowwiseParallel(output_layouts=Shard(0)),
    "5": SequenceParallel(sequence_dim=0, use_local_output=True),
    "6": RowwiseParallel(input_layouts=Shard(0)),
}


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(0, 7, (8, 2), generator=generator)
    return x, torch.randn(8, 1, generator=generator) * (30.0 if step == 2 else 1.0)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train(model, clipper, optimizer, *, rank=0, world=1, steps=range(STEPS)):
    """Mean loss over the ranks' shares of the same batches; returns final weights and limits."""
    clipper.attach(optimizer)
    for step in steps:
        x, y = batch(step)
        own = slice(rank * 8 // world, (rank + 1) * 8 // world)
        optimizer.zero_grad()
        (model(x[own]) - y[own]).square().mean().backward()
        optimizer.step()
    weights = torch.cat([whole(p.detach()).flatten() for p in model.parameters()])
    return {
        "weights": weights.tolist(),
        "norms": clipper.history.norm_before.flatten().tolist(),
        "limits": clipper.history.threshold.nan_to_num(posinf=1e9).flatten().tolist(),
        "skipped": clipper.history.skipped.flatten().tolist(),
        "state": [float(x) for s in clipper.policy.state.values() for x in s.flatten()],
    }


SETTINGS = {
    "global": {"threshold": 0.5},
    "global inf": {"threshold": 0.1, "norm_type": float("inf")},
    "global 1": {"threshold": 1.0, "norm_type": 1.0},
    "adaptive": {"threshold": MovingAverage(1.0, window=3, warmup=1)},
    "tensor": {"threshold": Percentile(50.0), "scope": "tensor"},
    "unit": {"threshold": 0.05, "scope": "unit"},
    "element": {"threshold": 0.01, "scope": "element"},
    "soft": {"threshold": 0.5, "mode": "soft"},
    "normalise": {"threshold": 0.5, "mode": "normalise"},
    "skip": {"threshold": MovingAverage(3.0, window=3, warmup=1), "mode": "skip"},
    "update": {"threshold": MovingAverage(1.0, window=3, warmup=1), "target": "update"},
    "update tensor": {"threshold": Percentile(50.0), "scope": "tensor", "target": "update"},
    "update unit": {"threshold": 0.05, "scope": "unit", "target": "update"},
    "update element": {"threshold": 0.01, "scope": "element", "target": "update"},
}


# Tensor parallelism is tried alone with some, under fully_shard with the others, both with these.
BOTH = ("global", "tensor", "unit", "element")


def every_second(first):
    names = [name for name in SETTINGS if name not in BOTH]
    return {name: SETTINGS[name] for name in (*BOTH, *names[first::2])}


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def single(make=make_model):
    results = {}
    for name, settings in SETTINGS.items():
        model = make()
        results[name] = train(model, Clipper(model, **copy.deepcopy(settings)), sgd(model))
    return results


def ddp(rank, world):
    results = {}
    for name, settings in SETTINGS.items():
        model = DistributedDataParallel(make_model())
        clipper = Clipper(model, **copy.deepcopy(settings))
        results[name] = train(model, clipper, sgd(model), rank=rank, world=world)
    return results


def fsdp(rank, world):
    results = {}
    for name, settings in SETTINGS.items():
        model = make_model()
        fully_shard(model[2])  # a mesh group of its own; the last bias is smaller than the mesh
        fully_shard(model)
        clipper = Clipper(model, **copy.deepcopy(settings))
        results[name] = train(model, clipper, sgd(model), rank=rank, world=world)
    return results


def mixed(rank, world):
    """Half of the model sharded, half plain: every rank sees the whole batch."""
    results = {}
    for name in ("global", "global inf", "tensor", "unit", "update", "update unit"):
        model = make_model()
        fully_shard(model[2])
        clipper = Clipper(model, **copy.deepcopy(SETTINGS[name]))
        results[name] = train(model, clipper, sgd(model))
    return results


def two_meshes(rank, world):
    """A hybrid mesh (replicas of shards) beside a flat one."""
    flat = init_device_mesh("cpu", (world,), mesh_dim_names=("all",))
    hybrid = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replica", "shard"))
    results = {}
    for name in ("global", "global inf", "tensor", "unit"):
        model = make_model()
        fully_shard(model[2], mesh=hybrid)
        fully_shard(model[4], mesh=flat)
        clipper = Clipper(model, **copy.deepcopy(SETTINGS[name]))
        results[name] = train(model, clipper, sgd(model))
    return results


def tensor_parallel(rank, world):
    """Tensor parallelism alone: shards, and addends of the LayerNorm's gradients."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))["tensor"]
    results = {}
    for name, settings in every_second(0).items():
        model = parallelize_module(make_wide_model(), mesh, SEQUENCE_PLAN)
        clipper = Clipper(model, **copy.deepcopy(settings))
        results[name] = train(model, clipper, sgd(model))
    return results


def two_dimensional(rank, world):
    """``fully_shard`` over tensor parallelism, with replicas beside it or not."""
    flat = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    hybrid = init_device_mesh("cpu", (1, 2, 2), mesh_dim_names=("replica", "data", "tensor"))
    results = {}
    for name, settings in every_second(1).items():
        for mesh, data in ((flat, flat["data"]), (hybrid, hybrid["replica", "data"])):
            if mesh is hybrid and name != "unit":
                continue
            model = parallelize_module(make_wide_model(), mesh["tensor"], PLAN)
            fully_shard(model[2], mesh=data)
            fully_shard(model, mesh=data)
            clipper = Clipper(model, **copy.deepcopy(settings))
            own = {"rank": mesh.get_coordinate()[-2], "world": 2}
            results[f"{name} on {mesh.ndim} axes"] = train(model, clipper, sgd(model), **own)
    return results


def too_early(rank, world):
    """What is said of a clipper that was built before ``fully_shard``."""
    model = make_model()
    clipper = Clipper(model, 1.0)
    fully_shard(model)
    try:
        clipper.attach(sgd(model))
    except ValueError as error:
        return str(error)
    return ""


def drop_ins(rank, world):
    """Stateless forms over DTensors of two meshes, a plain tensor and addends to be summed."""
    mesh = init_device_mesh("cpu", (world,))
    torch.manual_seed(1)
    full = [torch.randn(3, 4), torch.randn(1, 4), torch.randn(6)]
    params = [nn.Parameter(distribute_tensor(torch.zeros_like(t), mesh, [Shard(0)])) for t in full]
    params.append(nn.Parameter(torch.zeros(2)))
    for p, t in zip(params, full, strict=False):
        p.grad = distribute_tensor(t, mesh, [Shard(0)])
    params[-1].grad = torch.ones(2)
    norm = cliplab.total_norm([p.grad for p in params])
    returned = cliplab.clip_grad_norm_(params, 1.0)
    after = torch.cat([whole(p.grad).flatten() for p in params])
    addend = nn.Parameter(distribute_tensor(torch.zeros(3), mesh, [Replicate()]))
    addend.grad = DTensor.from_local(torch.full((3,), 1.0 / world), mesh, [Partial()])
    report = Clipper([addend], 1.0).clip()
    return {
        "norm": float(norm),
        "returned": float(returned),
        "after": after.tolist(),
        "addend": float(report.norm_before),
        "addend after": whole(addend.grad).tolist(),
    }


def lonely(rank, world):
    """A gradient on some ranks only, and a NaN on one rank only: nobody waits, all agree."""
    mesh = init_device_mesh("cpu", (world,))
    params = [
        nn.Parameter(distribute_tensor(torch.zeros(world, 2), mesh, [Shard(0)])) for _ in range(2)
    ]
    params[0].grad = distribute_tensor(torch.ones(world, 2), mesh, [Shard(0)])
    if rank == 0:
        params[1].grad = params[0].grad.clone()
    clipper = Clipper(params, MovingAverage(1.0, window=2, warmup=1), scope="tensor")
    sizes = clipper.clip().norm_before.tolist()
    clamped = Clipper(params, 0.5, scope="element").clip()
    if rank == world - 1:
        params[0].grad.to_local().fill_(float("nan"))
    try:
        clipper.clip()
        told = ""
    except cliplab.NonFiniteGradientError as error:
        told = str(error)
    return {
        "sizes": sizes,
        "clamped": [float(clamped.norm_before), float(clamped.factor)],
        "told": told,
        "count": clipper.policy.state["count"].tolist(),
    }


def save(rank, world, folder):
    """Train sharded and save with the distributed checkpoint, half-way."""
    model = make_model()
    fully_shard(model)
    optimizer = sgd(model)
    clipper = Clipper(model, Percentile(50.0), scope="tensor")
    train(model, clipper, optimizer, rank=rank, world=world, steps=range(2))
    state = {
        "model": states.get_model_state_dict(model),
        "optimizer": states.get_optimizer_state_dict(model, optimizer),
        "clipper": clipper.state_dict(),
    }
    dcp.save(state, checkpoint_id=folder / "checkpoint")
    return {"count": clipper.policy.state["count"].tolist()}


def resume(rank, world, folder):
    """Continue on another number of ranks."""
    model = make_model()
    fully_shard(model)
    optimizer = sgd(model)
    clipper = Clipper(model, Percentile(50.0), scope="tensor")
    state = {
        "model": states.get_model_state_dict(model),
        "optimizer": states.get_optimizer_state_dict(model, optimizer),
        "clipper": clipper.state_dict(),
    }
    dcp.load(state, checkpoint_id=folder / "checkpoint")
    states.set_model_state_dict(model, state["model"])
    states.set_optimizer_state_dict(model, optimizer, state["optimizer"])
    clipper.load_state_dict(state["clipper"])
    clipper.load_state_dict(torch.load(_pickled(clipper.state_dict()), weights_only=True))
    return train(model, clipper, optimizer, rank=rank, world=world, steps=range(2, STEPS))


def _pickled(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


TRAINED = (ddp, fsdp, mixed, two_meshes, tensor_parallel, two_dimensional)
CASES = {f.__name__: f for f in (*TRAINED, drop_ins, lonely, too_early)}
CASES |= LAYOUT_CASES | APART_CASES | INCREMENT_CASES
FOLDER_CASES = {f.__name__: f for f in (save, resume)}


def run(rank, world, store, folder, cases):
    """What one rank does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results = {}
    for case in cases:
        if case in CASES:
            results[case] = CASES[case](rank, world)
        else:
            results[case] = FOLDER_CASES[case](rank, world, folder.parent)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


def main():
    """Start all ranks, and end as the one that ended worst: by a signal, with an error, well."""
    world, store, folder, *cases = sys.argv[1:]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ranks = [
        context.Process(target=run, args=(rank, int(world), store, Path(folder), cases))
        for rank in range(int(world))
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    statuses = [rank.exitcode for rank in ranks]
    if min(statuses) < 0:
        os.kill(os.getpid(), -min(statuses))
    sys.exit(max(statuses))


if __name__ == "__main__":
    main()
