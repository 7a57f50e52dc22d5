"""Gradients in every layout that a mesh allows, clipped beside the same gradients in one place.

Each case runs on every rank and returns what went wrong, so that one launch tries hundreds.
"""

import copy
import math
from itertools import product

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

import cliplab
from cliplab import Clipper

CPU = torch.device("cpu")
SHAPES = [(8, 6), (5, 1), (2, 1, 3), (7,), ()]  # even, uneven, with empty shards


def meshes():
    return [
        init_device_mesh("cpu", (4,), mesh_dim_names=("all",)),
        init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor")),
    ]


def placements(axes):
    """What a mesh dimension can do with a tensor of so many axes."""
    found = [Replicate(), Partial(), *(Shard(axis) for axis in range(axes))]
    return found + [_StridedShard(axis, split_factor=2) for axis in range(axes)]


def layouts(shapes=SHAPES):
    """Layouts ``(mesh, placements, shape)``: all of a flat mesh, most of a square one."""
    flat, square = meshes()
    for shape in shapes:
        kinds = placements(len(shape))
        averages = [Partial("avg"), *[Shard(-1)] * bool(shape)]
        yield from ((flat, (one,), shape) for one in kinds + averages)
        if len(shape) < 3:
            pairs = [*product(kinds, kinds), *((Partial("avg"), one) for one in kinds[2:])]
            yield from ((square, pair, shape) for pair in pairs)


def settled(chosen):
    return [Replicate() if p.is_partial() else p for p in chosen]


def place(full, mesh, chosen):
    """A whole tensor, which all ranks have, in a layout; addends differ from rank to rank."""
    tensor = distribute_tensor(full, mesh, settled(chosen), src_data_rank=None)
    own = tensor.to_local().clone()
    for i, placement in enumerate(chosen):
        if placement.is_partial():
            size, here = mesh.size(i), mesh.get_coordinate()[i]
            own = own / size if placement.reduce_op == "sum" else own
            own = own + (here - (size - 1) / 2)  # sums to nothing over the ranks
    return DTensor.from_local(
        own, mesh, chosen, run_check=False, shape=full.shape, stride=full.stride()
    )


def holds(tensor, full):
    """Whether this rank has its part of a whole tensor: not asked of ``full_tensor``."""
    reduced = tensor.redistribute(placements=settled(tensor.placements))
    own = distribute_tensor(full, tensor.device_mesh, reduced.placements, src_data_rank=None)
    return torch.allclose(reduced.to_local(), own.to_local(), rtol=1e-4, atol=1e-5, equal_nan=True)


def parameters(found):
    """Parameters with gradients in their layouts, and the same ones whole."""
    generator = torch.Generator().manual_seed(0)
    sharded, whole = [], []
    for mesh, chosen, shape in found:
        weight, grad = (torch.randn(shape, generator=generator) for _ in range(2))
        whole.append(nn.Parameter(weight))
        whole[-1].grad = grad
        sharded.append(nn.Parameter(place(weight, mesh, settled(chosen))))
        sharded[-1].grad = place(grad, mesh, chosen)
    return sharded, whole


def wrong(found, sharded, whole):
    """The layouts whose gradients are not those of the whole parameters."""
    each = zip(found, sharded, whole, strict=True)
    return [str(layout) for layout, p, q in each if not holds(p.grad, q.grad)]


def again(pairs):
    """Both lists anew, for a clipper to change the gradients."""
    lists = [[nn.Parameter(p.detach()) for p in params] for params in pairs]
    for params, olds in zip(lists, pairs, strict=True):
        for p, old in zip(params, olds, strict=True):
            p.grad = copied(old.grad)
    return lists


def copied(tensor):
    """A copy in the same layout: ``clone`` of a DTensor would sum its addends."""
    if not isinstance(tensor, DTensor):
        return tensor.clone()
    return DTensor.from_local(
        tensor.to_local().clone(),
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def compare(found, pairs, form=list, *, broken=False, **settings):
    """What differs between a clipper of sharded and one of whole parameters; all its numbers."""
    sharded, whole = again(pairs)
    clippers = [Clipper(form(params), **copy.deepcopy(settings)) for params in (sharded, whole)]
    if broken:
        for p, q in zip(sharded[::7], whole[::7], strict=True):
            p.grad.to_local().mul_(math.nan)
            q.grad.mul_(math.nan)
    ours, theirs = (clipper.clip() for clipper in clippers)
    before, expected = ours.norm_before.flatten(), theirs.norm_before.flatten()
    same = torch.isclose(before, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    labels = clippers[0].history.labels
    differ = [f"{labels[i]}: {before[i]} for {expected[i]}" for i in (~same).nonzero().flatten()]
    numbers = torch.cat([before, ours.factor.flatten().to(before)]).nan_to_num(-1.0)
    return {"differ": differ + wrong(found, sharded, whole), "numbers": numbers.tolist()}


SETTINGS = {
    "global": {"threshold": 3.0},
    "global 1": {"threshold": 3.0, "norm_type": 1.0},
    "global 9": {"threshold": 1.0, "norm_type": 9.0},
    "global inf": {"threshold": 0.5, "norm_type": math.inf},
    "global soft": {"threshold": 3.0, "mode": "soft"},
    "tensor": {"threshold": 0.7, "scope": "tensor"},
    "tensor inf": {"threshold": 0.7, "scope": "tensor", "norm_type": math.inf},
    "tensor soft": {"threshold": 0.7, "scope": "tensor", "mode": "soft"},
    "tensor normalise": {"threshold": 0.7, "scope": "tensor", "mode": "normalise"},
    "unit": {"threshold": 0.5, "scope": "unit"},
    "unit normalise": {"threshold": 0.5, "scope": "unit", "mode": "normalise"},
    "unit 1": {"threshold": 0.5, "scope": "unit", "norm_type": 1.0},
    "unit inf": {"threshold": 0.5, "scope": "unit", "norm_type": math.inf},
    "element": {"threshold": 0.3, "scope": "element"},
    "weight ratio": {"threshold": cliplab.WeightRatio(0.1), "scope": "unit"},
    "zeroed tensors": {"threshold": 1.0, "scope": "tensor", "nonfinite": "zero", "broken": True},
    "zeroed units": {
        "threshold": 1.0,
        "scope": "unit",
        "norm_type": math.inf,
        "nonfinite": "zero",
        "broken": True,
    },
    "skipped": {"threshold": 1.0, "norm_type": math.inf, "nonfinite": "skip", "broken": True},
}


def clipped(rank, world):
    """Every setting over parameters in all layouts at once."""
    found, members = list(layouts()), list(layouts([(5, 2), (5,)]))
    pairs = parameters(found)
    results = {name: compare(found, pairs, **settings) for name, settings in SETTINGS.items()}
    results["group"] = compare(found, pairs, in_two_groups, threshold=3.0, scope="group")
    results["own thresholds"] = compare(found, pairs, in_two_groups, threshold=3.0)
    results["member"] = compare(members, parameters(members), threshold=1.0, scope="member")
    return results


def in_two_groups(params):
    return [{"params": params[::2]}, {"params": params[1::2], "threshold": 0.5}]


class OfTheLoss(cliplab.Threshold):
    """A limit equal to the loss."""

    def start(self, n_parts, device):
        return {}

    def step(self, sizes, state, context):
        return context.loss.expand_as(sizes), state


def loss(rank, world):
    """The limit by a loss of which every rank has an addend, as a parallel loss does."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    addend = DTensor.from_local(torch.tensor(0.25), meshes()[0], [Partial()], run_check=False)
    return float(Clipper([weight], OfTheLoss()).clip(loss=addend).threshold)


def message(call):
    """The message of the ``ValueError`` that a call raises on this rank."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def measured(found, pairs):
    """The forms that measure tensors, every layout on its own."""
    forms = [(cliplab.total_norm, 2.0), (cliplab.get_total_norm, 2.0), (cliplab.tensor_norms, 1.0)]
    differ, numbers = [], []
    for layout, p, q in zip(found, *pairs, strict=True):
        for form, order in forms:
            norm, expected = float(form([p.grad], order)), float(form([q.grad], order))
            numbers.append(norm)
            if not math.isclose(norm, expected, rel_tol=1e-5):
                differ.append(f"{layout}: {norm} for {expected}")
    return {"differ": differ, "numbers": numbers}


def in_place(found, pairs, form):
    """What differs after a form that changes the gradients of parameters, or returns their norm."""
    sharded, whole = again(pairs)
    norm, expected = form(sharded), form(whole)
    numbers = [] if norm is None else [float(norm), float(expected)]
    differ = [str(numbers)] * (len(numbers) == 2 and not math.isclose(*numbers, rel_tol=1e-4))
    return {"differ": differ + wrong(found, sharded, whole), "numbers": numbers[:1]}


def by_torchs_norm(params):
    norm = torch.nn.utils.get_total_norm([params[0].grad])
    cliplab.clip_grads_with_norm_(params, 0.5, norm)


def members_of(params):
    return torch.stack([cliplab.member_norms([p.grad])[0] for p in params])


def through_activations(params):
    """The derivative of ``sum(a * weight)`` with respect to ``a``, clipped on its way."""
    for p in params:
        activation = torch.zeros_like(p).requires_grad_()
        through = cliplab.clip_activation_grad_(activation * 1.0, 0.5, norm_type=2.0)
        (through * p.detach()).sum().backward()
        p.grad = activation.grad


def is_strided_twice(layout):
    """Torch's own operations, ``full_tensor`` too, do not put such a tensor together again."""
    strided = [p.dim for p in layout[1] if isinstance(p, _StridedShard)]
    return len(strided) > len(set(strided))


def each(form):
    """A form that takes one tensor, on every gradient."""
    return lambda params: [form(p.grad) for p in params][:0] or None


def stateless(rank, world):
    """Every form without state, on all layouts."""
    found = list(layouts())
    pairs = parameters(found)
    settled_ones = [layout for layout in found if not any(p.is_partial() for p in layout[1])]
    matrices = [layout for layout in found if len(layout[2]) == 2]
    results = {"measured": measured(found, pairs)}
    results |= {
        name: in_place(found, pairs, form)
        for name, form in {
            "clip_grad_norm_": lambda ps: cliplab.clip_grad_norm_(ps, 2.0),
            "clip_grad_value_": lambda ps: cliplab.clip_grad_value_(ps, 0.3),
            "clip_grads_with_norm_": by_torchs_norm,
            "adaptive_clip_": lambda ps: cliplab.adaptive_clip_(ps, 0.1),
            "clip_by_norm_": each(lambda g: cliplab.clip_by_norm_(g, 1.0)),
            "clip_by_global_norm_": lambda ps: cliplab.clip_by_global_norm_(
                [p.grad for p in ps], 2.0
            ),
        }.items()
    }
    pairs = parameters(matrices)
    for dim in (0, 1, (0, 1)):
        form = each(lambda g, dim=dim: cliplab.clip_by_norm_(g, 0.5, dim))
        results[f"clip_by_norm_ over {dim}"] = in_place(matrices, pairs, form)
    results["member_norms"] = in_place(matrices, pairs, lambda ps: members_of(ps).norm())
    usual = [layout for layout in matrices if not is_strided_twice(layout)][::5]  # slow
    results["activations"] = in_place(usual, parameters(usual), through_activations)
    results["clip_by_value_"] = in_place(
        settled_ones, parameters(settled_ones), each(lambda g: cliplab.clip_by_value_(g, -0.3, 0.2))
    )
    return results


def extremes(rank, world):
    """Norms whose powers leave the range of fp64, and a bad entry on one rank only."""
    mesh, results = meshes()[0], {"ratios": {}, "bad": []}
    sizes = torch.tensor([3.0, 4.0, 0.0, 12.0])
    for name, scale, dtype, order in (
        ("large", 1e200, torch.float64, 2.0),
        ("small", 1e-200, torch.float64, 2.0),
        ("high order", 1e30, torch.float32, 20.0),
        ("low", 1e-30, torch.float32, 20.0),
    ):
        full = sizes.to(dtype) * scale
        norm = cliplab.total_norm([place(full, mesh, [Shard(0)])], order)
        results["ratios"][name] = float(norm) / float(cliplab.total_norm([full], order))
    for culprit, order in product(range(world), (2.0, math.inf)):
        grad = place(torch.ones(4), mesh, [Shard(0)])
        if rank == culprit:
            grad.to_local().fill_(math.nan)
        results["bad"].append(str(float(cliplab.total_norm([grad], order))))
    return results


def refused(rank, world):
    """What is said of layouts that nobody can measure right."""
    mesh, plain = meshes()[0], nn.Parameter(torch.zeros(4, 2))
    inner = DeviceMesh("cpu", [0, 1])
    outside = DTensor.from_local(torch.ones(2, 2), inner, [Shard(0)], run_check=False)
    largest = nn.Parameter(place(torch.zeros(4, 2), mesh, [Replicate()]))
    largest.grad = DTensor.from_local(torch.ones(4, 2), mesh, [Partial("max")], run_check=False)
    ragged = DTensor.from_local(  # by the placement it would be 3, 3, 3, 1
        torch.ones((4, 4, 2, 0)[rank], 2),
        mesh,
        [Shard(0)],
        shape=torch.Size((10, 2)),
        stride=(2, 1),
    )
    addends = place(torch.ones(4, 2), mesh, [Partial()])
    plain.grad = place(torch.ones(4, 2), mesh, [Shard(0)])
    flat = FullyShardedDataParallel(nn.Linear(3, 2), use_orig_params=True, device_id=CPU)
    calls = {
        "maximum": lambda: Clipper([largest], 1.0).clip(),
        "maximum, a tensor": lambda: cliplab.total_norm([largest.grad]),
        "ragged": lambda: Clipper([nn.Parameter(ragged)], 1.0, scope="unit"),
        "plain": lambda: Clipper([plain], 1.0, scope="tensor").clip(),
        "values of addends": lambda: cliplab.clip_by_value_(addends, -1.0, 1.0),
        "flat": lambda: Clipper(flat, 1.0),
        "flat, a function": lambda: cliplab.clip_grad_norm_(flat.parameters(), 1.0),
    }
    if rank > 1:
        calls["outside"] = lambda: Clipper([nn.Parameter(outside)], 1.0)
        calls["outside, a tensor"] = lambda: cliplab.total_norm([outside])
    return {name: message(call) for name, call in calls.items()}


LAYOUT_CASES = {f.__name__: f for f in (clipped, stateless, extremes, loss, refused)}
