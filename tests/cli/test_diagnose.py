"""``cliplab diagnose`` as it is typed: files, a pipe, and a file that grows, by real processes."""

import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commanding import status_of
from needs import need
from waiting import LONG, wait_until

from cliplab import History

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cliplab.cli", "diagnose"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def norm_of(step):
    """Norms around 4, as of a healthy run."""
    return 4 + step * 0.618 % 1


def lines(steps, norm=None):
    rows = [{"step": i, "loss": 1.0, "lr": 0.5, "grad_norm": norm or norm_of(i)} for i in steps]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def always_clipped() -> History:
    history = History(scalar=True)
    for norm in map(norm_of, range(60)):
        history.append(torch.tensor([norm, 1, 1, 1 / norm, 1, 0])[:, None], None)
    return history


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    """A log of 60 norms, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("log.jsonl").write_text(lines(range(60)))
    return Path("log.jsonl")


@pytest.mark.parametrize("name", ["history.pt", "history.csv"])
def test_diagnose_reads_what_a_history_wrote(name, always_clipped, tmp_path, capsys):
    path = tmp_path / name
    always_clipped.save(path) if name.endswith(".pt") else always_clipped.to_csv(path)
    assert status_of(f"diagnose {path} --lr 0.5") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("60 steps: 2 info\n")
    assert "info: always clips: 100% of the steps are clipped" in out
    assert "0.5 x 1 = 0.5" in out


def test_diagnose_for_programs(always_clipped, tmp_path, capsys):
    for _ in range(20):
        always_clipped.append(torch.full((6, 1), math.nan), None)
    always_clipped.save(tmp_path / "history.pt")
    assert status_of(f"diagnose {tmp_path / 'history.pt'} --json") == 1
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    found = told.pop("findings")
    assert [entry["name"] for entry in found] == ["non-finite wall", "always clips", "too short"]
    assert set(found[0]) == {"name", "severity", "message", "advice", "evidence"}
    assert found[0]["evidence"]["begin"] == 60
    assert told == {
        **{"format": "a saved history", "steps": 80, "first_step": 0, "last_step": 79},
        **{"columns": {}, "notes": []},
    }


def test_the_guess_is_told(log, capsys):
    assert status_of("diagnose log.jsonl --threshold 1") == 0
    out, err = capsys.readouterr()
    assert out.startswith("60 steps (0 to 59): 2 info\n\ninfo: always clips")
    assert err == (
        "cliplab: log.jsonl (JSON lines): "
        "norm: grad_norm, step: step, loss: loss, lr: lr, threshold: 1.0\n"
    )
    assert status_of("diagnose log.jsonl --json --loss none") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["columns"] == {
        **{"norm": "grad_norm", "step": "step", "loss": None, "lr": "lr", "threshold": None},
    }
    assert (told["steps"], told["first_step"], told["last_step"]) == (60, 0, 59)
    assert "loss: none" in err
    assert "threshold: none (--threshold says at which norms were clipped)" in err


@pytest.mark.parametrize(
    ("bar", "short", "warned", "broken"),
    [
        ("info", 1, 1, 1),
        ("warning", 0, 1, 1),
        ("critical", 0, 0, 1),
        ("error", 0, 0, 1),
        ("never", 0, 0, 0),
    ],
)
def test_the_exit_status_says_whether_something_was_found(log, bar, warned, broken, short):
    """Of a run that is only short, one with a norm of NaN, and one whose norms end in NaN."""
    command = f"diagnose log.jsonl --fail-on {bar}"
    assert status_of(command) == short
    log.write_text(lines(range(30)) + lines([30], math.nan) + lines(range(31, 60)))
    assert status_of(command) == warned
    log.write_text(lines(range(60)) + lines(range(60, 80), math.nan))
    assert status_of(command) == broken
    log.write_text(lines(range(300)))
    assert status_of(command) == 0


def test_findings_name_the_steps_of_the_log(log, capsys):
    log.write_text(lines(range(100, 400, 10)) + lines(range(400, 600, 10), math.nan))
    assert status_of("diagnose log.jsonl --json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["first_step"], told["last_step"]) == (100, 590)
    assert told["findings"][0]["evidence"]["begin"] == 400
    assert "from step 400 on" in told["findings"][0]["message"]


def test_the_losses_of_a_log_are_looked_at(log, capsys):
    rows = [{"step": i, "loss": 2.0 + i / 100, "grad_norm": norm_of(i)} for i in range(400)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert status_of("diagnose log.jsonl --threshold 1") == 1
    assert "warning: hidden learning rate" in capsys.readouterr().out
    assert status_of("diagnose log.jsonl --threshold 1 --loss none") == 0


def test_what_cannot_be_told_is_refused(log, capsys):
    log.write_text('{"step": 1, "grad_norm": 1, "total_norm": 1}\n')
    assert status_of("diagnose log.jsonl") == 2
    out, err = capsys.readouterr()
    what = "log.jsonl: the norm may be grad_norm or total_norm: name it with --norm"
    assert (out, err) == ("", f"cliplab: error: {what}\n")
    assert status_of("diagnose log.jsonl --norm total_norm") == 0


ROWS = [{"step": i, "grad_norm": math.nan if i == 7 else norm_of(i)} for i in range(60)]
PIPED = {
    "JSON lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "CSV": "step,grad_norm\n" + "".join(f"{r['step']},{r['grad_norm']}\n" for r in ROWS),
    "trainer_state.json": json.dumps({"log_history": ROWS}),
}


def check_piped(kind, status, out, err):
    assert status == 1
    assert out.startswith("60 steps (0 to 59): 1 warning, 1 info\n\nwarning: non-finite")
    assert err.startswith(f"cliplab: standard input ({kind}): norm: grad_norm, step: step")


def test_a_pipe_is_read():
    done = subprocess.run(
        [*COMMAND, "-"],
        input=PIPED["JSON lines"],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    check_piped("JSON lines", done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("kind", PIPED)
def test_what_comes_by_a_pipe_may_have_any_format(kind, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(PIPED[kind].encode())))
    check_piped(kind, status_of("diagnose -"), *capsys.readouterr())


def test_an_empty_pipe_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert status_of("diagnose -") == 2
    line = "cliplab: error: standard input: an empty file\n"
    assert capsys.readouterr() == ("", line)


class Watched:
    """``cliplab diagnose --watch`` of a file, and what it has said so far."""

    def __init__(self, *words):
        self.out, self.err = Path("out.txt"), Path("err.txt")
        with open(self.out, "w") as out, open(self.err, "w") as err:
            command = [*COMMAND, *words, "--watch", "--every", "0.05"]
            self.process = subprocess.Popen(command, env=ENV, stdout=out, stderr=err)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def wait_for(self, text, where=None):
        path = where or self.out
        wait_until(lambda: text in path.read_text() or self.process.poll() is not None)
        assert text in path.read_text(), self.err.read_text()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LONG)


def test_a_growing_file_tells_each_finding_once(log):
    log.write_text(lines(range(60)) + '{"step": 60, "gr')
    with Watched("log.jsonl", "--threshold", "1") as watched:
        watched.wait_for("60 steps (0 to 59): info: always clips: ")
        with open(log, "a") as file:
            file.write('ad_norm": 4.0}\n' + lines(range(61, 80)))
            file.write(lines(range(80, 100), math.nan))
        watched.wait_for("100 steps (0 to 99): critical: non-finite wall: ")
        assert watched.interrupt() == 1
    out = log.with_name("out.txt").read_text()
    assert out.count("always clips") == out.count("non-finite wall") == 1
    assert "Traceback" not in log.with_name("err.txt").read_text()
    assert out.splitlines()[-1] == "100 steps (0 to 99): 1 critical, 2 info"


def test_a_file_without_norms_yet_is_waited_for(log):
    log.write_text('{"config": {"width": 64}}\n')
    with Watched("log.jsonl", "--json", "--threshold", "1") as watched:
        watched.wait_for("cliplab: waiting: log.jsonl: no column of gradient norms", watched.err)
        log.write_text(lines(range(60)))
        watched.wait_for("too short")
        assert watched.interrupt() == 0
        found = [json.loads(line) for line in watched.out.read_text().splitlines()]
    assert [(one["name"], one["steps"]) for one in found] == [
        ("always clips", 60),
        ("too short", 60),
    ]


def test_watching_ends_by_itself(log):
    with Watched("log.jsonl", "--for", "0.2") as watched:
        assert watched.process.wait(LONG) == 0
        assert watched.out.read_text().endswith("\n60 steps (0 to 59): 1 info\n")
    log.write_text("")
    with Watched("log.jsonl", "--for", "0.2") as watched:
        assert watched.process.wait(LONG) == 2
        assert "nothing to diagnose was written while watching" in watched.err.read_text()


def test_event_files_are_watched_as_they_grow(log):
    need("tensorboard", "integrations")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter("run") as writer, Watched("run", "--threshold", "1") as watched:
        for step in range(60):
            writer.add_scalar("grad_norm", norm_of(step), step)
        writer.flush()
        watched.wait_for("60 steps (0 to 59): info: always clips: ")
        for step in range(60, 80):
            writer.add_scalar("grad_norm", math.nan, step)
        writer.flush()
        watched.wait_for("80 steps (0 to 79): critical: non-finite wall: ")
        assert watched.interrupt() == 1


def test_event_files_without_tensorboard_say_what_to_install(log):
    Path("events.out.tfevents.1").write_bytes(b"")
    Path("sitecustomize.py").write_text("import sys\nsys.modules['tensorboard'] = None\n")
    done = subprocess.run(
        [*COMMAND, "events.out.tfevents.1"],
        env=ENV | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.getcwd()])},
        capture_output=True,
        text=True,
    )
    line = 'cliplab: error: tensorboard is not installed: pip install "cliplab[integrations]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


TRAINER = """
import torch
from transformers import Trainer, TrainingArguments
from cliplab.integrations.transformers import ClippingTrainer

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, y):
        return {"loss": ((self.layer(x)[:, 0] - y) ** 2).mean()}

torch.manual_seed(0)
data = [{"x": torch.ones(4) * (i % 7), "y": torch.tensor(1.0)} for i in range(64)]
how = dict(use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False)
how |= dict(max_steps=60, logging_steps=1, save_steps=60, max_grad_norm=0.5, learning_rate=1e-5)
Trainer(Model(), TrainingArguments("run", **how), train_dataset=data).train()
args = TrainingArguments("clipped", **how | dict(max_grad_norm=0.0))
ClippingTrainer(Model(), args, train_dataset=data, clipping="autoclip").train()
"""


@pytest.mark.slow
def test_the_state_of_a_real_trainer_is_read(log, capsys):
    need("transformers", "integrations")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINER], env=ENV, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for path in ("run/checkpoint-60/trainer_state.json", "run/checkpoint-60"):
        assert status_of(f"diagnose {path} --threshold 0.5 --json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["columns"] == {
            **{"norm": "grad_norm", "step": "step", "loss": "loss", "lr": "learning_rate"},
            "threshold": 0.5,
        }
        assert told["format"] == "trainer_state.json"
        assert (told["first_step"], told["last_step"]) == (1, 60)
        assert [found["name"] for found in told["findings"]] == ["always clips", "too short"]
        assert told["findings"][0]["evidence"]["lr"] == pytest.approx(5e-6, rel=0.1)
    assert status_of("diagnose clipped/checkpoint-60 --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["columns"] == {
        **{"norm": "clip/norm_before", "step": "step", "loss": "loss", "lr": "clip/lr"},
        "threshold": "clip/threshold",
    }
    assert told["steps"] == 60
