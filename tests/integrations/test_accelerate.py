"""Loops of Accelerate, as its own examples write them, against its own clipping."""

import math
import os

import pytest
import torch
from needs import need
from torch import nn

import cliplab
from cliplab import Clipper

need("accelerate", "integrations")
from accelerate import Accelerator, DistributedType  # noqa: E402
from accelerate.state import AcceleratorState, GradientState  # noqa: E402
from accelerate.tracking import GeneralTracker  # noqa: E402

from cliplab.integrations.accelerate import attach  # noqa: E402

EPOCHS, BATCHES = 2, 6


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """What one Accelerator says of the process is no affair of the next test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Loop:
    """A model, its optimizer and its data, prepared; ``bad`` are backward passes that give NaN."""

    def __init__(self, kind=torch.optim.AdamW, scale=None, bad=(), prepare=True, **options):
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(cpu=True, **options)
        if scale is not None:
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        x = torch.randn(8 * BATCHES, 4)
        self.optimizer = kind(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.batches = torch.utils.data.DataLoader(x, batch_size=8)
        self.bad, self.calls = bad, 0
        if prepare:
            self.prepare()

    def prepare(self):
        prepared = self.accelerator.prepare(
            self.model, self.optimizer, self.batches, self.scheduler
        )
        self.model, self.optimizer, self.batches, self.scheduler = prepared

    def run(self, clip=lambda parameters: None, epochs=EPOCHS, after=lambda: None):
        for _ in range(epochs):
            for x in self.batches:
                with self.accelerator.accumulate(self.model):
                    loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
                    self.accelerator.backward(loss * (math.nan if self.calls in self.bad else 1))
                    if self.accelerator.sync_gradients:
                        clip(self.model.parameters())
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
                self.calls += 1
                after()
        return self

    def clipped(self, make=lambda model: Clipper(model, 0.5, eps=1e-6)):
        self.clipper = make(self.model)
        attach(self.clipper, self.accelerator, self.optimizer)
        return self

    @property
    def weights(self):
        return torch.cat([p.detach().flatten().clone() for p in self.model.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 4},  # the last update of an epoch has two batches
        {"mixed_precision": "bf16"},
        {"mixed_precision": "bf16", "gradient_accumulation_steps": 2},
        {"kind": torch.optim.SGD},
    ],
)
def test_weights_are_those_of_accelerates_own_clipping(options):
    theirs = Loop(**options)
    theirs.run(lambda parameters: theirs.accelerator.clip_grad_norm_(parameters, 0.5))
    ours = Loop(**options).clipped().run()
    assert torch.equal(theirs.weights, ours.weights)
    updates = EPOCHS * math.ceil(BATCHES / options.get("gradient_accumulation_steps", 1))
    assert len(ours.clipper.history) == updates
    assert ours.clipper.history.clipped.any()


def test_value_clipping_is_accelerates():
    theirs = Loop()
    theirs.run(lambda parameters: theirs.accelerator.clip_grad_value_(parameters, 0.1))
    ours = Loop().clipped(lambda model: cliplab.create("value", model, threshold=0.1)).run()
    assert torch.equal(theirs.weights, ours.weights)


class Foreign(torch.optim.SGD):
    """An optimizer from outside torch."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Foreign])
def test_a_scaler_changes_nothing_but_the_step_it_drops(kind):
    """fp16 itself needs a GPU; its scaler does not."""
    plain, scaled = Loop(kind).clipped().run(), Loop(kind, scale=2.0**8).clipped().run()
    assert torch.equal(plain.weights, scaled.weights)
    assert torch.equal(plain.clipper.history.norm_before, scaled.clipper.history.norm_before)
    dropped = Loop(kind, scale=2.0**8, bad=[3]).clipped(lambda m: cliplab.create("autoclip", m))
    dropped.run()
    assert dropped.weights.isfinite().all()
    assert dropped.clipper.policy.state_dict()["count"] == EPOCHS * BATCHES - 1


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, Foreign])
def test_a_skipped_step_moves_neither_weights_nor_moments(kind, precision, accumulation):
    loop = Loop(
        kind, bad=[4], mixed_precision=precision, gradient_accumulation_steps=accumulation
    ).clipped(lambda model: Clipper(model, 0.5, nonfinite="skip"))
    left = []

    def keep():
        if loop.accelerator.sync_gradients:
            states = loop.optimizer.state.values()
            left.append([loop.weights, *(x.clone() for s in states for x in s.values())])

    loop.run(after=keep)
    bad = 4 // accumulation
    assert all(map(torch.equal, left[bad - 1], left[bad]))
    assert not torch.equal(left[bad][0], left[bad + 1][0])
    assert loop.clipper.history.skipped.nonzero().flatten().tolist() == [bad]


@pytest.mark.parametrize("method", ["autoclip", "adagc", "spike_skip"])
def test_a_loaded_state_goes_on_as_the_run_that_was_not_stopped(method, tmp_path):
    def make():
        return Loop().clipped(lambda model: cliplab.create(method, model))

    whole = make().run(epochs=1)
    whole.accelerator.save_state(str(tmp_path))
    whole.run(epochs=1)
    resumed = make()
    resumed.accelerator.load_state(str(tmp_path))
    ours, theirs = resumed.clipper, whole.clipper
    assert (ours.steps, ours.history.first_step) == (BATCHES, BATCHES)
    resumed.run(epochs=1)
    assert torch.equal(whole.weights, resumed.weights)
    assert ours.state_dict(plain=True) == theirs.state_dict(plain=True)
    assert torch.equal(ours.history.rows, theirs.history.rows[BATCHES:])


class Noted(GeneralTracker):
    name, requires_logging_directory, tracker = "noted", False, None

    def __init__(self):
        super().__init__()
        self.lines = []

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None):
        self.lines.append((step, values))


def test_a_tracker_has_the_clippers_numbers():
    tracker = Noted()
    loop = Loop(log_with=tracker)
    loop.accelerator.init_trackers("run")
    loop.clipped(lambda model: cliplab.create("autoclip", model))
    history, log = loop.clipper.history, loop.accelerator.log
    loop.run(after=lambda: log(history.latest("clip"), step=loop.clipper.steps))
    steps, lines = zip(*tracker.lines, strict=True)
    assert list(steps) == list(range(1, EPOCHS * BATCHES + 1))
    assert [line["clip/norm_before"] for line in lines] == history.norm_before.tolist()


def test_a_second_prepare_and_a_second_attach_clip_once(tmp_path):
    once, twice = Loop().clipped().run(), Loop().clipped()
    twice.prepare()
    twice.clipper.detach()
    attach(twice.clipper, twice.accelerator, twice.optimizer)
    with pytest.raises(ValueError, match="already attached"):
        attach(twice.clipper, twice.accelerator, twice.optimizer)
    assert torch.equal(once.weights, twice.run().weights)
    twice.accelerator.save_state(str(tmp_path))
    assert len(list(tmp_path.glob("custom_checkpoint_*"))) == 1


def test_attached_before_prepare_it_clips_all_the_same():
    after, before = Loop().clipped().run(), Loop(prepare=False).clipped()
    before.prepare()
    assert torch.equal(after.weights, before.run().weights)


def test_several_optimizers_have_one_norm():
    whole = Loop(torch.optim.SGD).clipped()
    parts = Loop(torch.optim.SGD)
    first, _, last = parts.model
    both = [torch.optim.SGD(part.parameters(), lr=0.05) for part in (first, last)]
    both = parts.accelerator.prepare(*both)
    clipper = Clipper(parts.model, 0.5, eps=1e-6)
    attach(clipper, parts.accelerator, *both)
    for x in parts.batches:
        for loop, optimizers in ((whole, [whole.optimizer]), (parts, both)):
            loop.accelerator.backward((loop.model(x) - x.sum(1, keepdim=True)).square().mean())
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert torch.equal(whole.weights, parts.weights)
    assert len(clipper.history) == BATCHES


def test_what_steps_by_itself_is_refused_by_name(monkeypatch):
    loop = Loop()
    clipper = Clipper(loop.model, 1.0)
    for kind, name in [
        (DistributedType.DEEPSPEED, "DEEPSPEED steps in an engine of its own"),
        (DistributedType.MEGATRON_LM, "MEGATRON_LM steps in an engine of its own"),
        (DistributedType.FSDP, "FSDP 1 .* use FSDP 2"),
    ]:
        monkeypatch.setattr(Accelerator, "distributed_type", kind)
        monkeypatch.setattr(Accelerator, "is_fsdp2", False)
        with pytest.raises(ValueError, match=name):
            attach(clipper, loop.accelerator, loop.optimizer)
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    attach(clipper, loop.accelerator, loop.optimizer)


def test_bad_arguments_are_named():
    loop = Loop()
    clipper = Clipper(loop.model, 1.0)
    with pytest.raises(ValueError, match="accelerator must be an Accelerator, got an optimizer"):
        attach(clipper, loop.optimizer, loop.accelerator)
    with pytest.raises(ValueError, match=r"attach takes .* got the module Sequential"):
        attach(clipper, loop.accelerator, loop.model)
    assert clipper.attached is None
