"""Random clippers, gradients and streams of them against the definitions in doubles."""

import math
from functools import partial

import pytest
import reference
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import nn

import cliplab
from cliplab import Clipper, NonFiniteGradientError


class BoundedBand(reference.Bounded):
    """Raised is what is below the bounded lower limit."""

    def limit(self, size, know):
        low = self.policy.limit(size, know)
        raises = self.policy.raises
        limit = min(max(low, self.low), self.high)
        over = reference.above(size, self.high)
        self.raises = raises and not over and reference.above(limit, size)
        return limit if self.raises else self.high


# Every policy and the same one by its definition, with parameters that short streams can feel.
POLICIES = {
    "number": (2.0, partial(reference.Fixed, 2.0)),
    "none": (math.inf, partial(reference.Fixed, math.inf)),
    "nothing": (0.0, partial(reference.Fixed, 0.0)),
    "average": (cliplab.MovingAverage(1.2, 4, 2), partial(reference.MovingAverage, 1.2, 4, 2)),
    "ema": (cliplab.EMA(1.05, 0.7, 2, 1.0), partial(reference.EMA, 1.05, 0.7, 2, 1.0)),
    "ema at once": (cliplab.EMA(1.05, 0.7, 0), partial(reference.EMA, 1.05, 0.7, 0, 1.0)),
    "percentile": (cliplab.Percentile(30.0), partial(reference.Percentile, 30.0)),
    "window": (cliplab.Percentile(70.0, 3), partial(reference.Percentile, 70.0, 3)),
    "queue": (cliplab.Queue(4, 1.1, 0.5, 30.0), partial(reference.Queue, 4, 1.1, 0.5, 30.0)),
    "decay": (cliplab.Decay(4.0, 0.5, 2, 0.1), partial(reference.Decay, 4.0, 0.5, 2, 0.1)),
    "rate": (cliplab.TargetRate(0.3, 2.0, 0.4), partial(reference.TargetRate, 0.3, 2.0, 0.4)),
    "weights": (cliplab.WeightRatio(0.1, 1e-3), partial(reference.WeightRatio, 0.1, 1e-3)),
    "trust": (cliplab.TrustRatio(0.1), partial(reference.TrustRatio, 0.1)),
    "deviations": (cliplab.Deviations(0.5, 4, 2), partial(reference.Deviations, 0.5, 4, 2)),
    "stabilizer": (
        cliplab.GradientStabilizer(0.6, 0.9, 1e-12),
        partial(reference.GradientStabilizer, 0.6, 0.9, 1e-12),
    ),
    "adanorm": (cliplab.AdaNorm(0.6), partial(reference.AdaNorm, 0.6)),
    "band": (
        cliplab.AGGC(0.5, (0.9, 1.0), (1.5, 1.0), floor=0.1, raise_small=True),
        partial(reference.AGGC, 0.5, 0.9, 1.5, 0.1, True),
    ),
    "aggc": (cliplab.AGGC(), partial(reference.AGGC, 0.95, 0.95, 0.6, 0.01, False)),
    "bounded band": (
        cliplab.Bounded(cliplab.AdaNorm(0.6), high=3.0),
        lambda: BoundedBand(reference.AdaNorm(0.6), 0.0, 3.0),
    ),
    "rms": (cliplab.RMS(0.5), partial(reference.RMS, 0.5)),
    "robust": (
        cliplab.RobustSpike(2.0, 4, 0.2, 3.0),
        partial(reference.RobustSpike, 2.0, 4, 0.2, 3.0),
    ),
    "spikes": (cliplab.SpikeSkip(2.0, 4, 3, 0.1), partial(reference.SpikeSkip, 2.0, 4, 3, 0.1)),
    "bounded": (
        cliplab.Bounded(cliplab.MovingAverage(2.0, 3, 1), 0.5, 3.0),
        lambda: reference.Bounded(reference.MovingAverage(2.0, 3, 1), 0.5, 3.0),
    ),
    "after": (
        cliplab.AfterWarmup(cliplab.Percentile(50.0), 3, 1.5),
        lambda: reference.AfterWarmup(reference.Percentile(50.0), 3, 1.5),
    ),
} | {
    f"z, {response}": (
        cliplab.ZScore(0.8, 1.0, 3, response),
        partial(reference.ZScore, 0.8, 1.0, 3, response),
    )
    for response in ("reciprocal", "mean", "level")
}
STANDING = ["number", "none", "nothing"]
BANDS = [name for name, (policy, _) in POLICIES.items() if getattr(policy, "band", False)]
CASES = [
    (scope, mode)
    for scope in ("global", "group", "tensor", "unit", "element", "member")
    for mode in ("rescale", "soft", "normalise", "skip")
    if (scope != "element" or mode not in ("soft", "normalise"))
    and (mode != "skip" or scope in ("global", "group", "tensor"))
]
SHAPES = [(), (1,), (5,), (0,), (4, 3), (3, 0), (2, 3, 2, 2), (1, 6)]
MEMBERS = [(3,), (3, 4), (3, 2, 5), (3, 0)]
ROUNDING = {
    torch.float32: 1e-6,
    torch.float64: 1e-13,
    torch.complex64: 1e-6,
    torch.complex128: 1e-13,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
LAYOUTS = ["plain", "transposed", "strided", "rows", "entries", "twice"]


def laid_out(dense: torch.Tensor, layout: str) -> torch.Tensor:
    """The same gradient, its entries elsewhere in memory."""
    if layout == "transposed" and dense.ndim > 1:
        return dense.transpose(0, -1).clone(memory_format=torch.contiguous_format).transpose(0, -1)
    if layout == "strided" and dense.ndim:
        return torch.stack([dense, dense + 1], dim=-1)[..., 0]
    if layout in ("rows", "twice") and dense.ndim > 1 and dense.numel():
        grad = dense.to_sparse(1)
        if layout == "twice":  # every row as two addends that sum exactly
            indices = torch.cat([grad.indices(), grad.indices()], dim=1)
            values = torch.cat([grad.values(), torch.zeros_like(grad.values())])
            return torch.sparse_coo_tensor(indices, values, dense.shape, check_invariants=True)
        return grad
    if layout == "entries" and dense.ndim > 1 and dense.numel():
        return dense.to_sparse()
    return dense.clone()


class Stream:
    """Parameters, and their gradients step by step."""

    def __init__(self, seed, shapes, dtypes, layouts, exponent, bad):
        self.random = torch.Generator().manual_seed(seed)
        self.layouts, self.exponent, self.bad = layouts, exponent, bad
        self.params = [
            nn.Parameter(self.draw(shape).to(dtype))
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]

    def draw(self, shape):
        return torch.randn(shape, generator=self.random, dtype=torch.float64)

    def chance(self, share):
        return torch.rand((), generator=self.random).item() < share

    def step(self):
        """Set the gradients; return them dense, None where there is none."""
        scale = 10 ** (self.exponent + 0.5 * self.draw(()).item())
        grads = []
        for i, (p, layout) in enumerate(zip(self.params, self.layouts, strict=True)):
            if i and self.chance(0.15):
                p.grad = None
                grads.append(None)
                continue
            dense = self.draw(p.shape) * scale
            if p.dtype.is_complex:
                dense = torch.complex(dense, self.draw(p.shape) * scale)
            dense = dense.to(p.dtype)
            for value in self.bad:
                if dense.numel() and self.chance(0.15):
                    entry = torch.randint(dense.numel(), (), generator=self.random)
                    dense.view(-1)[entry] = value
            p.grad = laid_out(dense, layout)
            grads.append(dense)
        return grads


def numbers(column):
    return [float(x) for x in column.reshape(-1)]


def total(scope, order, size, sizes, learns):
    """The norm of all that is learnt; every member is a gradient of its own."""
    usable = [n for n, ok in zip(sizes, learns, strict=True) if ok]
    return (
        size
        if scope == "member"
        else reference.norm([torch.tensor(usable, dtype=torch.float64)], order)
    )


@pytest.mark.filterwarnings("ignore:a threshold of 0")
@pytest.mark.parametrize(("scope", "mode"), CASES)
@given(data=st.data())
def test_a_stream_of_gradients_is_clipped_as_defined(scope, mode, data):
    count = data.draw(st.integers(1, 4), "tensors")
    several = partial(st.lists, min_size=count, max_size=count)
    shapes = data.draw(several(st.sampled_from(MEMBERS if scope == "member" else SHAPES)), "shapes")
    dtypes = data.draw(several(st.sampled_from(list(ROUNDING))), "dtypes")
    layouts = data.draw(several(st.sampled_from(LAYOUTS)), "layouts")
    bad = data.draw(st.sampled_from([(), (math.nan,), (math.inf,), (math.nan, -math.inf)]), "bad")
    exponent = data.draw(st.floats(-1.0, 2.0), "exponent")
    seed = data.draw(st.integers(0, 2**32), "seed")
    stream = Stream(seed, shapes, dtypes, layouts, exponent, bad)
    names = (
        STANDING
        if scope == "element"
        else [name for name in POLICIES if mode == "rescale" or name not in BANDS]
    )
    policy, definition = POLICIES[data.draw(st.sampled_from(names), "policy")]
    order = data.draw(st.sampled_from([2.0, 1.0, 3.0, math.inf]), "norm type")
    nonfinite = data.draw(st.sampled_from(["raise", "skip", "zero", "propagate"]), "nonfinite")
    attached = data.draw(st.booleans(), "attached")
    default = data.draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), "default")
    split = (count + 1) // 2
    groups = [list(range(split)), list(range(split, count))][: 1 + (count > 1)]
    torch.set_default_dtype(default)
    try:
        clipper = Clipper(
            [{"params": [stream.params[i] for i in group]} for group in groups],
            policy,
            scope=scope,
            norm_type=order,
            mode=mode,
            nonfinite=nonfinite,
        )
        compare(clipper, stream, groups, definition, attached)
    except reference.Undecided:
        reject()
    finally:
        torch.set_default_dtype(torch.float32)


def compare(clipper, stream, groups, definition, attached):
    """Eight steps of a clipper, by hand or at an optimizer of rate 1, and of its definition."""
    params, scope, mode, nonfinite = stream.params, clipper.scope, clipper.mode, clipper.nonfinite
    optimizer = torch.optim.SGD(params, lr=1.0)
    if attached:
        clipper.attach(optimizer)
    order = math.inf if scope == "element" else clipper.norm_type
    exactly = {p.dtype for p in params} <= {torch.float64, torch.complex128}
    rounding = 1e-12 if exactly else 2e-6
    owners = reference.owners(scope, params, groups)
    rules = [definition() for _ in owners]
    for step in range(8):
        grads = stream.step()
        before = [p.detach().clone() for p in params]
        if not all(bool(p.isfinite().all()) for p in before):
            return
        weights = reference.parts(scope, before, groups)
        after = [
            torch.zeros_like(p) if g is None else g for p, g in zip(before, grads, strict=True)
        ]
        parts = reference.parts(scope, after, groups)
        exact = [reference.norm(part, order) for part in parts]
        if nonfinite == "raise" and not all(map(math.isfinite, exact)):
            with pytest.raises(NonFiniteGradientError, match=f"step {step}"):
                optimizer.step() if attached else clipper.clip()
            return
        optimizer.step() if attached else clipper.clip()

        sizes, limits = (
            numbers(c[-1]) for c in (clipper.history.norm_before, clipper.history.threshold)
        )
        assert sizes == pytest.approx(exact, rel=rounding, nan_ok=True)
        active = [any(grads[i] is not None for i in own) for own in owners]
        learns = [a and math.isfinite(n) for a, n in zip(active, sizes, strict=True)]
        for i, rule in enumerate(rules):
            if learns[i]:
                know = {
                    "total": total(scope, clipper.norm_type, sizes[i], sizes, learns),
                    "weight": reference.norm(weights[i], clipper.norm_type),
                    "entries": sum(t.numel() for t in weights[i]),
                }
                assert limits[i] == pytest.approx(rule.limit(sizes[i], know), rel=2e-4)

        raises = [rule.raises and known for rule, known in zip(rules, learns, strict=True)]
        factors, skipped = reference.factors(sizes, limits, raises, mode, nonfinite)
        assert bool(clipper.history.skipped[-1].any()) == skipped
        clip(scope, parts, sizes, limits, factors, skipped, nonfinite)
        for p, old, new, raw in zip(params, before, after, grads, strict=True):
            if raw is not None:
                close(p.grad.to_dense(), new)
            if attached:
                moved = skipped or raw is None
                close(p.detach(), old if moved else old - p.grad.to_dense())


def clip(scope, parts, sizes, limits, factors, skipped, nonfinite):
    """Do to the entries of every part what the step says."""
    for part, size, limit, factor in zip(parts, sizes, limits, factors, strict=True):
        for tensor in part:
            if nonfinite == "zero" and not math.isfinite(size):
                tensor.zero_()
            elif scope != "element" and factor != 1:
                tensor.mul_(factor)
            elif scope == "element" and not skipped:
                tensor.copy_(reference.clamped(tensor, limit))


def close(found, wanted):
    if wanted.is_complex():  # times a real factor, an infinite number has a part that is NaN
        lost = ~wanted.isfinite()
        assert torch.equal(lost, ~found.isfinite())
        found, wanted = found.masked_fill(lost, 0), wanted.masked_fill(lost, 0)
    rounding = ROUNDING[wanted.dtype]
    torch.testing.assert_close(found, wanted, rtol=rounding, atol=1e-30, equal_nan=True)
