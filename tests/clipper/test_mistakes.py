"""Mistakes in a training loop: each is said once, with what to do; what is right stays silent."""

import math
import warnings

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper, Fixed, Percentile

TWICE = "the same gradient is clipped twice"
NOTHING = "no gradient at all"


def model_and_optimizer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loss_of(model):
    return model(torch.randn(5, 3)).square().mean()


def told(run, steps=3):
    """What is said in some steps of a loop under the filter that shows every warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(steps):
            run()
    assert all(w.category is UserWarning and w.filename == __file__ for w in said)
    return [str(w.message) for w in said]


# --- no gradient at all ------------------------------------------------------------------------


def forgotten_backward(model, optimizer, clip):
    optimizer.zero_grad()
    loss_of(model)
    clip()


def clip_before_backward(model, optimizer, clip):
    optimizer.zero_grad()
    clip()
    loss_of(model).backward()


def frozen_model(model, optimizer, clip):
    model.requires_grad_(False)
    optimizer.zero_grad()
    loss_of(model)
    clip()


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("loop", [forgotten_backward, clip_before_backward, frozen_model])
def test_a_clip_that_sees_no_gradient_says_so_once(loop, attached, scope):
    model, optimizer = model_and_optimizer()
    clipper = Clipper(model, 1.0, scope=scope)
    clip = clipper.clip
    if attached:
        clipper.attach(optimizer)
        clip = optimizer.step
    (said,) = told(lambda: loop(model, optimizer, clip))
    assert NOTHING in said
    assert "backward()" in said
    assert len(clipper.history) == 3


@pytest.mark.parametrize("some", [0, 1])
def test_a_part_without_a_gradient_is_no_mistake(some):
    for scope in ("global", "tensor"):
        params = with_gradients([3.0, 4.0], [1.0])
        params[some].grad = None
        assert told(Clipper(params, 9.0, scope=scope).clip) == []


def test_a_clipper_that_has_seen_gradients_may_meet_a_step_without():
    params = with_gradients([3.0, 4.0])  # an expert that got no token
    clipper = Clipper(params, 9.0)
    clipper.clip()
    params[0].grad = None
    assert told(clipper.clip) == []


def test_a_gradient_of_zeros_is_a_gradient():
    assert told(Clipper(with_gradients([0.0, 0.0]), 1.0).clip) == []


# --- clipped twice ----------------------------------------------------------------------------


def by_hand_and_attached(model, optimizer):
    clipper = Clipper(model, 0.1)
    clipper.attach(optimizer)
    return clipper.clip


def two_attached(model, optimizer):
    for _ in range(2):  # a notebook's cell, run again
        cliplab.create("autoclip", model).attach(optimizer)
    return lambda: None


def two_by_hand(model, optimizer):
    first, second = Clipper(model, 0.1), Clipper(model, 0.2, scope="tensor")
    return lambda: (first.clip(), second.clip())


def one_by_hand_one_attached(model, optimizer):
    Clipper(model, 0.2).attach(optimizer)
    return Clipper(model.parameters(), 0.1, exclude=None).clip


def loose(call):
    def prepare(model, optimizer):
        Clipper(model, 0.1).attach(optimizer)
        return lambda: call(list(model.parameters()))

    return prepare


def loose_after(call):
    def prepare(model, optimizer):
        clipper = Clipper(model, 0.1)
        return lambda: (clipper.clip(), call(list(model.parameters())))

    return prepare


CALLS = {
    "clip_grad_norm_": lambda ps: cliplab.clip_grad_norm_(ps, 1.0),
    "clip_grad_value_": lambda ps: cliplab.clip_grad_value_(ps, 1.0),
    "clip_grads_with_norm_": lambda ps: cliplab.clip_grads_with_norm_(ps, 1.0, torch.tensor(3.0)),
    "adaptive_clip_": lambda ps: cliplab.adaptive_clip_(ps, 0.1),
}
TWICES = {
    "by hand and attached": by_hand_and_attached,
    "two attached": two_attached,
    "two by hand": two_by_hand,
    "one of each": one_by_hand_one_attached,
} | {
    f"{when} {name}": f(call)
    for name, call in CALLS.items()
    for when, f in (("attached and", loose), ("by hand, then", loose_after))
}


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("prepare", TWICES.values(), ids=TWICES.keys())
def test_a_gradient_that_is_clipped_twice_is_said_once(prepare, set_to_none):
    model, optimizer = model_and_optimizer()
    clip = prepare(model, optimizer)

    def step():
        optimizer.zero_grad(set_to_none=set_to_none)
        loss_of(model).backward()
        clip()
        optimizer.step()

    (said,) = told(step, steps=4)
    assert said.startswith(TWICE)
    assert "filterwarnings" in said


def test_the_message_names_both():
    model, optimizer = model_and_optimizer()
    Clipper(model, Percentile(50.0)).attach(optimizer)
    loss_of(model).backward()
    cliplab.clip_grad_norm_(model.parameters(), 1.0)
    with pytest.warns(UserWarning, match=r"by clip_grad_norm_\(\), then by .*Percentile.*step"):
        optimizer.step()


def test_with_warnings_as_errors_the_gradient_is_left_as_the_first_made_it():
    params = with_gradients([3.0, 4.0])
    Clipper(params, 1.0).clip()
    once, second = params[0].grad.clone(), Clipper(params, 0.5)
    with pytest.raises(UserWarning, match=TWICE):
        second.clip()
    assert torch.equal(params[0].grad, once)
    assert len(second.history) == 0


def test_what_is_meant_can_be_silenced_as_the_message_says():
    params = with_gradients([3.0, 4.0])
    Clipper(params, 3.5, scope="element").clip()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", TWICE)
        Clipper(params, 1.0).clip()
    assert params[0].grad.norm().item() == pytest.approx(1.0)


def test_sparse_gradients_too():
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1, 1, 2])).sum().backward()
    first, second = Clipper(table, 0.1), Clipper(table, 0.1)
    first.clip()
    assert told(second.clip, steps=1)[0].startswith(TWICE)


def test_one_more_clipper_late_in_a_run_is_noticed():
    model, optimizer = model_and_optimizer()

    def step():
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()

    Clipper(model, 0.1).attach(optimizer)
    assert told(step, steps=200) == []
    Clipper(model, 0.1).attach(optimizer)
    (said,) = told(step, steps=200)
    assert said.startswith(TWICE)


def test_a_clip_by_hand_that_begins_late_is_noticed():
    model, optimizer = model_and_optimizer()
    clipper = Clipper(model, 0.1)
    clipper.attach(optimizer)

    def step(by_hand):
        optimizer.zero_grad()
        loss_of(model).backward()
        if by_hand:
            clipper.clip()
        optimizer.step()

    assert told(lambda: step(False), steps=200) == []
    (said,) = told(lambda: step(True))
    assert said.startswith(TWICE)


# --- what is right ----------------------------------------------------------------------------


def accumulation(model, optimizer):
    Clipper(model, 0.1).attach(optimizer)
    return lambda: loss_of(model).backward()


def clip_every_micro_batch_by_two(model, optimizer):
    first, second = Clipper(model, 0.1), Clipper(model, 0.1)
    return lambda: (first.clip(), loss_of(model).backward(), second.clip())


def disjoint(model, optimizer):
    Clipper(model[0], 0.1).attach(optimizer)
    return Clipper(model[2], 0.1).clip


def measured_by_another(model, optimizer):
    cliplab.create("none", model).attach(optimizer)
    measure = Clipper(model, Fixed(math.inf), scope="tensor")
    clipper = Clipper(model, 0.1)
    return lambda: (
        measure.clip(),
        cliplab.clip_grad_norm_(model.parameters(), math.inf),
        clipper.clip(),
    )


def a_report_again(model, optimizer):
    clipper = Clipper(model, 0.1, mode="skip")
    return lambda: (clipper.clip(), clipper.clip())


def drop_ins_in_a_row(model, optimizer):
    return lambda: (
        cliplab.clip_grad_value_(model.parameters(), 0.1),
        cliplab.clip_grad_norm_(model.parameters(), 0.1),
    )


def gradients_put_back(model, optimizer):
    first, second = Clipper(model, 0.1), Clipper(model, 0.2)

    def clip():
        raw = [p.grad.clone() for p in model.parameters()]
        first.clip()
        for p, grad in zip(model.parameters(), raw, strict=True):
            p.grad.copy_(grad)
        second.clip()
        for p, grad in zip(model.parameters(), raw, strict=True):
            p.grad = grad
        first.clip()

    return clip


def several_optimizers(model, optimizer):
    for layer in (model[0], model[2]):
        own = torch.optim.Adam(layer.parameters(), lr=0.1)
        Clipper(layer, 0.1).attach(own)
        optimizer.register_step_post_hook(lambda *_, own=own: own.step())
    return lambda: None


RIGHT = [
    accumulation,
    clip_every_micro_batch_by_two,
    disjoint,
    measured_by_another,
    a_report_again,
    drop_ins_in_a_row,
    gradients_put_back,
    several_optimizers,
]


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("prepare", RIGHT)
def test_what_is_right_stays_silent(prepare, fused, set_to_none):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    clip = prepare(model, optimizer)

    def step():
        optimizer.zero_grad(set_to_none=set_to_none)
        loss_of(model).backward()
        clip()
        optimizer.step()

    assert told(step, steps=4) == []


def test_parameters_of_two_optimizers_each_with_its_clipper():
    shared = nn.Linear(3, 3)  # an encoder of actor and critic
    heads = nn.Linear(3, 1), nn.Linear(3, 2)
    optimizers = []
    for head in heads:
        params = [*shared.parameters(), *head.parameters()]
        optimizers.append(torch.optim.SGD(params, lr=0.1))
        Clipper(params, 0.1).attach(optimizers[-1])

    def step():
        for head, optimizer in zip(heads, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(nn.Sequential(shared, head)).backward()
            optimizer.step()

    assert told(step) == []


def test_a_gradient_outlives_its_clipper_and_is_saved_as_it_was(tmp_path):
    params = with_gradients([3.0, 4.0])
    Clipper(params, 1.0).clip()
    assert vars(params[0].grad) == {}
    torch.save(params[0].grad, tmp_path / "gradient.pt")
    assert torch.equal(torch.load(tmp_path / "gradient.pt", weights_only=True), params[0].grad)


def test_marks_hold_no_gradient():
    import gc
    import weakref

    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, 1.0)
    clipper.clip()
    gone = weakref.ref(params[0].grad)
    params[0].grad = None
    gc.collect()
    assert gone() is None
    assert clipper.steps == 1


@pytest.mark.parametrize(
    "clip", [lambda m: Clipper(m).clip(), lambda m: cliplab.clip_grad_norm_(m.parameters(), 1.0)]
)
def test_a_module_that_swaps_its_tensors_can_be_moved_after_a_clip(clip):
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    clip(model)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    assert model.weight.grad.dtype is torch.float64
