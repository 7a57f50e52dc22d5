"""What a history tells other tools' logs."""

import math

import pytest
import torch

import cliplab
from cliplab import History


def filled(sizes, limit=1.0, lr=0.5, labels=()):
    """A history of steps of these sizes, clipped at one limit."""
    history = History(labels, scalar=not labels)
    for size in sizes:
        size = torch.tensor(size).reshape(-1)
        limits = torch.full_like(size, limit)
        factor = (limits / size).clamp(max=1)
        clipped = (size > limits).float()
        history.append(torch.stack([size, size * factor, limits, factor, clipped, size * 0]), lr)
    return history


def test_latest_is_the_last_step_in_plain_numbers():
    history = filled([0.5, 4.0])
    expected = {"norm_before": 4.0, "norm_after": 1.0, "threshold": 1.0, "factor": 0.25}
    expected |= {"clipped": 1.0, "skipped": 0.0, "lr": 0.5, "effective_lr": 0.125}
    assert history.latest() == expected
    assert all(type(value) is float for value in history.latest().values())
    assert history.latest("clip") == {f"clip/{name}": value for name, value in expected.items()}


def test_latest_of_nothing_is_nothing():
    assert History().latest() == {}


def test_latest_of_parts_is_that_of_the_whole():
    latest = filled([[3.0, 4.0, 0.0]], limit=2.0, labels=["a", "b", "c"]).latest()
    assert latest["norm_before"] == 5.0
    assert latest["norm_after"] == pytest.approx(math.hypot(2, 2))
    assert latest["factor"] == pytest.approx(math.hypot(2, 2) / 5)
    assert latest["clipped"] == pytest.approx(2 / 3)
    assert latest["threshold"] == 2.0


def test_what_is_not_known_is_not_there():
    history = filled([2.0], lr=None)
    assert not {"lr", "effective_lr", "update_norm"} & history.latest().keys()
    history.put_update(7.0)
    assert history.latest()["update_norm"] == 7.0
    model = torch.nn.Linear(2, 2)
    clipper = cliplab.Clipper(model, {"weight": 1.0, "bias": 2.0}, scope="tensor")
    model(torch.ones(1, 2)).sum().backward()
    clipper.clip()
    assert "threshold" not in clipper.history.latest()


def test_a_skipped_step_has_factor_0():
    model = torch.nn.Linear(2, 2)
    clipper = cliplab.Clipper(model, 0.1, mode="skip")
    model(torch.ones(1, 2)).sum().backward()
    clipper.clip()
    latest = clipper.history.latest()
    assert (latest["skipped"], latest["factor"]) == (1.0, 0.0)
