"""The defaults that a user has set for new tensors are none of a clipper's business."""

import pytest
import torch
from making import ATTACHED, METHODS, optimizer_for
from torch import nn

import cliplab

NONE = {}
DTYPES = [torch.bfloat16, torch.float16, torch.float64]


def fp32(*values):
    return torch.tensor(values, dtype=torch.float32, device="cpu")


FORMS = {
    "norm": lambda ps: cliplab.clip_grad_norm_(ps, 1.0),
    "norm inf": lambda ps: cliplab.clip_grad_norm_(ps, 1.0, float("inf")),
    "value": lambda ps: cliplab.clip_grad_value_(ps, 1.0),
    "with norm": lambda ps: cliplab.clip_grads_with_norm_(ps, 1.0, fp32(9.0)[0]),
    "agc": lambda ps: cliplab.adaptive_clip_(ps, 0.1),
    "tf norm": lambda ps: cliplab.clip_by_norm_([p.grad for p in ps], 1.0),
    "tf norm of rows": lambda ps: cliplab.clip_by_norm_([p.grad for p in ps], 1.0, dim=-1),
    "tf global norm": lambda ps: cliplab.clip_by_global_norm_([p.grad for p in ps], 1.0),
    "tf given norm": lambda ps: cliplab.clip_by_global_norm_([p.grad for p in ps], 1.0, 7.3),
    "nothing": lambda ps: cliplab.clip_grad_norm_([], 1.0),
}


@pytest.fixture(autouse=True)
def put_back():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def under(defaults):
    torch.set_default_dtype(defaults.get("dtype", torch.float32))
    torch.set_default_device(defaults.get("device"))


def run(name, attached, *, construction=NONE, step=NONE):
    """Gradients, history and state after some steps, with defaults set at each of two times."""

    params = [nn.Parameter(fp32(0.3, 0.4)), nn.Parameter(fp32(0.2))]
    optimizer = optimizer_for(name, params)
    under(construction)
    clipper = cliplab.create(name, params)
    if attached:
        clipper.attach(optimizer)
    for size in (1.0, 1.03, 0.97, 50.0):
        under(NONE)
        params[0].grad, params[1].grad = fp32(3.0, 4.1) * size, fp32(2.3) * size
        under(step)
        if attached:
            clipper.observe(1.1 * size)
            optimizer.step()
        else:
            clipper.clip(loss=1.1 * size)
    under(NONE)
    history = clipper.history
    shown = [history.norm_before, history.threshold, history.factor]
    return [p.grad for p in params], shown, clipper.state_dict()["policy"]


DEFAULTS = [*({"dtype": dtype} for dtype in DTYPES), {"device": "meta"}]


@pytest.mark.parametrize(
    ("name", "attached"),
    [
        (name, how)
        for name in METHODS
        for how in (False, True)
        if name != "stable_adamw"  # Adam counts its steps in the default dtype
        if how or name not in ATTACHED
    ],
)
@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
def test_every_method_is_the_same_whatever_the_defaults(name, attached, defaults):
    expected = run(name, attached)
    for times in ({"construction"}, {"step"}, {"construction", "step"}):
        found = run(name, attached, **dict.fromkeys(times, defaults))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
def test_every_form_without_state_too(defaults, form):
    results = []
    for given in (NONE, defaults):
        params = [nn.Parameter(fp32(0.3, 0.4)[None]), nn.Parameter(fp32(0.2))]
        params[0].grad, params[1].grad = fp32(3.0, 4.1)[None], fp32(2.3)
        under(given)
        returned = form(params)
        under(NONE)
        results.append([*(p.grad for p in params), returned])
    if form is FORMS["nothing"]:
        results = [r[:-1] for r in results]  # of nothing, a norm is 0 in any dtype
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
