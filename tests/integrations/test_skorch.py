"""skorch: nets that are fitted for real, against skorch's own clipping."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from needs import need
from refusing import BAD_CLIPPING
from torch import nn

from cliplab import Clipper, NonFiniteGradientError

need("skorch", "integrations")
from sklearn.base import clone  # noqa: E402
from skorch import NeuralNetRegressor  # noqa: E402
from skorch.callbacks import (  # noqa: E402
    Callback,
    Checkpoint,
    GradientNormClipping,
    LoadInitState,
    PassthroughScoring,
)

from cliplab.integrations.skorch import Clip  # noqa: E402

rng = np.random.default_rng(0)
X = rng.standard_normal((48, 4)).astype(np.float32)
Y = (4 * X.sum(1, keepdims=True)).astype(np.float32)
BAD = X.copy()
BAD[20] = np.nan


class Module(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, X):
        return self.net(X)


def make(*callbacks, **settings):
    settings = {"optimizer": torch.optim.Adam, "lr": 0.05, "train_split": None} | settings
    return NeuralNetRegressor(
        Module, callbacks=[*callbacks], batch_size=8, max_epochs=2, verbose=0, **settings
    )


def of_a_number(module):
    return Clipper(module, 0.5, eps=1e-6)


def assert_same_weights(one, other):
    for a, b in zip(one.module_.parameters(), other.module_.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def columns(net):
    history = net.clipper_.history
    return torch.stack([history.norm_before, history.threshold, history.factor])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_weights_of_gradient_norm_clipping_bit_for_bit(optimizer):
    own = make(GradientNormClipping(0.5), optimizer=optimizer).fit(X, Y)
    ours = make(Clip(of_a_number), optimizer=optimizer).fit(X, Y)
    assert_same_weights(own, ours)
    assert ours.clipper_.history.clipped.any()
    assert ours.clipper_.attached is None


def test_gradient_norm_clipping_beside_it_is_a_warning():
    with pytest.warns(UserWarning, match="GradientNormClipping clips, too"):
        make(Clip("autoclip"), GradientNormClipping(0.5)).fit(X, Y)
    make(Clip("autoclip"), GradientNormClipping()).fit(X, Y)


def test_two_are_refused():
    with pytest.raises(ValueError, match="a net takes one Clip, got two"):
        make(Clip("autoclip"), Clip("norm")).fit(X, Y)


@pytest.mark.parametrize(("clipping", "arguments", "told"), BAD_CLIPPING)
def test_bad_clipping_is_refused_by_name(clipping, arguments, told):
    with pytest.raises((ValueError, TypeError), match=told):
        make(Clip(clipping, **arguments)).fit(X, Y)


def test_each_batch_of_the_history_has_its_step():
    means = PassthroughScoring("clip/norm_before", on_train=True)
    net = make(Clip("autoclip"), means, train_split=None).fit(X, Y)
    norms = net.clipper_.history.norm_before.view(2, 6)
    assert torch.tensor(net.history[:, "batches", :, "clip/norm_before"]).equal(norms)
    assert net.history[:, "clip/norm_before"] == pytest.approx(norms.mean(1).tolist())
    names = {"clip/factor", "clip/threshold", "clip/clipped", "clip/skipped", "clip/lr"}
    assert names <= net.history[0, "batches", 0].keys()


def test_batches_of_validation_have_none():
    from skorch.dataset import ValidSplit

    net = make(Clip("autoclip"), train_split=ValidSplit(3)).fit(X, Y)
    batches = net.history[0, "batches"]
    assert [batch.get("clip/factor") is not None for batch in batches] == [True] * 4 + [False] * 2


FILES = {"f_criterion": None, "f_clipper": "clipper.pt"}


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    whole = make(Clip("autoclip", percentile=30)).fit(X, Y).partial_fit(X, Y)
    assert len(whole.clipper_.history) == 24

    checkpoint = Checkpoint(monitor=None, dirname=str(tmp_path), **FILES)
    make(Clip("autoclip", percentile=30), checkpoint).fit(X, Y)
    loading = LoadInitState(checkpoint)
    resumed = make(Clip("autoclip", percentile=30), loading).fit(X, Y)
    clip = Clip("autoclip", percentile=30)
    by_hand = make(clip).initialize()
    clip.on_train_begin(by_hand)
    by_hand.load_params(checkpoint=checkpoint)
    by_hand.partial_fit(X, Y)
    for net in (resumed, by_hand):
        assert_same_weights(whole, net)
        assert net.clipper_.state_dict(plain=True) == whole.clipper_.state_dict(plain=True)
        assert net.clipper_.history.first_step == 12
        assert columns(net).equal(columns(whole)[:, 12:])


class Copies(Callback):
    """A pickle and a deep copy of the net in the middle of training."""

    def on_epoch_end(self, net, **kwargs):
        if not hasattr(self, "copies_"):
            self.copies_ = []
            self.copies_ = [pickle.loads(pickle.dumps(net)), copy.deepcopy(net)]


def test_a_pickled_net_goes_on_bit_for_bit_and_alone():
    copies = Copies()
    whole = make(Clip("autoclip", percentile=30), copies).fit(X, Y)
    done = whole.clipper_.state_dict(plain=True)
    for net in copies.copies_:
        assert net.clipper_.attached is None
        net.partial_fit(X, Y, epochs=1)
        assert_same_weights(whole, net)
        assert columns(net).equal(columns(whole))
    assert whole.clipper_.state_dict(plain=True) == done
    again = pickle.loads(pickle.dumps(whole)).partial_fit(X, Y)
    assert_same_weights(again, whole.partial_fit(X, Y))
    assert len(again.clipper_.history) == 24


def test_fit_begins_anew_and_so_do_another_module_and_other_arguments():
    net = make(Clip("autoclip", percentile=30)).fit(X, Y)
    first = columns(net)
    assert columns(net.fit(X, Y)).equal(first)
    net.partial_fit(X, Y)
    assert net.clipper_.steps == 24
    net.set_params(callbacks__Clip__percentile=90).partial_fit(X, Y)
    assert net.clipper_.steps == 12
    net.set_params(module__width=4).partial_fit(X, Y)
    assert net.clipper_.steps == 12
    assert len(net.clipper_.params[0]) == 4
    net.set_params(lr=0.01).partial_fit(X, Y)
    assert net.clipper_.steps == 24
    net.set_params(criterion__reduction="sum").partial_fit(X, Y)  # and another optimizer
    assert net.clipper_.steps == 36


def test_a_clone_is_clipped_by_its_own():
    net = make(Clip("autoclip", percentile=30)).fit(X, Y)
    other = clone(net).fit(X, Y)
    assert_same_weights(net, other)
    assert other.clipper_ is not net.clipper_
    assert other.get_params()["callbacks__Clip__percentile"] == 30


class Stop(Callback):
    def __init__(self, kind):
        self.kind = kind

    def on_epoch_end(self, net, **kwargs):
        if self.kind is not None:
            raise self.kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_after_an_interruption_training_goes_on(kind):
    net = make(Clip("autoclip"), Stop(kind))
    try:
        net.fit(X, Y)
    except RuntimeError:
        assert kind is RuntimeError
    net.set_params(callbacks__Stop__kind=None).partial_fit(X, Y, epochs=1)
    assert net.clipper_.steps == 12
    assert_same_weights(net, make(Clip("autoclip")).fit(X, Y))


def frozen(net):
    state = net.optimizer_.state_dict()["state"]
    return [*net.module_.state_dict().values(), *(v for s in state.values() for v in s.values())]


class States(Callback):
    def on_train_begin(self, net, **kwargs):
        self.states_ = []

    def on_batch_end(self, net, **kwargs):
        self.states_.append([value.clone() for value in frozen(net)])


def test_a_step_that_is_not_finite_is_no_step():
    states = States()
    net = make(Clip("norm", nonfinite="skip"), states).fit(BAD, Y)
    assert net.clipper_.history.skipped.nonzero().flatten().tolist() == [2, 8]
    assert net.history[0, "batches", 2, "clip/skipped"] == 1
    for one, other in zip(states.states_[1], states.states_[2], strict=True):
        assert torch.equal(one, other)
    assert all(value.isfinite().all() for value in frozen(net))
    with pytest.raises(NonFiniteGradientError, match="step 2"):
        make(Clip("norm")).fit(BAD, Y)


def test_lbfgs_is_clipped_each_time_that_it_looks():
    optimizer = {"optimizer": torch.optim.LBFGS, "optimizer__max_iter": 2}
    net = make(Clip("norm", threshold=0.5), **optimizer).fit(X, Y)
    history = net.clipper_.history
    assert len(history) > 12
    assert history.norm_after.max() <= 0.5001
    assert net.history[-1, "batches", -1, "clip/norm_before"] == history.norm_before[-1]
    with pytest.raises(ValueError, match="cannot skip a step of LBFGS"):
        make(Clip("norm", nonfinite="skip"), **optimizer).fit(X, Y)


def test_the_history_goes_into_skorchs_file(tmp_path):
    net = make(Clip("norm", nonfinite="skip")).fit(BAD, Y)
    net.save_params(f_history=tmp_path / "history.json", f_clipper=tmp_path / "clipper.pt")
    net.load_params(f_history=tmp_path / "history.json", f_clipper=tmp_path / "clipper.pt")
    assert math.isnan(net.history[0, "batches", 2, "clip/norm_before"])
