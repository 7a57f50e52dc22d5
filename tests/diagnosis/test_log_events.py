"""Event files of TensorBoard, written by torch's own SummaryWriter."""

import math

import pytest
import torch
from needs import need

from cliplab import Clipper
from cliplab.diagnosis import read_log

need("tensorboard", "integrations")
from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: E402
from tensorboard.util.tensor_util import make_tensor_proto  # noqa: E402
from torch.utils.tensorboard import SummaryWriter  # noqa: E402


def write(folder, steps, norm=1.0, **how):
    """One more event file, named as if it came a second after those that are there.

    Tensorboard reads files in the order of their names: those of a second count 9, 10.
    """
    before = set(folder.glob("*"))
    with SummaryWriter(str(folder), **how) as writer:
        for step in steps:
            writer.add_scalar("train/grad_norm", norm, step)
            writer.add_scalar("train/loss", step / 2, step)
        writer.add_scalar("eval/loss", 9.0, steps[-1])
        writer.add_text("config", "lr: 0.1")
    (file,) = set(folder.glob("*")) - before
    file.rename(folder / f"events.out.tfevents.{len(before):010d}.host")


def test_a_run_is_read_from_its_file_its_folder_or_one_above(tmp_path):
    write(tmp_path / "runs" / "a", range(100, 200))
    (file,) = (tmp_path / "runs" / "a").iterdir()
    for path in (file, file.parent, tmp_path):
        log = read_log(path)
        assert log.steps.tolist() == list(range(100, 200))
        assert log.loss.tolist() == [step / 2 for step in range(100, 200)]
        assert (log.columns["norm"], log.columns["loss"]) == ("train/grad_norm", "train/loss")
        assert (log.format, log.notes) == ("TensorBoard events", [])


def test_several_runs_are_named(tmp_path):
    write(tmp_path / "a", range(2)), write(tmp_path / "b", range(2))
    with pytest.raises(ValueError, match=r"a folder of 2 runs, name one: .*a, .*b$"):
        read_log(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="a folder without"):
        read_log(tmp_path / "none")


def test_after_a_resume_the_later_file_counts(tmp_path):
    write(tmp_path, range(60))
    write(tmp_path, range(50, 70), norm=2.0)
    log = read_log(tmp_path)
    assert log.history.norm_before.tolist() == [1.0] * 50 + [2.0] * 20
    assert log.notes == ["10 rows of a step that is logged again, as after a resume: left out"]


def test_what_a_restarted_run_took_back_is_gone(tmp_path):
    write(tmp_path, range(60))
    write(tmp_path, range(30, 40), norm=2.0, purge_step=30)
    assert read_log(tmp_path).history.norm_before.tolist() == [1.0] * 30 + [2.0] * 10


def test_a_file_that_ends_within_an_event_is_read_up_to_there(tmp_path):
    write(tmp_path, range(100))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert 50 < len(read_log(file).history) < 80


def test_scalars_that_are_tensors_are_read_as_tensorflow_writes_them(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            value = summary_pb2.Summary.Value(tag="grad_norm", tensor=make_tensor_proto(0.5 + step))
            value.metadata.plugin_data.plugin_name = "scalars"
            event = event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[value]))
            writer.file_writer.event_writer.add_event(event)
    assert read_log(tmp_path).history.norm_before.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_what_a_clipper_wrote_itself_is_taken_as_it_was(tmp_path):
    model = torch.nn.Linear(3, 2)
    clipper = Clipper(model, 0.5, nonfinite="skip")
    for i in range(20):
        for p in model.parameters():
            p.grad = torch.full_like(p, math.nan if i == 7 else 0.1 * i)
        clipper.clip()
    with SummaryWriter(str(tmp_path)) as writer:
        clipper.history.to_tensorboard(writer)
    log = read_log(tmp_path)
    for column in ("norm_before", "threshold", "factor", "clipped", "skipped"):
        mine, theirs = getattr(log.history, column), getattr(clipper.history, column)
        torch.testing.assert_close(mine, theirs.to(mine), rtol=0, atol=0, equal_nan=True)
