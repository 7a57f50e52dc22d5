"""The default dtype and the default device are somebody else's: nothing here depends on them."""

import math

import pytest
import torch
from torch import nn

import cliplab
from cliplab import member_norms, tensor_norms, total_norm
from cliplab.norms import all_row_norms, clamp_, row_norms
from cliplab.parts import RowParts, TensorParts, scale_units_, unit_views

SINGLE = torch.float32


def gradients():
    generator = torch.Generator("cpu").manual_seed(0)
    shapes = [(3, 4), (3,), (3, 2, 5)]
    held = [torch.randn(s, generator=generator, dtype=SINGLE, device="cpu") for s in shapes]
    return held


def scalar(value):
    return torch.tensor(value, dtype=SINGLE, device="cpu")


def clipped(clip):
    params = [nn.Parameter(g + 1) for g in gradients()]
    for p, g in zip(params, gradients(), strict=True):
        p.grad = g
    params.append(nn.Parameter(scalar(1.0)))  # has no gradient
    found = clip(params)
    return [found, *(p.grad for p in params if p.grad is not None)]


def of_parts(make):
    def measure():
        grads = gradients()
        parts = make(grads)
        numels = parts.numels()
        sizes, active, _ = parts.measure([*grads[:2], None], 2.0)
        nothing = parts.measure([None] * 3, 2.0)[0]
        parts.scale_(grads, torch.full_like(sizes, 0.3))
        parts.clear_(grads, ~active)
        return [numels, sizes, active, nothing.float(), *grads]

    return measure


def large_and_vanished():
    wide = torch.full((1, 1), 0.1, dtype=SINGLE, device="cpu").expand(2, (1 << 20) + 7)
    tiny = [g * 1e-30 for g in gradients()]
    held = [wide, *tiny]
    return [
        *(total_norm(held, p) for p in (1.0, 2.0, math.inf)),
        *(tensor_norms(held, p) for p in (1.0, 2.0, math.inf)),
        *(total_norm(tiny, p) for p in (1.0, 2.0)),
    ]


def complex_entries():
    entries = torch.tensor([3 + 4j, 0.1j], dtype=torch.complex64, device="cpu")
    clamp_(entries, 0.7)
    return entries


def activation():
    x = torch.ones(2, dtype=SINGLE, device="cpu", requires_grad=True)
    y = cliplab.clip_activation_grad_(x * 1, 0.1, 2.0)
    y.backward(torch.tensor([3.0, 4.1], dtype=SINGLE, device="cpu"))
    return x.grad


def scaled_units():
    grads = gradients()
    factor = torch.full((7,), 0.3, dtype=SINGLE, device="cpu")
    scale_units_(grads, unit_views(None, grads), factor)
    return grads


DIMS = [(1,), (0,), (1, 2)]
WORK = {
    "total": lambda: [total_norm(gradients(), p) for p in (1.0, 2.0, math.inf)],
    "none": lambda: [total_norm([]), tensor_norms([])],
    "tensors": lambda: [tensor_norms([*gradients(), gradients()[0][:0]], p) for p in (1.0, 2.0)],
    "large and vanished": large_and_vanished,
    "rows": lambda: [row_norms(g * s, (0,)) for g in gradients() for s in (1.0, 1e-30, 0.0)],
    "no rows": lambda: row_norms(gradients()[0][:0], (1,)),
    "all rows": lambda: all_row_norms([g * 1e-30 for g in gradients()], DIMS),
    "members": lambda: member_norms(gradients()),
    "complex": complex_entries,
    "activation": activation,
    "units": scaled_units,
    "one part": of_parts(lambda held: TensorParts(held, [3])),
    "two parts": of_parts(lambda held: TensorParts(held, [2, 1])),
    "row parts": of_parts(lambda held: RowParts(held, unit_views(None, held))),
    "clip_grad_norm_": lambda: clipped(lambda ps: cliplab.clip_grad_norm_(ps, 0.1)),
    "clip_grad_value_": lambda: clipped(lambda ps: cliplab.clip_grad_value_(ps, 0.1))[1:],
    "clip_by_norm_": lambda: clipped(lambda ps: cliplab.clip_by_norm_([p.grad for p in ps], 0.1))[
        1:
    ],
    "clip_by_norm_, dim": lambda: clipped(
        lambda ps: cliplab.clip_by_norm_([p.grad for p in ps[:3]], 0.1, 0)
    )[1:],
    "clip_by_global_norm_": lambda: clipped(
        lambda ps: cliplab.clip_by_global_norm_([p.grad for p in ps], 0.1)
    ),
    "use_norm": lambda: clipped(
        lambda ps: cliplab.clip_by_global_norm_([p.grad for p in ps], 0.1, use_norm=10.1)
    ),
    "adaptive_clip_": lambda: clipped(cliplab.adaptive_clip_)[1:],
}


@pytest.mark.parametrize("name", WORK)
def test_default_dtypes_and_devices_change_nothing(name):
    expected = WORK[name]()
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found = WORK[name]()
        finally:
            torch.set_default_dtype(SINGLE)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.set_default_device("meta")
    try:
        found = WORK[name]()
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
