import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper, Percentile

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


def snapshot(params, optimizer):
    tensors = [p.detach().clone() for p in params]
    for p in params:
        tensors += [
            torch.as_tensor(v).clone() for v in optimizer.state[p].values() if v is not None
        ]
    return tensors


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("cause", ["mode", "nonfinite"])
def test_a_skipped_step_moves_nothing(make, cause):
    params = with_gradients([0.3, 0.4], [0.1])
    optimizer = make(params)
    settings = {"mode": "skip"} if cause == "mode" else {"nonfinite": "skip"}
    clipper = Clipper(params, 1.0, **settings)
    clipper.attach(optimizer)
    optimizer.step()
    before = snapshot(params, optimizer)
    spike = torch.tensor([30.0 if cause == "mode" else math.nan, 40.0])
    params[0].grad = spike.clone()
    optimizer.step()
    after = snapshot(params, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(params[0].grad.nan_to_num(), spike.nan_to_num())
    assert clipper.history.skipped.tolist() == [False, True]
    assert clipper.history.effective_lr.tolist() == pytest.approx([0.1, 0.0])
    params[0].grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert not torch.equal(params[0], before[0])


def test_attach_clips_before_the_step_and_remove_stops_it():
    params = with_gradients([30.0, 40.0])
    optimizer = torch.optim.SGD(params, lr=1.0)
    clipper = Clipper(params, 1.0)
    with clipper.attach(optimizer):
        optimizer.step()
    assert params[0].tolist() == pytest.approx([0.4, 0.2])
    assert clipper.history.effective_lr.tolist() == pytest.approx([0.02])
    optimizer.step()
    assert len(clipper.history) == 1


def test_attach_refuses_what_would_go_wrong():
    params = with_gradients([1.0], [2.0])
    with pytest.raises(ValueError, match="1 of 2 are missing"):
        Clipper(params).attach(torch.optim.SGD(params[:1], lr=0.1))
    optimizer = torch.optim.SGD(params, lr=0.1)
    with pytest.raises(ValueError, match="same optimizer twice"):
        Clipper(params).attach(optimizer, optimizer)
    with pytest.raises(ValueError, match="hold the same parameter"):
        Clipper(params).attach(optimizer, torch.optim.SGD(params[:1], lr=0.1))


def test_a_clipper_serves_one_optimizer_and_reads_the_lr_of_its_own_group():
    params = with_gradients([1.0], [2.0])
    optimizer = torch.optim.SGD([{"params": params[:1], "lr": 1.0}, {"params": params[1:]}], lr=0.1)
    clipper = Clipper(params[1:])
    attachment = clipper.attach(optimizer)
    with pytest.raises(ValueError, match="already attached"):
        clipper.attach(optimizer)
    optimizer.step()
    assert clipper.history.lr.tolist() == pytest.approx([0.1])
    assert clipper.history.effective_lr.tolist() == pytest.approx([0.05])
    attachment.remove()
    clipper.attach(optimizer).remove()


def test_two_optimizers_with_a_clipper_each_and_accumulated_gradients():
    generator, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (generator, critic)]
    clippers = [Clipper(generator, 0.01), Clipper(critic, math.inf)]
    for clipper, optimizer in zip(clippers, optimizers, strict=True):
        clipper.attach(optimizer)
    for micro_batch in range(4):
        critic(generator(torch.randn(5, 3))).mean().backward()
        if micro_batch % 2:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert [len(clipper.history) for clipper in clippers] == [2, 2]
    assert clippers[0].history.clipped.all()
    assert not clippers[1].history.clipped.any()


def test_gradients_hidden_for_a_step_that_raised_do_not_come_back():
    params = with_gradients([30.0, 40.0])
    optimizer = torch.optim.SGD(params, lr=1.0)
    clipper = Clipper(params, 1.0, mode="skip")
    clipper.attach(optimizer)

    def fail(*_):
        raise RuntimeError("another hook")

    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="another hook"):
        optimizer.step()
    hook.remove()
    params[0].grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert params[0].tolist() == pytest.approx([0.7, 0.6])


def test_fp16_with_a_fused_optimizer_and_the_default_loss_scale():
    def step(attached):
        params = [nn.Parameter(torch.zeros(2, dtype=torch.float16))]
        optimizer = torch.optim.Adam(params, lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
        clipper = Clipper(params, 1.0)
        if attached:
            clipper.attach(optimizer)
        scaler.scale((params[0] * torch.tensor([0.1, 0.2])).sum()).backward()
        scaler.step(optimizer)
        return params[0].detach(), clipper

    plain, _ = step(attached=False)
    ours, clipper = step(attached=True)
    torch.testing.assert_close(ours, plain)
    assert clipper.history.norm_before.tolist() == pytest.approx([0.05**0.5], rel=1e-3)


def test_a_step_the_scaler_drops_is_recorded_as_skipped():
    params = with_gradients([1.0])
    optimizer = torch.optim.SGD(params, lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    clipper = Clipper(params, Percentile(50))
    clipper.attach(optimizer)
    scaler.scale((params[0] * math.inf).sum()).backward()
    scaler.step(optimizer)
    assert clipper.history.effective_lr.tolist() == [0.0]
    assert clipper.policy.state["count"].tolist() == [0]
    assert params[0].tolist() == [1.0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_gives_the_updates_of_the_unscaled_run(fused, unscale):
    def train(scale):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
        clipper = Clipper(model, Percentile(50))
        clipper.attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scale)
        for step in range(6):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 3)).square().mean() * (math.inf if step == 3 else 1.0)
            if step == 3 and not scale:
                continue
            scaler.scale(loss).backward()
            if unscale and scale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        state = clipper.policy.state_dict()
        return torch.cat([p.detach().flatten() for p in model.parameters()]), state["count"]

    (scaled, seen), (plain, expected) = train(True), train(False)
    torch.testing.assert_close(scaled, plain)
    assert seen.tolist() == expected.tolist() == [5]


# --- skipping, scaling and handing the factor over ---------------------------------------------


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("cause", ["mode", "nonfinite"])
def test_a_first_step_skipped_leaves_no_trace(make, cause):
    spike = [30.0 if cause == "mode" else math.nan, 40.0]
    settings = {"mode": "skip"} if cause == "mode" else {"nonfinite": "skip"}
    finals = []
    for first in ([spike], []):
        params = with_gradients(spike)
        optimizer = make(params)
        Clipper(params, 1.0, **settings).attach(optimizer)
        for grad in [*first, [0.3, 0.4], [0.1, 0.2]]:
            params[0].grad = torch.tensor(grad)
            optimizer.step()
        finals.append(params[0].detach())
    assert torch.equal(*finals)


def test_fused_sgd_with_dampening_survives_a_skipped_first_step():
    params = with_gradients([30.0, 40.0])
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    Clipper(params, 1.0, mode="skip").attach(optimizer)
    optimizer.step()
    params[0].grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert params[0].tolist() == pytest.approx([0.97, 0.96])


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise", "skip"])
@pytest.mark.parametrize("kind", ["sgd fused", "adamw fused"])
def test_a_factor_handed_over_gives_the_steps_of_gradients_clipped_in_place(
    monkeypatch, kind, mode, scale
):
    def train(worth):
        monkeypatch.setattr("cliplab.clipper.fast_step.WORTH", worth)
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = OPTIMIZERS[kind](model.parameters())
        clipper = Clipper(model, Percentile(60.0), mode=mode, nonfinite="skip")
        clipper.attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for step in range(8):
            optimizer.zero_grad()
            bad = math.inf if step == 4 else 1.0
            scaler.scale(model(torch.randn(4, 3)).square().mean() * bad).backward()
            scaler.step(optimizer)
            scaler.update()
        assert not hasattr(optimizer, "grad_scale")
        assert not hasattr(optimizer, "found_inf")
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        return weights, clipper.history.norm_before, clipper.history.skipped

    lent, in_place = train(0), train(10**9)
    torch.testing.assert_close(lent[0], in_place[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(lent[1], in_place[1], equal_nan=True)
    assert torch.equal(lent[2], in_place[2])
    assert lent[2][4]


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_grows_and_backs_off_as_without_a_clipper(fused):
    def train(clip):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        clipper = Clipper(model, math.inf)
        if clip:
            clipper.attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        scales = []
        for step in range(9):
            optimizer.zero_grad()
            bad = math.inf if step == 5 else 1.0
            scaler.scale(model(torch.randn(4, 3)).square().mean() * bad).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return scales, torch.cat([p.detach().flatten() for p in model.parameters()])

    (ours, weights), (plain, expected) = train(True), train(False)
    assert ours == plain
    assert len(set(ours)) > 2
    torch.testing.assert_close(weights, expected)


def test_gradient_accumulation_is_clipped_once():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    clipper = Clipper(model, 0.5)
    clipper.attach(optimizer)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    for _ in range(4):
        model(torch.randn(4, 3)).square().mean().backward()
    raw = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    optimizer.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert clipper.history.norm_before.tolist() == pytest.approx([raw.item()])
    assert (after - before).norm().item() == pytest.approx(0.5, rel=1e-5)


def test_a_loss_that_is_observed_reaches_the_policy_once():
    params = with_gradients([0.3, 0.4])
    optimizer = torch.optim.SGD(params, lr=0.1)
    clipper = cliplab.create("spike_skip", params, window=8, warmup=4)
    clipper.attach(optimizer)
    for loss in [1.0, 1.1, 0.9, 1.0, 1.05, math.nan, 1.0, 50.0, 1.0]:
        clipper.observe(torch.tensor(loss))
        params[0].grad = torch.tensor([0.3, 0.4])
        optimizer.step()
    optimizer.step()
    skipped = clipper.history.skipped.tolist()
    assert [i for i, s in enumerate(skipped) if s] == [5, 7]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_on_cuda(fused):
    torch.manual_seed(0)
    model = nn.Linear(3, 1).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    clipper = Clipper(model, Percentile(50))
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    for step in range(6):
        optimizer.zero_grad()
        bad = math.inf if step == 3 else 1.0
        scaler.scale(model(torch.randn(4, 3).cuda()).square().mean() * bad).backward()
        scaler.step(optimizer)
        scaler.update()
    assert clipper.policy.state["count"].tolist() == [5]
    assert all(p.isfinite().all() for p in model.parameters())
