"""What a unit of a layer is: all that makes one of its outputs."""

import pytest
import torch
from torch import nn

import cliplab
from cliplab import Clipper

LAYERS = {
    "linear": (nn.Linear(4, 3), 3),
    "conv1d": (nn.Conv1d(4, 6, 3), 6),
    "conv2d": (nn.Conv2d(4, 6, 3), 6),
    "conv3d": (nn.Conv3d(2, 6, 3), 6),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2), 6),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3), 6),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3), 6),
    "transposed conv3d": (nn.ConvTranspose3d(2, 6, 3), 6),
    "grouped transposed conv": (nn.ConvTranspose2d(4, 6, 3, groups=2), 6),
    "embedding": (nn.Embedding(5, 4), 5),
}


@pytest.mark.parametrize(("layer", "units"), LAYERS.values(), ids=LAYERS.keys())
def test_one_unit_is_what_makes_one_output(layer, units):
    """A gradient that only one output produced lies in that unit alone, and only it is clipped."""
    shape = {nn.Linear: (2, 4), nn.Embedding: (5,)}.get(type(layer))
    if shape is None:
        dims = layer.weight.ndim - 2
        x = torch.randn(2, layer.in_channels, *[5] * dims)
    else:
        x = torch.arange(5) if isinstance(layer, nn.Embedding) else torch.randn(shape)
    channel = 0 if isinstance(layer, nn.Embedding) else 1
    for unit in (0, units - 1):
        layer.zero_grad()
        layer(x).select(channel, unit).square().sum().mul(100).backward()
        raw = layer.weight.grad.clone()
        clipper = Clipper(
            layer, 1e-3, scope="unit", exclude="bias" if hasattr(layer, "bias") else []
        )
        report = clipper.clip()
        assert report.norm_before.shape == (units,)
        assert report.clipped.nonzero().tolist() == [[unit]]
        torch.testing.assert_close(report.norm_before[unit], raw.norm())
        torch.testing.assert_close(layer.weight.grad, raw * (1e-3 / raw.norm()))


def test_agc_of_a_module_with_transposed_convolutions_sees_the_same_units():
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(4, 6, 3, groups=2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        layer(torch.ones(1, 4, 5, 5)).square().sum().backward()
    cliplab.create("agc", layers[0]).clip()
    cliplab.adaptive_clip_(layers[1])
    for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
