"""What a history tells other tools' logs."""

import copy
import math
import warnings

import pytest
import torch
from needs import need
from trackers import Aim, Mlflow, Trackio, Wandb

import cliplab
from cliplab import History


def filled(sizes, limit=1.0, lr=0.5, labels=()):
    """A history of steps of these sizes, clipped at one limit."""
    history = History(labels, scalar=not labels)
    for size in sizes:
        size = torch.tensor(size).reshape(-1)
        limits = torch.full_like(size, limit)
        factor = (limits / size).clamp(max=1)
        clipped = (size > limits).float()
        history.append(torch.stack([size, size * factor, limits, factor, clipped, size * 0]), lr)
    return history


def test_latest_is_the_last_step_in_plain_numbers():
    history = filled([0.5, 4.0])
    expected = {"norm_before": 4.0, "norm_after": 1.0, "threshold": 1.0, "factor": 0.25}
    expected |= {"clipped": 1.0, "skipped": 0.0, "lr": 0.5, "effective_lr": 0.125}
    assert history.latest() == expected
    assert all(type(value) is float for value in history.latest().values())
    assert history.latest("clip") == {f"clip/{name}": value for name, value in expected.items()}


def test_latest_of_nothing_is_nothing():
    assert History().latest() == {}


def test_latest_of_parts_is_that_of_the_whole():
    latest = filled([[3.0, 4.0, 0.0]], limit=2.0, labels=["a", "b", "c"]).latest()
    assert latest["norm_before"] == 5.0
    assert latest["norm_after"] == pytest.approx(math.hypot(2, 2))
    assert latest["factor"] == pytest.approx(math.hypot(2, 2) / 5)
    assert latest["clipped"] == pytest.approx(2 / 3)
    assert latest["threshold"] == 2.0


def test_what_is_not_known_is_not_there():
    history = filled([2.0], lr=None)
    assert not {"lr", "effective_lr", "update_norm"} & history.latest().keys()
    history.put_update(7.0)
    assert history.latest()["update_norm"] == 7.0
    model = torch.nn.Linear(2, 2)
    clipper = cliplab.Clipper(model, {"weight": 1.0, "bias": 2.0}, scope="tensor")
    model(torch.ones(1, 2)).sum().backward()
    clipper.clip()
    assert "threshold" not in clipper.history.latest()


def test_numbers_that_lie_on_a_device_are_read(monkeypatch):
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    logged, history = [], History(scalar=True)
    for rate in (0.5, 0.25):
        row = torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None]
        history.append(row, torch.tensor(rate))
        history.put_update(torch.tensor(rate))
    history.log_to(lambda numbers, step: logged.append(numbers), tag="")()
    assert [(n["lr"], n["update_norm"]) for n in logged] == [(0.5, 0.5), (0.25, 0.25)]
    assert logged[-1] == history.latest()


def test_a_skipped_step_has_factor_0():
    model = torch.nn.Linear(2, 2)
    clipper = cliplab.Clipper(model, 0.1, mode="skip")
    model(torch.ones(1, 2)).sum().backward()
    clipper.clip()
    latest = clipper.history.latest()
    assert (latest["skipped"], latest["factor"]) == (1.0, 0.0)


def test_latest_reads_the_last_block_alone(monkeypatch):
    history = filled([1.0] * 3000)
    assert len(history._blocks) == 3
    read = []
    monkeypatch.setattr(type(history), "_joined", lambda *_: read.append("all"))
    for block in list(history._blocks)[:-1]:
        block.rows = block.lrs = None
    history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], None)
    assert history.latest()["norm_before"] == 4.0
    assert not read


# --- log_to -----------------------------------------------------------------------------------


TRACKERS = {Wandb: "log", Mlflow: "log_metrics", Aim: "track", Trackio: "log"}


@pytest.mark.parametrize(("kind", "method"), TRACKERS.items())
def test_a_tracker_takes_one_line_and_each_step_once(kind, method):
    tracker, history = kind(), filled([0.5, 4.0])
    log = history.log_to(getattr(tracker, method))
    assert (log(), log()) == (2, 0)
    history.append(torch.tensor([2.0, 1, 1, 0.5, 1, 0])[:, None], 0.5)
    assert log() == 1
    assert tracker.steps == [0, 1, 2]
    assert tracker.logged[-1][0] == history.latest("clip")
    assert [numbers["clip/norm_before"] for numbers, _ in tracker.logged] == [0.5, 4.0, 2.0]


def test_the_same_function_and_tag_are_the_same_log():
    tracker, history = Aim(), filled([0.5, 4.0])
    assert history.log_to(tracker.track)() == 2
    assert history.log_to(tracker.track)() == 0
    assert history.log_to(tracker.track, tag="")() == 2
    assert history.log_to(Aim().track)() == 2
    assert tracker.logged[-1][0] == history.latest()


def test_a_step_whose_function_raises_is_not_logged():
    logged, failures, history = [], [1], filled([1.0, 2.0, 3.0])

    def fn(numbers, step):
        if step in failures:
            failures.remove(step)
            raise ConnectionError("no route")
        logged.append(step)

    log = history.log_to(fn)
    with pytest.raises(ConnectionError):
        log()
    assert logged == [0]
    assert (log(), logged) == (2, [0, 1, 2])


def test_what_the_ring_forgot_is_told_of_once():
    history = History(scalar=True, max_bytes=1)  # holds a step
    steps = []
    log = history.log_to(lambda numbers, step: steps.append(step))

    def go(count):
        for _ in range(count):
            history.append(torch.ones(6, 1), None)

    go(1)
    log()
    go(4)
    with pytest.warns(UserWarning, match="3 steps of the history had been forgotten") as said:
        assert log() == 1
    assert said[0].filename == __file__
    go(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log() == 1
    assert steps == [0, 4, 7]
    assert repr(log) == "Log(3 steps handed over, 5 forgotten before)"


@pytest.mark.parametrize("early", [True, False])
def test_a_resumed_run_goes_on_with_its_step_numbers(early):
    def make():
        model = torch.nn.Linear(2, 2)
        return model, cliplab.create("autoclip", model)

    model, clipper = make()
    for _ in range(7):
        model(torch.ones(1, 2)).sum().backward()
        clipper.clip()
    state, steps = clipper.state_dict(), []
    model, clipper = make()
    log = clipper.history.log_to(lambda numbers, step: steps.append(step)) if early else None
    clipper.load_state_dict(state)
    log = log or clipper.history.log_to(lambda numbers, step: steps.append(step))
    assert log() == 0
    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
        clipper.clip()
        log()
    assert steps == [7, 8]


def test_parts_have_numbers_of_their_own():
    tracker = Wandb()
    history = filled([[3.0, 4.0]], limit=3.5, labels=["weight", "bias"])
    history.log_to(tracker.log, parts=True)()
    ((numbers, _),) = tracker.logged
    assert {name: numbers[name] for name in history.latest("clip")} == history.latest("clip")
    assert (numbers["clip/norm_before/weight"], numbers["clip/norm_after/bias"]) == (3.0, 3.5)
    assert (numbers["clip/factor/bias"], numbers["clip/effective_lr/bias"]) == (0.875, 0.4375)
    assert (numbers["clip/clipped/weight"], numbers["clip/clipped/bias"]) == (0.0, 1.0)


def test_a_copy_of_what_is_logged_is_logged_by_itself():
    tracker, history = Aim(), filled([0.5, 4.0])
    history.log_to(tracker.track)()
    other = copy.deepcopy(history)
    assert other.log_to(tracker.track)() == 2
    assert history.log_to(tracker.track)() == 0


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (None, "got None"),
        ("run", "got 'run'"),
        (Wandb(), r"pass its \.log"),
        (Aim(), r"pass its \.track"),
        (cliplab, r"got <module"),
    ],
)
def test_what_takes_no_numbers_is_refused(target, complaint):
    with pytest.raises(ValueError, match=f"function of .numbers, step=.* {complaint}"):
        History().log_to(target)


@pytest.mark.parametrize(("name", "value"), [("tag", None), ("tag", 1), ("parts", 1)])
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        History().log_to(print, **{name: value})


def test_tensorboard_has_each_step_once(tmp_path):
    need("tensorboard", "parity")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    history = filled([[3.0, 4.0], [1.0, 0.0]], labels=["a", "b"])
    with SummaryWriter(str(tmp_path)) as writer:
        history.to_tensorboard(writer)
        history.to_tensorboard(writer)
        history.append(torch.ones(6, 2), 0.1)
        history.log_to(writer)()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("clip/norm_before")][:2] == [(0, 5), (1, 1)]
    assert [e.step for e in events.Scalars("clip/norm_before")] == [0, 1, 2]
    assert [e.step for e in events.Scalars("clip/norm_before/b")] == [0, 1]
