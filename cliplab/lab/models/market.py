"""Forecasters of tomorrow's return: an LSTM with two likelihoods, and GARCH(1,1) by ``arch``.

Shapes: B windows, T days, H hidden units, O outputs (2: Gaussian, 3: Student-t).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from arch.univariate.base import ARCHModel

Likelihood = Literal["gaussian", "student"]
OUTPUTS: dict[Likelihood, int] = {"gaussian": 2, "student": 3}
FLOOR = 0.05  # of sigma, in units of the training span's standard deviation
LEAST_DOF = 2.05  # the variance of Student's t is finite above 2


class MarketLSTM(nn.Module):
    """An LSTM over the last T returns, read out after the last: ``[B,T,2] -> [B,O]``.

    Inputs are r and abs(r) in units of the training span's standard deviation; outputs are those
    of :func:`densities`. Weights are uniform in +-1/sqrt(H) as torch's, the forget gate's bias 1,
    the readout's bias 0. Written with plain operations, so that ``torch.vmap`` can train many.
    Source: Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    def __init__(self, hidden: int, likelihood: Likelihood, *, seed: int) -> None:
        super().__init__()
        if likelihood not in OUTPUTS:
            raise ValueError(f"likelihood must be gaussian or student, got {likelihood!r}")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden!r}")
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(hidden)

        def draw(*shape: int) -> Tensor:
            return bound * (2 * torch.rand(*shape, generator=generator) - 1)

        self.w_in = nn.Parameter(draw(2, 4 * hidden))  # gates: input, forget, output, cell
        self.w_rec = nn.Parameter(draw(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.w_out = nn.Parameter(draw(hidden, 3)[:, : OUTPUTS[likelihood]].contiguous())
        self.bias_out = nn.Parameter(torch.zeros(OUTPUTS[likelihood]))
        with torch.no_grad():
            self.bias[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Run over all T days and read out the last hidden state."""
        width = self.w_rec.shape[0]
        one = x.new_ones(width)
        scale = torch.cat((one, one, one, 2 * one))  # tanh(a) = 2 sigmoid(2a) - 1: one call a day
        w_rec = self.w_rec * scale
        drives = (x.transpose(0, 1) @ self.w_in + self.bias) * scale
        hidden = cell = drives[0, :, :width] * 0
        for drive in drives.unbind(0):
            i, f, o, g = torch.sigmoid(torch.addmm(drive, hidden, w_rec)).chunk(4, dim=-1)
            cell = f * cell + i * (2 * g - 1)
            hidden = o * torch.tanh(cell)
        return hidden @ self.w_out + self.bias_out


def densities(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Location, scale and degrees of freedom (None: Gaussian) of outputs [...,O], each [...].

    ``mu = o_0``, ``sigma = 0.05 + exp(o_1)``, ``nu = 2.05 + softplus(o_2 + 2)``; a model that
    knows nothing (o = 0) forecasts about N(0, 1), or a t of some 4 degrees of freedom.
    """
    if outputs.shape[-1] not in OUTPUTS.values():
        raise ValueError(f"outputs must have 2 or 3 columns, got shape {tuple(outputs.shape)}")
    mu, sigma = outputs[..., 0], FLOOR + outputs[..., 1].exp()
    dof = LEAST_DOF + softplus(outputs[..., 2] + 2) if outputs.shape[-1] == 3 else None
    return mu, sigma, dof


def nll(outputs: Tensor, returns: Tensor) -> Tensor:
    """Negative log-likelihood of every day (nats): outputs [...,O], returns [...] -> [...].

    With ``z = (r - mu) / sigma``: Gaussian ``ln sigma + z^2/2 + ln(2 pi)/2``; Student-t
    ``ln sigma + (nu+1)/2 ln(1 + z^2/nu) + ln(pi nu)/2 + ln Gamma(nu/2) - ln Gamma((nu+1)/2)``.
    """
    mu, sigma, dof = densities(outputs)
    z = (returns - mu) / sigma
    if dof is None:
        return sigma.log() + z.square() / 2 + math.log(2 * math.pi) / 2
    constant = torch.lgamma(dof / 2) - torch.lgamma((dof + 1) / 2) + (math.pi * dof).log() / 2
    return sigma.log() + (dof + 1) / 2 * torch.log1p(z.square() / dof) + constant


def windows(returns: Tensor, days: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """What is known before `days` [...], and their returns: [...,length,2] and [...].

    A window holds r and abs(r) of the `length` days before the day that is to be forecast.

    >>> inputs, targets = windows(torch.tensor([1.0, -2.0, 3.0]), torch.tensor([2]), 2)
    >>> inputs.tolist(), targets.tolist()
    ([[[1.0, 1.0], [-2.0, 2.0]]], [3.0])
    """
    if days.numel() and not length <= int(days.min()) <= int(days.max()) < len(returns):
        raise ValueError(
            f"days must be in {length}..{len(returns) - 1}: {int(days.min())}..{int(days.max())}, "
            f"for windows of {length} days"
        )
    past = returns[days.unsqueeze(-1) + torch.arange(-length, 0, device=days.device)]
    return torch.stack((past, past.abs()), dim=-1), returns[days]


def garch_forecast(
    returns: NDArray[np.float64],
    train_stop: int,
    start: int,
    stop: int,
    dist: Literal["normal", "t"] = "normal",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One-day-ahead forecasts of a GARCH(1,1) with constant mean fitted to the days before a date.

    ``r_t = mu + s_t e_t``, ``s_t^2 = omega + alpha (r_{t-1} - mu)^2 + beta s_{t-1}^2``. Parameters
    see only ``returns[:train_stop]``; the filter runs on, so the forecast of a day knows all
    returns before it. Days before `train_stop` are in sample. `dist`: e_t is "normal" or "t"
    (variance 1, degrees of freedom fitted).

    Returns: s_t and the negative log-likelihood (nats) of the days ``start..stop-1``, [stop-start].
    Source: Bollerslev 1986, 1987; the ``arch`` package.
    """
    from arch import arch_model

    if not (100 <= train_stop <= len(returns) and 0 <= start < stop <= len(returns)):
        raise ValueError(
            f"expected 100 <= train_stop <= {len(returns)} and 0 <= start < stop <= "
            f"{len(returns)}, got {train_stop}, {start}, {stop}"
        )

    def garch(part: NDArray[np.float64]) -> ARCHModel:
        return arch_model(part, mean="Constant", vol="GARCH", p=1, q=1, dist=dist, rescale=False)

    fitted = garch(returns[:train_stop]).fit(disp="off")
    # The whole history under fixed parameters: its conditional variances are the forecasts.
    filtered = garch(returns[:stop]).fix(fitted.params)
    sigma = np.asarray(filtered.conditional_volatility, dtype=float)[start:]
    shape = [fitted.params["nu"]] if dist == "t" else []
    residuals = returns[start:stop] - fitted.params["mu"]
    density = filtered.model.distribution
    per_day = density.loglikelihood(shape, residuals, sigma**2, individual=True)
    return sigma, -np.asarray(per_day, dtype=float)
