"""The LSTM's step against torch's, and what a sparse start holds."""

import pytest
import torch
from torch import nn

from cliplab.lab.models.cells import lstm_step, sparse


def generator():
    return torch.Generator().manual_seed(5)


def test_a_step_is_that_of_torchs_lstm_cell():
    width, torchs = 4, nn.LSTMCell(3, 4)
    x, hidden, cell = (torch.randn(2, n, generator=generator()) for n in (3, width, width))
    a = torchs.weight_ih @ x.T + torchs.weight_hh @ hidden.T
    i, f, g, o = (a.T + torchs.bias_ih + torchs.bias_hh).chunk(4, -1)
    found = lstm_step(torch.cat([i, f, o, g], -1), cell)
    for own, theirs in zip(found, torchs(x, (hidden, cell)), strict=True):
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize(("axis", "shape"), [(0, (9, 6)), (1, (6, 9))])
def test_every_unit_has_its_share_of_inputs_along_their_axis(axis, shape):
    weight = sparse(6, 9, 4, generator(), axis=axis)
    assert weight.shape == shape
    assert ((weight != 0).sum(axis) == 4).all()
    assert ((weight != 0).sum(1 - axis) != 4).any()  # not by rows and columns at once
    assert torch.equal(weight, sparse(6, 9, 4, generator(), axis=axis))


def test_a_unit_of_few_inputs_keeps_them_all():
    weight = sparse(6, 3, 15, generator(), axis=1)
    assert torch.equal(weight, torch.randn(6, 3, generator=generator()))
