import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from cliplab.lab.data.prices import daily_returns
from cliplab.lab.models.market import (
    FLOOR,
    LEAST_DOF,
    MarketLSTM,
    densities,
    garch_forecast,
    nll,
    windows,
)


def as_torch_lstm(model: MarketLSTM) -> torch.nn.LSTM:
    """The same network as torch's own, whose gates are ordered input, forget, cell, output."""
    hidden = model.w_rec.shape[0]
    own = torch.arange(4 * hidden).view(4, hidden)[[0, 1, 3, 2]].flatten()
    peer = torch.nn.LSTM(2, hidden, batch_first=True)
    with torch.no_grad():
        peer.weight_ih_l0.copy_(model.w_in.T[own])
        peer.weight_hh_l0.copy_(model.w_rec.T[own])
        peer.bias_ih_l0.copy_(model.bias[own])
        peer.bias_hh_l0.zero_()
    return peer


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_lstm_is_torch_s(hidden: int, days: int, seed: int) -> None:
    model = MarketLSTM(hidden, "student", seed=seed)
    x = torch.randn(3, days, 2, generator=torch.Generator().manual_seed(seed))
    expected = as_torch_lstm(model)(x)[0][:, -1] @ model.w_out + model.bias_out
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-6)


def test_vmap_and_the_model_agree() -> None:
    models = [MarketLSTM(4, "gaussian", seed=seed) for seed in range(3)]
    weights = {
        name: torch.stack([m.get_parameter(name) for m in models])
        for name, _ in models[0].named_parameters()
    }
    x = torch.randn(3, 5, 7, 2)
    together = torch.vmap(lambda w, one: functional_call(models[0], w, (one,)))(weights, x)
    alone = torch.stack([m(one) for m, one in zip(models, x, strict=True)])
    torch.testing.assert_close(together, alone)


def test_both_likelihoods_of_a_seed_start_alike_and_knowing_nothing() -> None:
    gaussian, student = (MarketLSTM(6, kind, seed=1) for kind in ("gaussian", "student"))
    assert torch.equal(gaussian.w_rec, student.w_rec)
    assert torch.equal(gaussian.w_out, student.w_out[:, :2])
    assert not torch.equal(gaussian.w_rec, MarketLSTM(6, "gaussian", seed=2).w_rec)
    mu, sigma, dof = densities(torch.zeros(3))
    assert float(mu) == 0
    assert float(sigma) == pytest.approx(1 + FLOOR)
    assert float(dof) == pytest.approx(4.18, abs=0.01)


numbers = st.floats(-6, 6)


@given(numbers, numbers, numbers, st.floats(-30, 30))
def test_losses_are_scipy_s_densities(mu: float, raw: float, shape: float, r: float) -> None:
    sigma = FLOOR + math.exp(raw)
    outputs = torch.tensor([mu, raw, shape], dtype=torch.float64)
    target = torch.tensor(r, dtype=torch.float64)
    normal = -scipy.stats.norm.logpdf(r, mu, sigma)
    assert float(nll(outputs[:2], target)) == pytest.approx(normal, rel=1e-9)
    dof = LEAST_DOF + math.log1p(math.exp(shape + 2))
    student = scipy.stats.t(dof, mu, sigma)
    assert float(nll(outputs, target)) == pytest.approx(-student.logpdf(r), rel=1e-9)


@given(st.floats(-1e4, 1e4))
def test_a_crash_pulls_without_bound_only_under_the_gaussian(r: float) -> None:
    raw = math.log(1 - FLOOR)  # sigma is 1
    for columns in (2, 3):
        outputs = torch.tensor([0.0, raw, 0.0], dtype=torch.float64)[:columns].requires_grad_()
        _, sigma, dof = densities(outputs.detach())
        loss = nll(outputs, torch.tensor(r, dtype=torch.float64))
        by_mu, by_raw = torch.autograd.grad(loss, outputs)[0][:2].tolist()
        by_log_sigma = by_raw * float(sigma) / math.exp(raw)
        if dof is None:
            assert by_mu == pytest.approx(-r)
            assert by_log_sigma == pytest.approx(1 - r**2)
        else:
            nu = float(dof)
            assert abs(by_mu) <= (nu + 1) / (2 * math.sqrt(nu)) + 1e-9
            assert -nu - 1e-9 <= by_log_sigma <= 1
            assert by_log_sigma == pytest.approx(nu * (1 - r**2) / (nu + r**2))


def test_windows_hold_what_was_known_before_the_day() -> None:
    returns = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    inputs, targets = windows(returns, torch.tensor([[2, 4]]), 2)
    assert inputs.shape == (1, 2, 2, 2)
    assert inputs[0, 1].tolist() == [[3.0, 3.0], [-4.0, 4.0]]
    assert targets.tolist() == [[3.0, 5.0]]
    for bad in (1, 5):
        with pytest.raises(ValueError, match=rf"days must be in 2\.\.4: {bad}\.\.{bad}"):
            windows(returns, torch.tensor([bad]), 2)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="likelihood must be gaussian or student, got 'cauchy'"):
        MarketLSTM(4, "cauchy", seed=0)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        MarketLSTM(0, "gaussian", seed=0)
    with pytest.raises(ValueError, match=r"2 or 3 columns, got shape \(5, 4\)"):
        nll(torch.zeros(5, 4), torch.zeros(5))
    with pytest.raises(ValueError, match="got 50, 60, 70"):
        garch_forecast(np.zeros(80), 50, 60, 70)


@pytest.mark.parametrize("dist", ["normal", "t"])
def test_garch_is_filtered_by_hand_with_parameters_of_the_past(dist: str) -> None:
    from arch import arch_model

    returns = daily_returns("fixture").percent[:1500]
    sigma, losses = garch_forecast(returns, 1000, 1200, 1400, dist)
    assert sigma.shape == losses.shape == (200,)
    fitted = arch_model(returns[:1000], vol="GARCH", p=1, q=1, dist=dist, rescale=False).fit(
        disp="off"
    )
    mu, omega, alpha, beta, *nu = fitted.params
    variance = [fitted.conditional_volatility[0] ** 2]
    for r in returns[:1399]:
        variance.append(omega + alpha * (r - mu) ** 2 + beta * variance[-1])
    np.testing.assert_allclose(sigma, np.sqrt(variance[1200:]), rtol=1e-6)
    law = (
        scipy.stats.norm(mu, sigma)
        if dist == "normal"
        else scipy.stats.t(nu[0], mu, sigma * math.sqrt((nu[0] - 2) / nu[0]))
    )
    np.testing.assert_allclose(losses, -law.logpdf(returns[1200:1400]), rtol=1e-6)


def test_garch_does_not_look_ahead() -> None:
    returns = daily_returns("fixture").percent[:1300].copy()
    before = garch_forecast(returns, 1000, 1100, 1300, "t")[0]
    returns[1200:] *= 7  # another future
    after = garch_forecast(returns, 1000, 1100, 1300, "t")[0]
    np.testing.assert_allclose(after[:101], before[:101], rtol=1e-9)
    assert (after[101:] != before[101:]).all()
