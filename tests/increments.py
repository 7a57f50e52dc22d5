"""Micro-batches, and clipping in the backward pass, over ranks and beside them in one process."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from cliplab import EMA, Clipper

SETTINGS = {
    "global": {"threshold": 0.2},
    "tensor": {"threshold": EMA(0.5, warmup=0), "scope": "tensor"},
    "unit": {"threshold": EMA(0.5, warmup=0), "scope": "unit"},
    "element": {"threshold": 0.05, "scope": "element"},
    "skip": {"threshold": 2.0, "mode": "skip"},
}


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def batches():
    xs = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    xs[2] *= 20
    return xs


def backward(model, xs):
    (3 * model(xs)).square().mean().backward()


def share(xs, rank, world):
    return xs[rank * 8 // world : (rank + 1) * 8 // world]


def outcome(clipper, expected, tensors, wanted):
    """The numbers of this rank, and what is not as in one process."""
    whole = [t.full_tensor() if isinstance(t, DTensor) else t for t in tensors]
    differ = [
        i
        for i, (t, w) in enumerate(zip(whole, wanted, strict=True))
        if not torch.allclose(t, w, rtol=1e-4, atol=1e-6)
    ]
    rows, theirs = clipper.history.rows, expected.history.rows
    if not torch.allclose(rows, theirs, rtol=1e-4, atol=1e-6):
        differ.append("history")
    return {"differ": differ, "rows": rows.flatten().tolist()}


def sharded():
    model = make_model()
    fully_shard(model[0])
    fully_shard(model)
    return model


def in_buckets():
    return DistributedDataParallel(make_model(), gradient_as_bucket_view=True)


WRAPPED = {
    "fully_shard": sharded,
    "ddp": lambda: DistributedDataParallel(make_model()),
    "buckets": in_buckets,
}


def micro_batches(rank, world):
    """Increments that are reduced over the ranks are clipped as the whole ones, twice in a row."""
    results = {}
    for kind, wrap in WRAPPED.items():
        for name, settings in SETTINGS.items():
            model, alone = wrap(), make_model()
            clipper, other = Clipper(model, **settings), Clipper(alone, **settings)
            for _ in range(2):
                model.zero_grad()
                alone.zero_grad()
                for xs in batches():
                    with clipper.microbatch():
                        backward(model, share(xs, rank, world))
                    with other.microbatch():
                        backward(alone, xs)
            grads, wanted = ([p.grad for p in m.parameters()] for m in (model, alone))
            results[f"{kind}, {name}"] = outcome(clipper, other, grads, wanted)
    return results


def unsynchronised(rank, world):
    """Under ``no_sync`` every rank clips its own increments; they are averaged by hand."""
    model = DistributedDataParallel(make_model())
    clipper, alone = Clipper(model, 0.2), [make_model() for _ in range(world)]
    others = [Clipper(m, 0.2) for m in alone]
    for xs in batches():
        with model.no_sync(), clipper.microbatch():
            backward(model, share(xs, rank, world))
        for i, (m, other) in enumerate(zip(alone, others, strict=True)):
            with other.microbatch():
                backward(m, share(xs, i, world))
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= world
    each = zip(*(m.parameters() for m in alone), strict=True)
    wanted = [sum(p.grad for p in own) / world for own in each]
    return outcome(clipper, others[rank], [p.grad for p in model.parameters()], wanted)


def in_backward(rank, world):
    """Shards are clipped and stepped on in the backward pass as the whole tensors after it."""
    results = {}
    for name in ("tensor", "unit", "element"):
        model, alone = sharded(), make_model()
        clipper, other = (Clipper(m, **SETTINGS[name]) for m in (model, alone))
        optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
        together = torch.optim.SGD(alone.parameters(), lr=0.1)

        def step(p, optimizers=optimizers):
            optimizers[p].step()
            p.grad = None

        with clipper.clip_in_backward():
            for p in model.parameters():
                p.register_post_accumulate_grad_hook(step)
            for xs in batches():
                backward(model, share(xs, rank, world))
                together.zero_grad()
                backward(alone, xs)
                other.clip()
                together.step()
        weights, wanted = ([p.detach() for p in m.parameters()] for m in (model, alone))
        results[name] = outcome(clipper, other, weights, wanted)
    return results


INCREMENT_CASES = {f.__name__: f for f in (micro_batches, unsynchronised, in_backward)}
