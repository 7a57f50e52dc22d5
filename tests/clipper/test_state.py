"""A saved state knows what it is of, and goes into no other clipper without a word."""

import copy
import io
import pickle

import pytest
import torch
from making import BY_HAND, with_gradients
from torch import nn

import cliplab
from cliplab import Bounded, Clipper, Fixed, Percentile, ZScore


def of(parts, threshold=1.0, **options):
    return Clipper(with_gradients(*[[3.0, 4.0]] * parts), threshold, **options)


CLIPPERS = {
    "2 parts": lambda: of(2, scope="tensor"),
    "4 parts": lambda: of(4, scope="tensor"),
    "4 units": lambda: of(4, scope="unit"),
    "4 tensors": lambda: of(4),
    "percentile": lambda: of(4, Percentile(10.0)),
    "bounded": lambda: of(4, Bounded(ZScore(), high=1.0)),
    "bounded percentile": lambda: of(4, Bounded(Percentile(), high=1.0)),
}


@pytest.mark.parametrize("mine", CLIPPERS)
@pytest.mark.parametrize("theirs", CLIPPERS)
def test_a_state_goes_into_a_clipper_like_its_own_only(mine, theirs):
    clipper, other = CLIPPERS[mine](), CLIPPERS[theirs]()
    clipper.clip()
    state = clipper.state_dict()
    if mine == theirs:
        other.load_state_dict(state)
        assert other.steps == 1
        return
    with pytest.raises(ValueError, match="state is of") as raised:
        other.load_state_dict(state)
    assert other.steps == 0
    message = str(raised.value)
    for field in ("method", "scope", "parts"):
        assert str(state[field]) in message
        assert str(other.state_dict()[field]) in message


def test_the_error_names_both_methods():
    zclip = cliplab.create("zclip", with_gradients([1.0]))
    state = cliplab.create("autoclip", with_gradients([1.0])).state_dict()
    with pytest.raises(ValueError, match=r"of Percentile.*is Bounded\(ZScore\).*strict=False"):
        zclip.load_state_dict(state)


def test_the_parameters_of_a_policy_may_change():
    first, second = of(1, Percentile(10.0)), of(1, Percentile(25.0))
    first.clip()
    second.load_state_dict(first.state_dict())
    assert second.policy.state["count"].tolist() == [1]


@pytest.mark.parametrize("name", BY_HAND)
def test_a_state_from_before_it_said_what_it_is_of_is_taken(name):
    clipper, again = (cliplab.create(name, with_gradients([3.0, 4.0])) for _ in range(2))
    clipper.clip(loss=1.0)
    state = {key: clipper.state_dict()[key] for key in ("steps", "policy")}
    again.load_state_dict(state)
    assert again.steps == 1
    torch.testing.assert_close(again.policy.state_dict(), clipper.policy.state_dict())


def test_strict_is_as_a_module_has_it():
    clipper, other = of(4), of(4, scope="tensor")
    clipper.clip()
    with pytest.raises(ValueError, match="scope"):
        other.load_state_dict(clipper.state_dict(), strict=True)
    other.load_state_dict(clipper.state_dict(), strict=False)
    assert other.steps == 1
    with pytest.raises(ValueError, match="Percentile"):
        of(4, Percentile()).load_state_dict(clipper.state_dict(), strict=False)


@pytest.mark.parametrize(
    "state", [None, [], {}, {"steps": 1}, {"steps": 0, "policy": {}, "more": 1}, nn.Linear(2, 2)]
)
def test_what_is_no_state_is_said(state):
    with pytest.raises(
        ValueError, match="expected a state with 'steps' and 'policy', got"
    ) as raised:
        of(1).load_state_dict(state)
    assert "\n" not in str(raised.value)


def test_a_state_is_plain_enough_for_weights_only(tmp_path):
    clipper = of(2, Bounded(ZScore()), scope="tensor")
    torch.save(clipper.state_dict(), tmp_path / "state.pt")
    again = of(2, Bounded(ZScore()), scope="tensor")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_a_clipper_of_its_own(copied):
    params = with_gradients([3.0, 4.0])
    clipper = Clipper(params, Percentile(50.0), scope="tensor")
    optimizer = torch.optim.SGD(params, lr=0.1)
    clipper.attach(optimizer)
    optimizer.step()
    again = copied(clipper)
    assert not again.attached
    assert again.params[0] is not params[0]
    again.params[0].grad = torch.tensor([30.0, 40.0])
    again.attach(torch.optim.SGD(again.params, lr=0.1))
    again.clip()
    assert (len(again.history), len(clipper.history)) == (2, 1)
    assert clipper.policy.state["count"].tolist() == [1]


def test_what_is_on_its_way_from_a_device_stays_with_the_original():
    class Event:
        def query(self):
            return False

        def __reduce__(self):
            raise TypeError("an event cannot be pickled")

    clipper = of(1)
    clipper._watch._pending.append((0, torch.tensor(True), Event()))
    again = pickle.loads(pickle.dumps(clipper))
    copy.deepcopy(clipper).flush()
    again.flush()
    assert len(clipper._watch._pending) == 1


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("where", ["built", "stepped", "both"])
def test_inference_mode_leaves_nothing_behind_that_cannot_be_changed(name, where):
    params, same = with_gradients([3.0, 4.0], [1.0]), with_gradients([3.0, 4.0], [1.0])
    with torch.inference_mode(where != "stepped"):
        clipper = cliplab.create(name, params)
    expected = cliplab.create(name, same)
    for inference in (where != "built", False, True, False):
        for clip in (clipper, expected):
            with torch.inference_mode(inference and clip is clipper):
                clip.clip(loss=1.0)
    for p, q in zip(params, same, strict=True):
        assert torch.equal(p.grad, q.grad)
    torch.testing.assert_close(clipper.policy.state, expected.policy.state)
    buffer = io.BytesIO()
    torch.save(clipper.state_dict(), buffer)
    with torch.inference_mode():
        clipper.load_state_dict(expected.state_dict())
    clipper.clip(loss=1.0)
    assert torch.equal(clipper.history.norm_before[:4], expected.history.norm_before)


def test_gradients_made_in_inference_mode_are_clipped_there():
    with torch.inference_mode():
        params = [nn.Parameter(torch.zeros(2))]
        params[0].grad = torch.tensor([3.0, 4.0])
        clipper = Clipper(params, 1.0)
        clipper.clip()
    assert params[0].grad.norm().item() == pytest.approx(1.0)
    assert isinstance(clipper.policy, Fixed)


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "member"])
def test_a_normalising_clipper_resumes_bit_for_bit(scope):
    def run(clipper, steps):
        for step in steps:
            draw = torch.Generator().manual_seed(step)
            for p in clipper.params:
                p.grad = torch.randn(p.shape, generator=draw) * 10.0 ** (step % 5 - 3)
            clipper.clip()
        return [p.grad for p in clipper.params]

    def make():
        params = with_gradients(torch.ones(2, 3), torch.ones(2))
        return Clipper(params, Percentile(50.0, 4), scope=scope, mode="normalise")

    whole, half, again = run(make(), range(9)), make(), make()
    run(half, range(5))
    again.load_state_dict(half.state_dict())
    for found, wanted in zip(run(again, range(5, 9)), whole, strict=True):
        assert torch.equal(found, wanted)
