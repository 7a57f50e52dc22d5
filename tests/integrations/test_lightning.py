"""Lightning: trainers that train for real, for some steps, against Lightning's own clipping."""

import copy
import math
import warnings

import pytest
import torch
from needs import need
from torch import nn

import cliplab
from cliplab import Clipper
from cliplab.thresholds import SpikeSkip

need("lightning", "integrations")
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

from cliplab.integrations.lightning import Clip  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]


class Batches:
    """Eight batches an epoch, which go on where a checkpoint stopped."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(8, 16, 4, generator=generator)
        self.at = 0

    def __len__(self):
        return len(self.x)

    def __iter__(self):
        self.at %= len(self)  # nobody asks for what comes after the last one
        while self.at < len(self):
            self.at += 1
            yield self.x[self.at - 1]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Module(LightningModule):
    def __init__(self, bad=()):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.bad, self.calls, self.seen = bad, 0, []

    def loss(self, x):
        self.calls += 1
        size = math.nan if self.calls - 1 in self.bad else 4.0
        return size * (self.net(x) - x.sum(1, keepdim=True)).square().mean()

    def training_step(self, x, index):
        return self.loss(x)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.net.parameters(), lr=0.05)

    def on_train_batch_end(self, *_):
        self.seen.append(weights(self))


class Manual(Module):
    automatic_optimization = False

    def training_step(self, x, index):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(x))
        optimizer.step()


class Two(Module):
    automatic_optimization = False

    def training_step(self, x, index):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.loss(x))
            optimizer.step()

    def configure_optimizers(self):
        parts = (self.net[0], self.net[2])
        return [torch.optim.AdamW(part.parameters(), lr=0.05) for part in parts]


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.net.parameters()])


def fit(module, *callbacks, ckpt_path=None, epochs=1, trainer=None, **options):
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    settings |= {"max_epochs": epochs, "callbacks": list(callbacks)} | options
    trainer = trainer or Trainer(**settings)
    trainer.fit(module, Batches(), ckpt_path=ckpt_path)
    return trainer


def as_torch(threshold):
    return Clip(lambda module: Clipper(module, threshold, eps=1e-6))


def scaled(scale=2.0**10):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return MixedPrecision("16-mixed", "cpu", scaler=scaler)


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"plugins": scaled}],
)
def test_weights_are_those_of_lightnings_own_clipping(options):
    def make():
        return {name: value() if callable(value) else value for name, value in options.items()}

    theirs, ours, clip = Module(), Module(), as_torch(0.5)
    fit(theirs, gradient_clip_val=0.5, **make())
    fit(ours, clip, **make())
    assert torch.equal(weights(theirs), weights(ours))
    history = clip.clipper.history
    assert len(history) == (4 if "accumulate_grad_batches" in options else 8)
    assert history.clipped.any()
    assert not clip.clipper.attached


def test_value_clipping_is_lightnings():
    theirs, ours = Module(), Module()
    fit(theirs, gradient_clip_val=0.1, gradient_clip_algorithm="value")
    fit(ours, Clip("value", threshold=0.1))
    assert torch.equal(weights(theirs), weights(ours))


def test_manual_optimization_is_clipped_as_automatic():
    automatic, manual = Module(), Manual()
    fit(automatic, Clip("norm", threshold=0.5))
    fit(manual, Clip("norm", threshold=0.5))
    assert torch.equal(weights(automatic), weights(manual))


def test_several_optimizers_take_a_clip_each():
    clips = [
        Clip(lambda module, at=at: Clipper(module.net[at], 0.1), tag=f"net{at}") for at in (0, 2)
    ]
    module = Two()
    fit(module, *clips)
    for clip in clips:
        assert len(clip.clipper.history) == 8
        assert clip.clipper.history.norm_after.max() <= 0.1 + 1e-6


def test_one_clip_for_several_optimizers_is_refused():
    with pytest.raises(ValueError, match=r"only part of .* parameters: 2 of 4"):
        fit(Two(), Clip("norm", threshold=0.1))


def test_a_clipper_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"only part .* 2 of 2 are missing"):
        fit(Module(), Clip(lambda module: Clipper(nn.Linear(2, 2), 1.0)))


@pytest.mark.parametrize(
    ("clipping", "arguments", "complaint"),
    [
        (1.0, {}, "clipping must be a method's name or a function"),
        ("autoclop", {}, "did you mean 'autoclip'"),
        (lambda module: module, {}, "clipping must return a Clipper"),
        (lambda module: Clipper(module), {"threshold": 1.0}, "threshold go with a method's name"),
        ("autoclip", {"percentil": 10}, "percentil"),
    ],
)
def test_bad_arguments_are_refused_by_name(clipping, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        fit(Module(), Clip(clipping, **arguments))


def test_lightnings_clipping_left_on_is_warned_of():
    with pytest.warns(UserWarning, match=r"gradient_clip_val=.* clips, too.*leave it out"):
        fit(Module(), Clip("norm", threshold=0.5), gradient_clip_val=0.5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(Module(), Clip("norm", threshold=0.5))
    assert not [w for w in said if "clip" in str(w.message)]


@pytest.mark.parametrize("kind", [Module, Manual])
def test_a_skipped_step_moves_nothing(kind):
    module, clip = kind(bad=[3]), Clip("autoclip", nonfinite="skip")
    trainer = fit(module, clip)
    assert torch.equal(module.seen[3], module.seen[2])
    assert not torch.equal(module.seen[4], module.seen[3])
    assert clip.clipper.history.skipped.tolist() == [step == 3 for step in range(8)]
    states = trainer.optimizers[0].state.values()
    assert {float(state["step"]) for state in states} == {7.0}
    assert all(state["exp_avg"].isfinite().all() for state in states)


def test_a_policy_can_be_shown_the_loss():
    class Showing(Module):
        def training_step(self, x, index):
            loss = self.loss(x)
            clip.clipper.observe(1000 * loss if index == 6 else loss)
            return loss

    policy = SpikeSkip(window=4, warmup=2, floor=5.0)
    clip = Clip(lambda module: Clipper(module, policy, mode="skip"))
    fit(Showing(), clip)
    assert clip.clipper.history.skipped.tolist() == [step == 6 for step in range(8)]


def test_what_the_scaler_drops_is_not_learnt():
    module, clip = Module(bad=[3]), Clip("autoclip")
    fit(module, clip, plugins=scaled())
    assert torch.equal(module.seen[3], module.seen[2])
    assert len(clip.clipper.history) == 7  # the scaler does not even call the optimizer
    assert clip.clipper.history.norm_before.isfinite().all()


def test_metrics_are_in_lightnings_logger(tmp_path):
    clip = Clip("autoclip")
    logger = CSVLogger(tmp_path)
    trainer = fit(Module(), clip, logger=logger, log_every_n_steps=4)
    expected = clip.clipper.history.latest("clip")
    assert {name: float(trainer.logged_metrics[name]) for name in expected} == pytest.approx(
        expected
    )
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    head, *rows = [row.split(",") for row in rows]
    logged = [float(row[head.index("clip/norm_before")]) for row in rows]
    assert logged == pytest.approx(clip.clipper.history.norm_before[3::4].tolist())
    assert [int(row[head.index("step")]) for row in rows] == [3, 7]


def saving(path, after):
    return ModelCheckpoint(path, every_n_train_steps=after, save_top_k=-1, filename="{step}")


@pytest.mark.parametrize("kind", [Module, Manual])
def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_run(tmp_path, kind):
    def clip():
        return Clip("autoclip", percentile=30)

    whole, first = kind(), clip()
    fit(whole, first, saving(tmp_path, 11), epochs=2, enable_checkpointing=True)
    resumed, second = kind(), clip()
    fit(resumed, second, ckpt_path=str(tmp_path / "step=11.ckpt"), epochs=2)
    assert torch.equal(weights(whole), weights(resumed))
    ours, theirs = second.clipper, first.clipper
    assert (ours.history.first_step, len(ours.history)) == (11, 5)
    assert torch.equal(ours.history.rows, theirs.history.rows[11:])
    assert ours.history.counts == theirs.history.counts
    same_state(ours, theirs)


def same_state(ours, theirs):
    assert ours.steps == theirs.steps
    for name, value in theirs.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], value, rtol=0, atol=0)


def test_a_second_fit_begins_anew_and_one_from_a_checkpoint_goes_on(tmp_path):
    clip, module = Clip("autoclip"), Module()
    trainer = fit(module, clip, saving(tmp_path, 8), enable_checkpointing=True)
    first = clip.clipper
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, Batches())
    assert clip.clipper is not first
    assert (clip.clipper.steps, clip.clipper.history.first_step) == (8, 0)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, Batches(), ckpt_path=str(tmp_path / "step=8.ckpt"))
    assert (clip.clipper.steps, clip.clipper.history.first_step) == (16, 8)
    assert len(first.history) == 8


def test_what_a_test_has_loaded_is_nothing_to_the_next_fit(tmp_path):
    clip, module = Clip("autoclip"), Module()
    module.test_step = lambda x, batch_idx=0: None
    trainer = fit(module, clip, saving(tmp_path, 8), enable_checkpointing=True)
    history = clip.clipper.history
    trainer.test(module, Batches(), ckpt_path=str(tmp_path / "step=8.ckpt"), verbose=False)
    assert clip.clipper.history is history
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, Batches())
    assert clip.clipper.history.first_step == 0


def test_a_clipper_of_ones_own_can_be_used_after_the_fit():
    module = Module()
    clipper = Clipper(module, 0.5)
    fit(module, Clip(lambda _: clipper))
    fit(module, Clip(lambda _: clipper))
    assert len(clipper.history) == 16
    module.loss(torch.ones(2, 4)).backward()
    assert clipper.clip().clipped


def test_a_fit_that_fails_can_be_made_again():
    clip = Clip("autoclip", nonfinite="raise")
    module = Module(bad=[2])
    with pytest.raises(cliplab.NonFiniteGradientError):
        fit(module, clip)
    fit(module, clip)
    assert len(clip.clipper.history) == 8


def test_two_callbacks_with_one_tag_are_lightnings_error():
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        Trainer(callbacks=[Clip("autoclip"), Clip("zclip")], accelerator="cpu", logger=False)


def test_a_callback_can_be_copied():
    other = copy.deepcopy(Clip("autoclip"))
    fit(Module(), other)
    assert other.clipper.steps == 8
