"""Residual networks for small images. Shapes: B images, C channels, H x W places.

No model has buffers: all of its state are parameters, so that `Ensemble` can stack it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "free"]
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # 1 / the spread of relu(z) for z from N(0, 1)
ALPHA = 0.2  # of a normaliser-free branch


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    """Scaled weight standardisation: every filter of N entries has mean 0 and length ``gain``.

    ``g_i (W_ij - mean_i) / (sd_i sqrt(N))``; ``weight [out, ...]``, ``gain [out]``.
    Source: Brock, De & Smith 2021 (NF-ResNets), equation 5; Brock et al. 2021 (NFNets), equation 1.
    ``1e-4`` below ``N sd^2``, where a filter is constant, is their code's.
    """
    filters = weight.flatten(1)
    centred = filters - filters.mean(1, keepdim=True)
    length = centred.square().sum(1, keepdim=True).clamp(min=1e-4).sqrt()
    return (centred / length * gain.unsqueeze(1)).view_as(weight)


class Conv(nn.Module):
    """A 3 x 3 convolution; ``norm="free"``: of standardised weights with a learnable gain."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = None if norm == "batch" else nn.Parameter(torch.zeros(outputs))
        self.gain = nn.Parameter(torch.ones(outputs)) if norm == "free" else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B,C,H,W] -> [B,outputs,H/stride,W/stride]``."""
        weight = self.weight if self.gain is None else standardised(self.weight, self.gain)
        return F.conv2d(x, weight, self.bias, self.stride, padding=1)


class BatchNorm(nn.Module):
    """Batch normalisation by the images at hand, in training and after: it keeps no averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Every channel with mean 0 and variance 1 over all images and places, then affine."""
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


class Block(nn.Module):
    """``x + f(x)`` with f two convolutions, each after its normalisation and ReLU (He 2016b).

    Where channels rise, x loses every second place and gains channels of zeros (option A of
    He 2016a). ``norm="free"``: ``x + alpha f(x / beta)``, beta^2 the variance of x at the start,
    and a ReLU that keeps variance.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Norm, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.stride, self.more, self.beta = stride, outputs - inputs, beta
        self.alpha, self.relu_gain = (ALPHA, RELU_GAIN) if norm == "free" else (1.0, 1.0)
        self.norm1 = BatchNorm(inputs) if norm == "batch" else nn.Identity()
        self.conv1 = Conv(inputs, outputs, stride, norm)
        self.norm2 = BatchNorm(outputs) if norm == "batch" else nn.Identity()
        self.conv2 = Conv(outputs, outputs, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``[B,inputs,H,W] -> [B,outputs,H/stride,W/stride]``."""
        y = self.conv1(self.relu_gain * F.relu(self.norm1(x / self.beta)))
        y = self.conv2(self.relu_gain * F.relu(self.norm2(y)))
        if self.more:
            x = F.pad(
                (x / self.beta)[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more)
            )
        return x + self.alpha * y


class ResNet(nn.Module):
    """A residual network for small images: ``[B,colours,H,W]`` -> ``[B,classes]`` logits.

    A convolution, then for each of ``channels`` a stage of ``blocks`` blocks, of which every stage
    but the first begins with stride 2; normalisation, ReLU, mean over places, a linear layer. Three
    stages of n blocks are 6n + 2 layers (ResNet-8: n = 1; ResNet-20: n = 3, of 16, 32, 64).

    ``norm``: "none", "batch", or "free" (normaliser-free, without SkipInit). Convolutions from
    N(0, 2 / fan-in), the linear layer from N(0, 1 / fan-in), biases 0.

    Sources: He, Zhang, Ren & Sun 2016a (section 4.2), 2016b (order within a block); Brock, De &
    Smith 2021, Brock, De, Smith & Simonyan 2021 (normaliser-free).
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 3,
        *,
        norm: Norm = "none",
        colours: int = 1,
        classes: int = 10,
        seed: int,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {norm!r}")
        if blocks < 1 or not channels or list(channels) != sorted(channels):
            raise ValueError(f"expected rising channels and blocks, got {channels} and {blocks}")
        self.read = Conv(colours, channels[0], 1, norm)
        stages: list[nn.Module] = []
        width, variance = channels[0], 1.0
        for stage, wider in enumerate(channels):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                beta = math.sqrt(variance) if norm == "free" else 1.0
                stages.append(Block(width, wider, stride, norm, beta))
                kept = width / wider if wider > width else variance  # of x / beta, and of zeros
                width, variance = wider, kept + ALPHA**2
        self.blocks = nn.Sequential(*stages)
        self.norm = BatchNorm(width) if norm == "batch" else nn.Identity()
        self.classify = nn.Linear(width, classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                if p.ndim > 1:
                    gain = 2 if p.ndim == 4 else 1
                    p.normal_(0.0, math.sqrt(gain / p[0].numel()), generator=generator)
            self.classify.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images; with batch normalisation, by the statistics of these very images."""
        x = self.blocks(self.read(images))
        logits: Tensor = self.classify(F.relu(self.norm(x)).mean((-2, -1)))
        return logits
