"""Synthetic curves, after the "Curves" data of Hinton & Salakhutdinov (2006): made, not fetched."""

import torch
from torch import Tensor

SAMPLES = 48  # points on a curve that pixels are compared with
CHUNK = 250  # images rendered at a time


def curves(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random smooth curves, each fixed by three points in the plane: six numbers an image.

    The points come from U[0.1, 0.9)^2; the curve is the parabola through them, drawn with a soft
    pen: see `render`. Returns `[count, size * size]` float32 in [0, 1].
    Source: Hinton & Salakhutdinov (2006) made theirs from three random points as well; their file
    is not used, so errors an image are not those of the literature.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1: {count}")
    device = generator.device
    points = 0.1 + 0.8 * torch.rand(count, 3, 2, generator=generator, device=device)
    return torch.cat([render(part, size) for part in points.split(CHUNK)])


def render(points: Tensor, size: int) -> Tensor:
    """Images of the curves through points P `[N, 3, 2]` (x, y) in [0, 1] -> `[N, size * size]`.

    `B(t) = (1-t)(1-2t) P_0 + 4t(1-t) P_1 + t(2t-1) P_2`, t from 0 to 1; a pixel whose centre is at
    distance d from B has the intensity `exp(-d^2 / 2s^2)`, s = 1/28. Row y, column x.
    """
    if points.ndim != 3 or points.shape[1:] != (3, 2):
        raise ValueError(f"points must be [N, 3, 2], got {list(points.shape)}")
    if size < 4:
        raise ValueError(f"size must be at least 4 pixels: {size}")
    t = torch.linspace(0, 1, SAMPLES, device=points.device)[:, None]
    first, middle, last = points[:, None].unbind(2)
    path = (1 - t) * (1 - 2 * t) * first + 4 * t * (1 - t) * middle + t * (2 * t - 1) * last
    centres = (torch.arange(size, device=points.device) + 0.5) / size
    x, y = ((path[..., axis, None] - centres).square() for axis in (0, 1))  # [N, SAMPLES, size]
    nearest = (y[..., :, None] + x[..., None, :]).amin(dim=1)
    return torch.exp(-nearest * (28**2 / 2)).flatten(1)
