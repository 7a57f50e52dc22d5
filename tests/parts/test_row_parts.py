import math

import pytest
import torch
from torch import nn

from cliplab import Clipper
from cliplab.parts import Partition, RowParts, member_views, unit_views


def unit_parts():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Linear(5, 2), nn.PReLU()
    )
    params = [*model.parameters(), nn.Parameter(torch.tensor(1.0))]
    return RowParts(params, unit_views(model, params))


def member_parts():
    params = [torch.randn(3, 4), torch.randn(3), torch.randn(3, 2, 5)]
    return RowParts(params, member_views(params), members=True)


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0, math.nan])
@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("make", [unit_parts, member_parts])
def test_sizes_in_few_calls_are_those_of_the_cells(make, order, scale):
    parts = make()
    torch.manual_seed(0)
    grads = [torch.randn(p.shape) for p in parts.params]
    grads[0] *= scale
    grads[-1] *= scale
    torch.testing.assert_close(
        parts.sizes(grads, order),
        Partition.sizes(parts, grads, order),
        equal_nan=True,
        atol=0,
        rtol=1e-6,
    )


def test_a_scalar_parameter_whose_gradient_vanished_is_a_unit():
    scale = nn.Parameter(torch.tensor(1.0))
    scale.grad = torch.tensor(0.0)
    assert Clipper([scale], 1.0, scope="unit").clip().norm_before.tolist() == [0.0]
