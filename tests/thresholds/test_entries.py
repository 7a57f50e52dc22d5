"""Entries clamped at multiples of their own past."""

import copy
import io
import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Bounded, Clipper, EntryDeviations, NonFiniteGradientError


def stream(steps, *shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        scale = 40.0 if step % 9 == 8 else 1.0
        yield [scale * torch.randn(s, generator=draw) for s in shapes]


def of(params, **options):
    options = {"warmup": 3} | options
    nonfinite = options.pop("nonfinite", "raise")
    return Clipper(params, EntryDeviations(**options), scope="element", nonfinite=nonfinite)


def clip(clipper, grads):
    for p, g in zip(clipper.params, grads, strict=True):
        p.grad = None if g is None else g.clone().to(p.dtype)
    return clipper.clip()


def test_entries_within_are_left_bit_for_bit_and_the_record_says_what_was_done():
    params = with_gradients(torch.zeros(5, 4), torch.zeros(()))
    clipper, clipped = of(params), 0
    for grads in stream(30, (5, 4), ()):
        units = [clipper.policy._units([i])[0] for i in range(2)]
        report = clip(clipper, grads)
        ratios = torch.cat([(g.abs() / u).flatten() for g, u in zip(grads, units, strict=True)])
        torch.testing.assert_close(report.norm_before, ratios.max())
        assert report.threshold == 3.0
        assert bool(report.clipped) == bool((ratios > 3).any())
        after = torch.cat([p.grad.flatten() for p in params])
        before = torch.cat([g.flatten() for g in grads])
        assert torch.equal(after[ratios <= 2.9999], before[ratios <= 2.9999])
        torch.testing.assert_close(report.factor, after.norm() / before.norm())
        clipped += int(report.clipped)
    assert 3 <= clipped < 30


def test_the_first_gradients_of_a_warm_up_are_learnt_unclamped():
    params = with_gradients(torch.zeros(3))
    clipper = of(params, warmup=2)
    for size in (1.0, 50.0):
        assert not clip(clipper, [torch.full((3,), size)]).clipped
    assert clip(clipper, [torch.full((3,), 1e3)]).clipped


def test_without_a_warm_up_a_stream_of_ones_first_passes_at_step_794():
    weight = nn.Parameter(torch.zeros(2))
    clipper = cliplab.create("adamw_clip", [weight])
    for _ in range(794):
        clip(clipper, [torch.ones(2)])
    assert clipper.history.clipped.tolist() == [True] * 793 + [False]
    assert torch.equal(weight.grad, torch.ones(2))
    weight = nn.Parameter(torch.zeros(2))
    clip(cliplab.create("adamw_clip", [weight]), [torch.ones(2)])
    torch.testing.assert_close(weight.grad, torch.full((2,), 1e-10))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("nonfinite", ["skip", "zero", "propagate"])
def test_what_is_not_finite_is_not_learnt(bad, nonfinite):
    poisoned, reference = (
        of(with_gradients(torch.zeros(4), torch.zeros(2)), nonfinite=nonfinite) for _ in range(2)
    )
    for step, grads in enumerate(stream(12, (4,), (2,))):
        if step in (1, 7):
            hurt = [g.clone() for g in grads]
            hurt[0][1] = bad
            clip(poisoned, hurt)
        clip(poisoned, grads)
        clip(reference, grads)
        for p, q in zip(poisoned.params, reference.params, strict=True):
            assert torch.equal(p.grad, q.grad)
    torch.testing.assert_close(poisoned.policy.state, reference.policy.state, rtol=0, atol=0)


def test_a_tensor_without_a_gradient_learns_nothing():
    params = with_gradients(torch.zeros(4), torch.zeros(2))
    clipper, alone = of(params), of(with_gradients(torch.zeros(4)))
    for grads in stream(9, (4,), (2,)):
        clip(clipper, [grads[0], None])
        clip(alone, grads[:1])
    assert int(clipper.policy.state["seen 1"]) == 0
    assert torch.equal(clipper.policy.state["rms 0"], alone.policy.state["rms 0"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_clamped_alike(dtype):
    params = with_gradients(torch.zeros(50), dtype=dtype)
    clipper, wide = of(params), of(with_gradients(torch.zeros(50)))
    rounding = 4 * max(torch.finfo(dtype).eps, 2**-22)
    for (grad,) in stream(20, (50,)):
        grad = grad.to(dtype)
        clip(clipper, [grad])
        clip(wide, [grad.float()])
        torch.testing.assert_close(
            params[0].grad.float(), wide.params[0].grad, rtol=rounding, atol=0
        )


def test_a_loss_scale_changes_nothing_even_in_half_precision():
    scale = 2.0**12
    weight = nn.Parameter(torch.zeros(30, dtype=torch.float16))
    clipper, plain = of([weight]), of(with_gradients(torch.zeros(30)))
    for step, (grad,) in enumerate(stream(12, (30,))):
        small = grad * 1e-6  # without its scale it is below the smallest fp16 number
        held = (small * scale).half()
        weight.grad = held.clone()
        signal = cliplab.clipper.engine.Signal(scale=torch.tensor(scale))
        clipper.step(signal)
        clip(plain, [held.float() / scale])
        torch.testing.assert_close(
            weight.grad.float() / scale, plain.params[0].grad, rtol=2e-3, atol=1e-10, msg=str(step)
        )


def test_a_saved_clipper_goes_on_bit_for_bit():
    whole, again = (of(with_gradients(torch.zeros(4, 3), torch.zeros(2))) for _ in range(2))
    grads = list(stream(20, (4, 3), (2,)))
    for each in grads[:11]:
        clip(whole, each)
    torch.save(whole.state_dict(), file := io.BytesIO())
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(whole)
    for each in grads[11:]:
        for clipper in (whole, again, copied):
            clip(clipper, each)
        for p, q, r in zip(whole.params, again.params, copied.params, strict=True):
            assert torch.equal(p.grad, q.grad)
            assert torch.equal(p.grad, r.grad)


def test_nothing_waits_for_a_device_and_the_result_is_the_same(monkeypatch):
    grads = list(stream(12, (4,), (2,)))
    results = []
    for look in (True, False):
        monkeypatch.setattr("cliplab.checks.LOOK", look)
        clipper = of(with_gradients(torch.zeros(4), torch.zeros(2)), nonfinite="skip")
        for each in grads:
            clip(clipper, each)
        results.append([p.grad for p in clipper.params])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit"])
@pytest.mark.parametrize("policy", [EntryDeviations(), Bounded(EntryDeviations(), high=2.0)])
def test_other_scopes_are_refused(scope, policy):
    with pytest.raises(ValueError, match=r'EntryDeviations.* needs scope "element", got'):
        Clipper(with_gradients([1.0]), policy, scope=scope)


@pytest.mark.parametrize("policy", [Bounded(EntryDeviations(), high=2.0), cliplab.Decay()])
def test_policies_of_whole_parts_are_refused_for_entries(policy):
    with pytest.raises(ValueError, match="needs a fixed threshold or EntryDeviations"):
        Clipper(with_gradients([1.0]), policy, scope="element")


def test_sparse_and_complex_gradients_are_refused_by_name():
    weight = nn.Parameter(torch.zeros(3, 2))
    weight.grad = torch.ones(3, 2).to_sparse(1)
    with pytest.raises(ValueError, match="takes dense gradients, got a sparse one"):
        of([weight]).clip()
    with pytest.raises(ValueError, match="takes neither sharded nor complex parameters"):
        of(with_gradients(torch.zeros(2, dtype=torch.complex64)))


def test_alone_it_says_that_it_needs_a_clipper():
    params = with_gradients([1.0])
    clipper = Clipper(params, 1.0)
    clipper.clip()
    with pytest.raises(ValueError, match="EntryDeviations clamps entries: use it in a Clipper"):
        clipper.history.replay(EntryDeviations())


def test_a_bad_gradient_raises_and_changes_nothing():
    params = with_gradients(torch.zeros(2))
    clipper = of(params)
    clip(clipper, [torch.ones(2)])
    before = {name: t.clone() for name, t in clipper.policy.state.items()}
    with pytest.raises(NonFiniteGradientError):
        clip(clipper, [torch.tensor([math.nan, 1.0])])
    torch.testing.assert_close(clipper.policy.state, before)
