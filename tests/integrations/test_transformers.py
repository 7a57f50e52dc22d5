"""The Trainer of transformers: real runs of tiny models, against the Trainer's own clipping."""

import gc
import json
import math
from pathlib import Path

import pytest
import torch
from needs import need

import cliplab
from cliplab import Clipper

need("transformers", "integrations")
from transformers import (  # noqa: E402
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from cliplab.integrations.transformers import ClippingTrainer  # noqa: E402

ids = torch.randint(1, 32, (48, 8), generator=torch.Generator().manual_seed(1))
labels = ids.clone()
labels[::3, 3:] = -100  # batches differ in their num_items
DATA = [{"input_ids": x, "labels": y} for x, y in zip(ids, labels, strict=True)]


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """The Trainer collects garbage before it trains: not among all that was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes, **heads))


def gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM")
    return GPT2LMHeadModel(model)


@pytest.fixture
def arguments(tmp_path):
    """Makes the arguments of six updates on the CPU that clip nothing and save nothing."""

    def make(kind=TrainingArguments, **other):
        told = {"report_to": [], "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
        run = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 0.01}
        run |= {"max_grad_norm": 0.0, "save_strategy": "no", "output_dir": str(tmp_path / "out")}
        return kind(**told | run | other)

    return make


def as_torch(model):
    return Clipper(model, 0.5, eps=1e-6)


def skipping(model):
    return Clipper(model, 0.5, nonfinite="skip")


def trained(trainer, **options):
    trainer.train(**options)
    return trainer


def assert_same(left, right):
    for a, b in zip(left.model.parameters(), right.model.parameters(), strict=True):
        assert torch.equal(a, b)


def logged(trainer):
    """What was logged at each update, and depends on nothing but the run."""
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


@pytest.mark.parametrize("model", [llama, gpt2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"bf16": True, "gradient_accumulation_steps": 2},
        {"optim": "adafactor"},
        {"optim": "sgd", "lr_scheduler_type": "constant"},
    ],
)
def test_weights_are_those_of_the_trainers_own_clipping(model, options, arguments):
    theirs = trained(Trainer(model(), arguments(**options | {"max_grad_norm": 0.5}), None, DATA))
    ours = ClippingTrainer(model(), arguments(**options), None, DATA, clipping=as_torch)
    assert_same(theirs, trained(ours))
    assert len(ours.clipper.history) == 6
    assert ours.clipper.history.clipped.any()
    for own, line in zip(logged(theirs), logged(ours), strict=True):
        assert {name: line[name] for name in own} == own  # grad_norm, too


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "adafactor"])
def test_a_scaler_changes_nothing_not_even_in_a_second_run(optim, arguments):
    """fp16 itself needs a GPU; its scaler does not."""

    def make():
        return ClippingTrainer(llama(), arguments(optim=optim), None, DATA, clipping=as_torch)

    plain, scaled = trained(make()), make()
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    assert_same(plain, trained(scaled))
    assert torch.equal(plain.clipper.history.norm_before, scaled.clipper.history.norm_before)
    assert_same(trained(plain), trained(scaled))


class Poison(TrainerCallback):
    """Makes a gradient of the second update NaN, and keeps what every update has left."""

    def __init__(self, model, backward_passes=1):
        self.calls, self.left = 0, []
        self.bad = range(backward_passes + 1, backward_passes + 2)
        weight = model.model.layers[0].mlp.up_proj.weight
        weight.register_hook(self.spoilt)

    def spoilt(self, gradient):
        self.calls += 1
        return gradient * math.nan if self.calls in self.bad else gradient

    def on_step_end(self, args, state, control, model=None, optimizer=None, **other):
        moments = [torch.as_tensor(x) for s in optimizer.state.values() for x in s.values()]
        self.left.append([x.detach().clone() for x in (*model.parameters(), *moments)])


@pytest.mark.parametrize(
    "options",
    [
        {"optim": "adamw_torch"},
        {"optim": "adamw_torch_fused"},
        {"gradient_accumulation_steps": 3},
        {"bf16": True},
        {"optim": "adafactor"},
    ],
)
def test_a_skipped_step_moves_neither_weights_nor_moments(options, arguments):
    model = llama()
    poison = Poison(model, options.get("gradient_accumulation_steps", 1))
    trainer = ClippingTrainer(
        model, arguments(**options), None, DATA, callbacks=[poison], clipping=skipping
    )
    trained(trainer)
    first, second, third, *_ = poison.left
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, second, third))
    assert all(x.isfinite().all() for x in poison.left[-1])
    assert trainer.clipper.history.counts["skipped"] == 1
    assert [line["clip/skipped"] for line in logged(trainer)] == [0, 1, 0, 0, 0, 0]


def test_one_bad_tensor_is_cleared_alone(arguments):
    model = llama()
    poison = Poison(model)
    trainer = ClippingTrainer(
        model,
        arguments(optim="sgd", max_steps=2),
        None,
        DATA,
        callbacks=[poison],
        clipping="tensor_norm",
        clipping_kwargs={"nonfinite": "zero"},
    )
    trained(trainer)
    same = list(map(torch.equal, *poison.left))[: len(list(model.parameters()))]
    assert same.count(True) == 1


def test_a_bad_gradient_is_named_by_its_tensor(arguments):
    model = llama()
    poison = Poison(model)
    trainer = ClippingTrainer(
        model, arguments(), None, DATA, callbacks=[poison], clipping="autoclip"
    )
    with pytest.raises(cliplab.NonFiniteGradientError, match=r"nan in \S*layers\.0\.mlp\.up_proj"):
        trainer.train()


@pytest.mark.parametrize("clipping", ["autoclip", "adagc", "spike_skip"])
def test_a_resumed_run_is_the_run_that_was_not_stopped(clipping, arguments):
    def make():
        args = arguments(max_steps=9, save_strategy="steps", save_steps=4)
        return ClippingTrainer(gpt2(), args, None, DATA, clipping=clipping)

    whole, resumed = trained(make()), make()
    folder = Path(whole.args.output_dir, "checkpoint-4")
    for again in range(2):  # in the same process, too
        trained(resumed, resume_from_checkpoint=str(folder))
        assert_same(whole, resumed)
        ours, theirs = resumed.clipper, whole.clipper
        assert ours.state_dict(plain=True) == theirs.state_dict(plain=True)
        assert ours.history.counts == theirs.history.counts, again
        assert (ours.history.first_step, ours.steps) == (4, resumed.state.global_step)
        assert torch.equal(ours.history.rows, theirs.history.rows[4:])
        assert logged(resumed) == logged(whole)


def test_the_state_lies_in_a_small_file_of_its_own(arguments):
    args = arguments(max_steps=4, save_strategy="steps", save_steps=2)
    trainer = trained(ClippingTrainer(llama(), args, None, DATA, clipping="autoclip"))
    folder = Path(args.output_dir, "checkpoint-2")
    state = torch.load(folder / "clipper.pt", weights_only=True)
    assert (state["steps"], trainer.clipper.steps) == (2, 4)
    assert (folder / "clipper.pt").stat().st_size < 10_000
    told = json.loads((folder / "trainer_state.json").read_text())
    assert not any("clip" in name for name in told["stateful_callbacks"])


def test_a_checkpoint_without_the_state_is_told_of(arguments):
    args = arguments(max_steps=4, save_strategy="steps", save_steps=2)
    trained(Trainer(llama(), args, None, DATA))
    trainer = ClippingTrainer(llama(), args, None, DATA, clipping="autoclip")
    with pytest.warns(UserWarning, match=r"checkpoint-2.clipper\.pt is missing: .* begins anew"):
        trainer.train(resume_from_checkpoint=str(Path(args.output_dir, "checkpoint-2")))
    assert trainer.clipper.steps == 2


def test_the_state_of_another_method_is_refused(arguments):
    args = arguments(max_steps=2, save_strategy="steps", save_steps=2)
    trained(ClippingTrainer(llama(), args, None, DATA, clipping="autoclip"))
    trainer = ClippingTrainer(llama(), args, None, DATA, clipping="zclip")
    with pytest.raises(ValueError, match=r"the state is of Percentile .* this clipper is"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_tensorboard_has_the_clippers_numbers(arguments, tmp_path, monkeypatch):
    need("tensorboard", "parity")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    args = arguments(report_to=["tensorboard"])
    trainer = trained(ClippingTrainer(llama(), args, None, DATA, clipping="autoclip"))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    norms = [(e.step, e.value) for e in events.Scalars("train/clip/norm_before")]
    assert norms == list(enumerate(trainer.clipper.history.norm_before.tolist(), 1))
    assert logged(trainer)[-1].items() >= trainer.clipper.history.latest("clip").items()


def test_evaluation_is_logged_as_ever(arguments):
    args = arguments(max_steps=2)
    trainer = ClippingTrainer(llama(), args, None, DATA, DATA[:4], clipping="autoclip")
    before = trainer.evaluate()
    trained(trainer)
    trainer.evaluate()
    assert before["eval_loss"] > 0
    told = [line for line in trainer.state.log_history if "loss" not in line]
    assert len(told) == 2
    assert not any("clip" in name for line in told for name in line)


def test_the_norm_of_an_update_is_not_logged_as_a_gradients(arguments):
    trainer = trained(ClippingTrainer(llama(), arguments(), None, DATA, clipping="update_rms"))
    last = logged(trainer)[-1]
    assert last["clip/norm_before"] == trainer.clipper.history.latest()["norm_before"]
    assert "grad_norm" not in last


def test_another_trainer_clips_by_the_same_class(arguments):
    class ClippingSeq2Seq(ClippingTrainer, Seq2SeqTrainer):
        pass

    args = arguments(Seq2SeqTrainingArguments)
    mixed = trained(ClippingSeq2Seq(llama(), args, None, DATA, clipping=as_torch))
    plain = ClippingTrainer(llama(), arguments(), None, DATA, clipping=as_torch)
    assert_same(mixed, trained(plain))


def test_every_train_makes_a_clipper(arguments):
    trainer = ClippingTrainer(
        args=arguments(), model_init=lambda: llama(), train_dataset=DATA, clipping="autoclip"
    )
    clipper = trained(trainer).clipper
    trained(trainer)
    assert clipper.attached is None
    assert trainer.clipper is not clipper
    assert (trainer.clipper.steps, trainer.clipper.history.first_step) == (6, 0)


def test_an_optimizer_and_a_scheduler_of_ones_own(arguments):
    model = llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = ClippingTrainer(
        model, arguments(), None, DATA, optimizers=(optimizer, scheduler), clipping="autoclip"
    )
    assert trained(trainer).clipper.history.lr.unique().tolist() == [0.1]


@pytest.mark.parametrize("norm", [None, 0.7])
def test_clipping_that_was_left_on_is_warned_of(norm, arguments, tmp_path):
    own = TrainingArguments(tmp_path, use_cpu=True)
    args = own if norm is None else arguments(max_grad_norm=norm)
    with pytest.warns(UserWarning, match=rf"max_grad_norm={norm or 1.0} .*max_grad_norm=0\.0") as w:
        ClippingTrainer(llama(), args, None, DATA, clipping="autoclip")
    assert w[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"clipping": "autoclp"}, "unknown method 'autoclp'"),
        ({"clipping": 3}, "clipping must be a method's name or a function .* got 3"),
        ({"clipping": "autoclip", "clipping_kwargs": {"percent": 3}}, "no parameter 'percent'"),
        ({"clipping": as_torch, "clipping_kwargs": {"a": 1}}, "a go with a method's name"),
        ({"clipping": lambda model: None}, "clipping must return a Clipper, got None"),
    ],
)
def test_what_is_no_clipping_is_refused(options, complaint, arguments):
    trainer = ClippingTrainer(llama(), arguments(), None, DATA, **options)
    with pytest.raises(ValueError, match=complaint):
        trainer.train()
