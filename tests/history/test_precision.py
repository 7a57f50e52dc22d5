"""Sizes that only doubles hold."""

import math

import pytest
import torch
from making import with_gradients

from cliplab import Clipper


def test_a_history_of_doubles_that_begins_without_gradients_stays_double():
    params = with_gradients([3e200, 4e200], dtype=torch.float64)
    grad, params[0].grad = params[0].grad, None
    clipper = Clipper(params, 1.0)
    with pytest.warns(UserWarning, match="no gradient at all"):
        clipper.clip()
    params[0].grad = grad
    clipper.clip()
    assert clipper.history.norm_before.tolist() == pytest.approx([0.0, 5e200])


def test_shares_do_not_overflow():
    clipper = Clipper(with_gradients([1e20], [1e20]), math.inf, scope="tensor")
    clipper.clip()
    assert clipper.history.shares.tolist() == [[0.5, 0.5]]
