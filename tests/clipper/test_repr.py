"""What a clipper says of itself."""

import html
import re

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper, Percentile, Switch


def test_a_clipper_says_what_it_is_and_what_it_did():
    params = with_gradients([3.0, 4.0], [[1.0], [2.0]])
    clipper = Clipper(params, Percentile(10.0), scope="tensor", mode="soft", nonfinite="skip")
    clipper.clip()
    assert repr(clipper) == (
        "Clipper(Percentile(percentile=10.0, window=None), scope='tensor', mode='soft', "
        "nonfinite='skip'): 2 parameters (4 entries) in 2 parts, 1 step, 0 % clipped"
    )


def test_steps_shares_and_whether_it_is_attached():
    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, 6.0)
    assert "0 steps" in repr(clipper)
    assert "clipped" not in repr(clipper)
    assert "attached" not in repr(clipper)
    clipper.attach(torch.optim.SGD(params, lr=0.0))
    clipper.clip()
    params[0].grad *= 2
    clipper.clip()
    params[0].grad *= 2
    clipper.clip()
    assert repr(clipper).endswith("3 steps, 66.7 % clipped, attached to an optimizer")
    assert repr(clipper) == str(clipper)


def test_skipped_steps_are_told():
    clipper = Clipper(with_gradients([3.0, 4.0]), 1.0, mode="skip")
    clipper.clip()
    assert "100 % skipped" in repr(clipper)


def test_nobody_waits_for_a_repr(monkeypatch):
    clipper = Clipper(with_gradients([3.0, 4.0]), 1.0)
    clipper.clip()
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    assert "1 step" in repr(clipper)
    assert "clipped" not in repr(clipper)
    assert "clipped" not in clipper._repr_html_()


@pytest.mark.parametrize("name", [m.name for m in cliplab.list_methods()])
def test_it_is_one_line_whatever_the_model(name):
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(40)])
    text = repr(cliplab.create(name, model))
    assert "\n" not in text
    assert len(text) < 320


def test_many_masks_are_cut():
    params = with_gradients(*[[1.0]] * 500)
    switch = Switch(
        [([i % 2 == 0 for i in range(500)], 1.0), ([i % 2 == 1 for i in range(500)], 2.0)]
    )
    text = repr(Clipper(params, switch, scope="tensor"))
    assert "\n" not in text
    assert len(text) < 320
    assert "Switch" in text


def test_the_table_of_a_notebook_says_the_same():
    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, cliplab.Scheduled(lambda step, lr: 1.0))
    clipper.clip()
    table = clipper._repr_html_()
    assert table.startswith("<table>")
    assert "<lambda>" not in table
    words = html.unescape(re.sub(r"<[^>]+>", " ", table))
    for word in (
        "Scheduled",
        "global",
        "rescale",
        "raise",
        "1 parameter",
        "1 step",
        "100 % clipped",
    ):
        assert word in words
