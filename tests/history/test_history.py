"""The ring, the numbers read off it, files, replays and the live figure."""

import math

import pytest
import torch
from needs import need
from torch import nn

from cliplab.clipper import Clipper
from cliplab.history import ClipReport, History
from cliplab.thresholds import Fixed, MovingAverage, Percentile, Step, Threshold

COLUMNS = (*ClipReport.fields, "effective_lr", "lr", "total", "nonfinite", "shares")


def row(*sizes, limit=1.0, skipped=False):
    sizes = torch.tensor(sizes)
    over = sizes > limit
    factor = torch.where(over & sizes.isfinite(), limit / sizes, 1.0)
    limits, skips = torch.full_like(sizes, limit), torch.full_like(sizes, skipped)
    return torch.stack([sizes, sizes * factor, limits, factor, over, skips])


def filled(rows, labels=(), lr=0.1, **options):
    history = History(labels, scalar=not labels, **options)
    for sizes in rows:
        history.append(row(*sizes) if labels else row(sizes), lr)
    return history


def train(threshold, steps=60, *, scope="global", seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipper = Clipper(model.named_parameters(), threshold, scope=scope)
    clipper.history.labels = [] if scope == "global" else [n for n, _ in model.named_parameters()]
    clipper.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) - 1).square().mean().backward()
        optimizer.step()
    return clipper.history


def equal(one, other):
    assert len(one) == len(other)
    assert one.first_step == other.first_step
    for name in COLUMNS:
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True
        )


# --- the ring ---------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [(), ("a", "b", "c")])
def test_the_ring_forgets_the_oldest_steps_and_columns_agree(labels):
    parts = len(labels) or 1
    capacity = 40 * 6 * parts * 4  # bytes: 40 steps of float32
    rows = [[float(step + part) for part in range(parts)] for step in range(1000)]
    history = filled(rows if labels else [r[0] for r in rows], labels, max_bytes=capacity)
    kept = len(history)
    assert 10 < kept <= 40
    assert history.first_step + kept == 1000
    for name in COLUMNS:
        assert len(getattr(history, name)) == kept, name
    first = history.norm_before[0]
    assert first.reshape(-1)[0] == history.first_step
    assert history.norm_before[-1].reshape(-1)[0] == 999
    assert history.rows.shape == (kept, 6, parts)


def test_the_ring_does_not_grow_and_never_holds_more_than_its_bytes():
    history = History(scalar=True, max_bytes=6 * 4 * 100)
    sizes = set()
    for step in range(2000):
        history.append(row(float(step)), 0.1)
        held = sum(block.rows.nbytes for block in history._blocks)
        assert held <= 6 * 4 * 100
        if step > 500:
            sizes.add(held)
            assert len(history.lr) == len(history) <= 100
    assert len(sizes) == 1


def test_a_column_that_was_read_stays_as_it_was():
    history = History(scalar=True, max_bytes=6 * 4 * 10)
    history.append(row(5.0), 0.1)
    before, rows = history.norm_before, history.rows
    for _ in range(50):
        history.append(row(7.0), 0.1)
    assert before.tolist() == [5.0]
    assert rows[0, 0].tolist() == [5.0]


def test_a_report_stays_valid_while_the_ring_turns():
    weight = nn.Parameter(torch.zeros(2))
    clipper = Clipper([weight], 1.0)
    clipper.history._max_bytes = 6 * 4 * 4
    weight.grad = torch.tensor([3.0, 4.0])
    report = clipper.clip()
    for _ in range(20):
        weight.grad = torch.tensor([30.0, 40.0])
        clipper.clip()
    assert (report.norm_before.item(), report.factor.item()) == pytest.approx((5.0, 0.2))


def test_steps_of_numbers_and_of_tensors_are_kept_in_their_order():
    history = History(scalar=True, max_bytes=6 * 4 * 64)
    for step in range(100):
        numbers = Step(float(step), 1.0, 1.0, 1.0, 0.0, 0.0)
        history.append(numbers if step % 5 else row(float(step)), step)
    sizes = history.norm_before
    assert sizes.tolist() == history.lr.tolist() == list(range(history.first_step, 100))
    assert torch.equal(history.columns.size[:, 0], sizes)


# --- numbers ----------------------------------------------------------------------------------


def test_summary_of_a_whole_gradient():
    history = filled([0.5, 2.0, 4.0, math.nan, 1.0])
    history.append(row(8.0, skipped=True), 0.1)
    summary = history.summary()
    assert (summary["steps"], summary["skipped"], summary["nonfinite"]) == (6, 1, 1)
    assert summary["clip_fraction"] == pytest.approx(3 / 6)
    assert (summary["norm_median"], summary["norm_max"]) == (2.0, 8.0)
    factors = [1, 0.5, 0.25, 1, 1, 0]
    assert summary["factor_mean"] == pytest.approx(sum(factors) / 6)
    assert summary["effective_lr_mean"] == pytest.approx(0.1 * sum(factors) / 6)
    assert all(type(value) in (int, float) for value in summary.values())
    assert "clip_fraction_by_part" not in summary


def test_summary_by_part_and_of_nothing():
    summary = filled([[3.0, 4.0], [0.3, 4.0]], ["weight", "bias"], lr=None).summary()
    assert summary["clip_fraction_by_part"] == {"weight": 0.5, "bias": 1.0}
    assert summary["norm_max"] == 5.0
    assert math.isnan(summary["lr_mean"])
    empty = History().summary()
    assert (empty["steps"], empty["skipped"]) == (0, 0)
    assert math.isnan(empty["norm_median"])


def test_the_total_norm_does_not_overflow():
    assert filled([[3e30, 4e30]], ["a", "b"]).total.tolist() == pytest.approx([5e30])


def test_the_frame_names_the_parts():
    need("pandas", "lab")
    frame = filled([[3.0, 0.4]] * 2, ["weight", "bias"]).to_frame()
    assert list(frame["label"]) == ["weight", "bias"] * 2
    assert list(frame["step"]) == [0, 0, 1, 1]
    assert list(frame["clipped"]) == [True, False] * 2
    assert "label" not in filled([3.0]).to_frame()
    assert History().to_frame().empty


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["history.pt", "history.csv"])
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_a_history_comes_back_from_a_file(tmp_path, name, scope):
    history = train(Percentile(50), scope=scope)
    history.append(history.rows[0] * math.nan, None)
    history.first_step = 7
    (history.save if name.endswith(".pt") else history.to_csv)(tmp_path / name)
    again = History.load(tmp_path / name)
    equal(history, again)
    assert (again.labels, again.scalar) == (history.labels, history.scalar)
    if name.endswith(".pt"):
        assert torch.load(tmp_path / name, weights_only=True)["first_step"] == 7


def test_a_full_ring_comes_back_whole(tmp_path):
    history = filled([float(step) for step in range(500)], max_bytes=6 * 4 * 64)
    history.save(tmp_path / "ring.pt")
    again = History.load(tmp_path / "ring.pt")
    equal(history, again)
    for step in range(500, 700):
        history.append(row(float(step)), 0.1)
        again.append(row(float(step)), 0.1)
    assert again.norm_before[-1] == 699
    assert again.first_step + len(again) == history.first_step + len(history) == 700


def test_a_table_of_norms_is_enough(tmp_path):
    path = tmp_path / "norms.csv"
    path.write_text("loss,norm_before\n0.1,1.5\n0.2,nan\n0.3,\n")
    history = History.load(path)
    assert history.norm_before.isfinite().tolist() == [True, False, False]
    assert not history.clipped.any()
    assert history.factor.tolist() == [1.0, 1.0, 1.0]
    path.write_text("step,norm_before,threshold\n10,4.0,1.0\n11,0.5,1.0\n")
    history = History.load(path)
    assert history.factor.tolist() == [0.25, 1.0]
    assert history.norm_after.tolist() == [1.0, 0.5]
    assert history.first_step == 10


def test_a_table_that_pandas_wrote_is_read(tmp_path):
    need("pandas", "lab")
    history = filled([[3.0, math.nan], [0.5, 2.0]], ["a", "b"])
    history.to_frame().to_csv(tmp_path / "frame.csv", index=False)
    equal(history, History.load(tmp_path / "frame.csv"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pt", b"", "not a saved history"),
        ("a.pt", b"not a pickle", "not a saved history"),
        ("a.csv", b"", "expected a table with a column norm_before"),
        ("a.csv", b"loss\n1\n", "expected a table with a column norm_before"),
        ("a.csv", b"norm_before\n1\nx\n", "line 3: norm_before is 'x', expected a number"),
        ("a.csv", b"norm_before,lr\n1\n", "line 2: expected 2 columns, got 1"),
        ("a.csv", b"part,norm_before\n0,1\n1,1\n1,1\n0,1\n", "the same parts in the same order"),
        ("a.csv", b"part,norm_before\n0,1\n1,1\n0,1\n", "the same parts in the same order"),
        ("a.csv", b"\xff\xfe\x00", "not a table"),
    ],
)
def test_another_file_is_refused(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        History.load(tmp_path / name)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected a file of History\.save"):
        History.load(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / "none.pt")


class Recorder:
    def __init__(self):
        self.logged = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.logged.append((tag, scalar_value, global_step))


def test_scalars_for_tensorboard():
    writer, history = Recorder(), filled([2.0, 0.5])
    history.first_step = 3
    history.to_tensorboard(writer)
    assert ("clip/norm_before", 2.0, 3) in writer.logged
    assert ("clip/clipped", 0.0, 4) in writer.logged
    assert len(writer.logged) == 2 * 8
    writer = Recorder()
    filled([[2.0, 0.5]], ["weight", "bias"]).to_tensorboard(writer, tag="x")
    assert ("x/factor/weight", 0.5, 0) in writer.logged
    History().to_tensorboard(writer)


def test_tensorboard_itself(tmp_path):
    need("tensorboard", "parity")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        train(1.0, 5, scope="tensor").to_tensorboard(writer)
    assert list(tmp_path.glob("events*"))


# --- replay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("policy", [0.5, Fixed(0.5), Percentile(30), MovingAverage(1.1, 20, 5)])
def test_a_replay_of_the_same_policy_is_the_record(scope, policy):
    history = train(policy, scope=scope)
    again = history.replay(policy)
    assert history.clipped.any()
    torch.testing.assert_close(again.rows, history.rows, equal_nan=True)
    torch.testing.assert_close(again.lr, history.lr)
    assert again.labels == history.labels


def test_a_replay_keeps_the_policy_and_the_record():
    history, policy = train(1.0, 30), MovingAverage()
    rows = history.rows.clone()
    history.replay(policy)
    assert policy.state == {}
    assert torch.equal(history.rows, rows)
    assert history.replay(math.inf).clip_fraction == 0
    assert history.replay(1e-6).clip_fraction == 1
    assert len(History(scalar=True).replay(1.0)) == 0


def test_what_is_not_finite_is_not_learnt_in_a_replay():
    norms = [1.0, 2.0, 3.0, 4.0]
    clean = filled(norms).replay(Percentile(50))
    dirty = filled([1.0, math.nan, 2.0, math.inf, 3.0, 4.0]).replay(Percentile(50))
    kept = [0, 2, 4, 5]
    assert dirty.threshold[kept].tolist() == clean.threshold.tolist()
    assert dirty.skipped.tolist() == [False, True, False, True, False, False]
    assert dirty.effective_lr[1] == 0


class Knows(Threshold):
    """Uses what a replay knows: the step, the learning rate and the total norm."""

    def step(self, sizes, state, context):
        return torch.full_like(sizes, context.step + (context.lr or 7.0)) + context.total_norm, {}


def test_a_replay_knows_step_learning_rate_and_total():
    history = filled([[3.0, 4.0]], ["a", "b"], lr=0.5)
    history.first_step = 10
    history.append(row(3.0, math.nan), None)
    assert history.replay(Knows()).threshold[:, 0].tolist() == [15.5, 21.0]


class NeedsWeights(Threshold):
    def step(self, sizes, state, context):
        return context.weight_norms, {}


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [(NeedsWeights(), "weights' norms"), (-1.0, "threshold must be"), ("1", "threshold must be")],
)
def test_what_cannot_be_replayed_is_refused(policy, complaint):
    with pytest.raises(ValueError, match=complaint):
        filled([1.0]).replay(policy)
