"""The probe: what it recommends, and that it leaves no trace."""

import copy
import math

import pytest
import torch
from torch import nn

from cliplab.diagnosis import find_threshold


def test_returned_norms_and_measured_ones_agree():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def norm(step):
        model.zero_grad()
        model(torch.randn(6, 4)).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).norm()

    torch.manual_seed(1)
    returned = find_threshold(norm, 30)
    torch.manual_seed(1)
    measured = find_threshold(norm, 30, params=model)
    torch.testing.assert_close(returned.norms, measured.norms)
    assert returned.threshold == measured.threshold
    assert returned.stable.tolist() == [False] * 3 + [True] * 27


def test_one_huge_norm_does_not_move_the_threshold():
    plain = find_threshold(lambda step: 1 + step % 10, 200)
    spiked = find_threshold(lambda step: 1e9 if step == 99 else 1 + step % 10, 200)
    assert plain.threshold == spiked.threshold == 9.0
    assert not spiked.diverged
    assert plain.band == (2.5, 50.0)


def test_a_heavy_tail_is_held_to_ten_times_the_median():
    assert find_threshold(lambda step: 1e3 if step % 5 == 0 else 1.0, 200).threshold == 10.0


@pytest.mark.parametrize("end", [1.5, math.nan, math.inf])
def test_a_diverging_probe_says_so_and_uses_what_came_before(end):
    result = find_threshold(lambda step: 1.0 + step % 2 if step < 120 else 100 * end ** (step - 90))
    assert result.diverged
    assert result.threshold == 2.0
    assert not result.stable[120:].any()
    assert "diverged" in str(result)
    assert "tenth of the learning rate" in str(result)


@pytest.mark.parametrize(
    ("norms", "advice"),
    [([1.0] * 10, "probe longer"), ([1.0] * 10 + [math.nan] * 90, "at a tenth of the learning")],
)
def test_too_few_stable_steps_give_no_threshold(norms, advice):
    result = find_threshold(lambda step: norms[step], len(norms))
    assert math.isnan(result.threshold)
    assert not result.found
    assert advice in result.advice


class Stateful(nn.Module):
    """Buffers of all kinds, dropout, and a parameter without a gradient."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls = self.calls + 1  # another tensor every time
        return self.net(x) * self.scale.float().sum()


def everything(model, optimizer):
    tensors = [*model.parameters(), *model.buffers()]
    grads = [p.grad for p in model.parameters()]
    options = [
        {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
    ]
    state = [optimizer.state.get(p) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return copy.deepcopy((tensors, grads, options, state, modes, torch.get_rng_state()))


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("stepped", [0, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_a_probe_leaves_no_trace(stepped, fails):
    model = Stateful()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, amsgrad=True)

    def step_fn(step):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        model(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
        if fails and step == 3:
            raise RuntimeError("broken")

    for step in range(stepped):
        step_fn(step)
    for state in optimizer.state.values():  # wider than a bfloat16 parameter
        state["master"] = torch.full((3,), 1 + 1e-6)
    model.net.eval()
    identities = [id(t) for t in (*model.parameters(), *model.buffers())]
    before = everything(model, optimizer)
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            find_threshold(step_fn, 30, params=model, model=model, optimizer=optimizer)
    else:
        find_threshold(step_fn, 30, params=model, model=model, optimizer=optimizer)
    assert same(before, everything(model, optimizer))
    assert identities == [id(t) for t in (*model.parameters(), *model.buffers())]
    step_fn(0)
    assert not same(before, everything(model, optimizer))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: find_threshold(lambda step: 1.0, 0), "steps must be an integer >= 1"),
        (lambda: find_threshold(lambda step: None), "returned None: return the gradient norm"),
        (lambda: find_threshold(lambda step: -1.0), "norms >= 0, got -1"),
        (lambda: find_threshold(lambda step: 0.0), "every norm was 0"),
        (lambda: find_threshold(lambda step: 1, params=nn.Linear(1, 1)), "every norm was 0"),
    ],
)
def test_bad_arguments_are_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_a_model_given_is_measured_where_the_step_returns_nothing():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def step(_):
        model(torch.ones(4, 3)).square().mean().backward()

    measured = find_threshold(step, steps=30, model=model)
    assert model.weight.grad is None
    model(torch.ones(4, 3)).square().mean().backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert measured.norms.tolist() == pytest.approx([norm.item()] * 30)
    returned = find_threshold(lambda _: (step(_), 7.0)[1], steps=30, model=model)
    assert returned.norms.tolist() == [7.0] * 30


@pytest.mark.parametrize("layer", [nn.LazyLinear(2), nn.LazyBatchNorm1d(affine=False)])
def test_a_lazy_model_wants_a_forward_pass_first(layer):
    with pytest.raises(ValueError, match=r"is lazy, it has no shape yet: run a forward pass first"):
        find_threshold(lambda step: 1.0, model=layer)


@pytest.mark.parametrize("params", [[], (), iter([]), nn.ReLU()])
def test_params_that_hold_none_are_not_taken_for_a_norm_returned(params):
    with pytest.raises(ValueError, match="no parameters to measure: params holds none"):
        find_threshold(lambda step: torch.tensor(0.7), params=params)
