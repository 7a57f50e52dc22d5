"""Ignite: trainers that train for real, for some iterations, against clipping by hand."""

import math

import pytest
import torch
from needs import need
from torch import nn

import cliplab
from cliplab import Clipper

need("ignite", "integrations")
from ignite.engine import Engine, Events, create_supervised_trainer  # noqa: E402
from ignite.handlers import Checkpoint, DiskSaver  # noqa: E402
from ignite.handlers.tensorboard_logger import TensorboardLogger  # noqa: E402

from cliplab.integrations.ignite import attach  # noqa: E402

generator = torch.Generator().manual_seed(1)
X = torch.randn(8, 16, 4, generator=generator)
DATA = [(x, x.sum(1, keepdim=True)) for x in X]


class Training:
    """A model, its optimizer, and a trainer of eight batches an epoch."""

    def __init__(self, update=None, bad=(), **options):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.bad, self.seen = bad, []
        if update is None:
            self.trainer = create_supervised_trainer(
                self.model, self.optimizer, self.loss, **options
            )
        else:
            self.trainer = Engine(lambda engine, batch: update(self, *batch))
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: self.seen.append(self.weights)
        )

    def loss(self, predicted, y):
        bad = self.trainer.state.iteration - 1 in self.bad
        return (math.nan if bad else 4.0) * (predicted - y).square().mean()

    @property
    def weights(self):
        return torch.cat([p.detach().flatten().clone() for p in self.model.parameters()])


def by_hand(training, x, y):
    training.optimizer.zero_grad()
    training.loss(training.model(x), y).backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 0.5)
    training.optimizer.step()


def test_weights_are_those_of_torchs_clipping_in_the_update():
    theirs, ours = Training(by_hand), Training()
    clipper = Clipper(ours.model, 0.5, eps=1e-6)
    attach(clipper, ours.trainer, ours.optimizer)
    theirs.trainer.run(DATA, max_epochs=2)
    ours.trainer.run(DATA, max_epochs=2)
    assert torch.equal(theirs.weights, ours.weights)
    assert len(clipper.history) == 16
    assert clipper.history.clipped.any()


def test_accumulated_gradients_are_one_step():
    training = Training(gradient_accumulation_steps=4)
    clipper = Clipper(training.model, 0.5)
    attach(clipper, training.trainer, training.optimizer)
    training.trainer.run(DATA)
    assert len(clipper.history) == 2


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")  # Ignite's autocast is CUDA's
def test_sizes_are_in_true_units_under_a_scaler():
    plain = Training()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled = Training(amp_mode="amp", scaler=scaler)
    clippers = [Clipper(training.model, 0.5) for training in (plain, scaled)]
    for training, clipper in zip((plain, scaled), clippers, strict=True):
        attach(clipper, training.trainer, training.optimizer)
        training.trainer.run(DATA)
    torch.testing.assert_close(clippers[0].history.rows, clippers[1].history.rows)
    torch.testing.assert_close(plain.weights, scaled.weights)


def test_a_skipped_step_moves_nothing():
    training = Training(bad=[3])
    clipper = cliplab.create("autoclip", training.model, nonfinite="skip")
    attach(clipper, training.trainer, training.optimizer)
    training.trainer.run(DATA)
    assert torch.equal(training.seen[3], training.seen[2])
    assert not torch.equal(training.seen[4], training.seen[3])
    assert clipper.history.counts["skipped"] == 1
    assert {float(state["step"]) for state in training.optimizer.state.values()} == {7.0}


def test_metrics_are_in_ignites_loggers(tmp_path):
    need("tensorboard", "integrations")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = Training()
    clipper = cliplab.create("autoclip", training.model)
    attach(clipper, training.trainer, training.optimizer, every=4)
    with TensorboardLogger(log_dir=str(tmp_path)) as logger:
        event = Events.ITERATION_COMPLETED(every=4)
        logger.attach_output_handler(training.trainer, event, "training", metric_names="all")
        training.trainer.run(DATA)
    assert training.trainer.state.metrics == clipper.history.latest("clip")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    logged = events.Scalars("training/clip/norm_before")
    assert [event.step for event in logged] == [4, 8]
    norms = clipper.history.norm_before[3::4].tolist()
    assert [event.value for event in logged] == pytest.approx(norms)


def test_a_log_is_a_handler():
    training, steps = Training(), []
    clipper = Clipper(training.model, 0.5)
    attach(clipper, training.trainer, training.optimizer)
    log = clipper.history.log_to(lambda numbers, step: steps.append(step))
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED(every=4), log)
    training.trainer.run(DATA)
    assert steps == list(range(8))


def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_run(tmp_path):
    def prepare():
        training = Training(deterministic=True)
        clipper = cliplab.create("autoclip", training.model, percentile=30)
        attach(clipper, training.trainer, training.optimizer)
        names = {"model": training.model, "optimizer": training.optimizer}
        return training, clipper, names | {"trainer": training.trainer, "clipper": clipper}

    whole, first, objects = prepare()
    saver = Checkpoint(objects, DiskSaver(tmp_path), n_saved=None)
    whole.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=11), saver)
    whole.trainer.run(DATA, max_epochs=2)
    resumed, second, objects = prepare()
    saved = torch.load(tmp_path / "checkpoint_11.pt", weights_only=False)  # the trainer's numpy
    Checkpoint.load_objects(objects, saved)
    resumed.trainer.run(DATA, max_epochs=2)
    assert torch.equal(whole.weights, resumed.weights)
    assert (second.history.first_step, len(second.history)) == (11, 5)
    assert torch.equal(second.history.rows, first.history.rows[11:])
    assert second.history.counts == first.history.counts
    for name, value in first.policy.state_dict().items():
        torch.testing.assert_close(second.policy.state_dict()[name], value, rtol=0, atol=0)


def test_a_second_run_goes_on_and_detach_ends_it():
    training = Training()
    clipper = Clipper(training.model, 0.5)
    attach(clipper, training.trainer, training.optimizer)
    training.trainer.run(DATA)
    training.trainer.run(DATA)
    assert len(clipper.history) == 16
    clipper.detach()
    training.trainer.state.metrics = {}
    training.trainer.run(DATA)
    assert len(clipper.history) == 16
    assert training.trainer.state.metrics == {}


def test_one_norm_over_several_optimizers():
    def update(training, x, y):
        for optimizer in optimizers:
            optimizer.zero_grad()
        training.loss(training.model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()

    training = Training(update)
    optimizers = [torch.optim.SGD(training.model[at].parameters(), lr=0.05) for at in (0, 2)]
    clipper = Clipper(training.model, 0.5)
    attach(clipper, training.trainer, *optimizers)
    training.trainer.run(DATA)
    assert len(clipper.history) == 8
    assert clipper.history.norm_after.max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"trainer": "engine"}, "trainer must be an ignite Engine, got 'engine'"),
        ({"every": 0}, "every must be an integer >= 1"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))])}, "holds only part"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, complaint):
    training = Training()
    clipper = Clipper(training.model, 0.5)
    given = {"trainer": training.trainer, "optimizer": training.optimizer} | change
    with pytest.raises(ValueError, match=complaint):
        attach(clipper, **given)
    assert clipper.attached is None
