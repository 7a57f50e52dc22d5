"""Every finding on real small runs that have the disease, and none on healthy ones."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diagnosing import found, record
from torch import Tensor, nn

from cliplab.clipper import Clipper
from cliplab.diagnosis import MIN_STEPS, Finding, Findings, Probe, diagnose, find_threshold
from cliplab.history import History
from cliplab.thresholds import Percentile, Threshold

# --- runs -------------------------------------------------------------------------------------

Loss = Callable[[int], Tensor]


def mlp(seed: int, width: int = 16, noise: float = 0.3) -> tuple[nn.Module, Loss]:
    """Noisy regression on a teacher's answers."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))
    teacher = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))

    def loss(step: int) -> Tensor:
        x = torch.randn(16, 8)
        y = teacher(x).detach() + noise * torch.randn(16, 1)
        return (model(x) - y).square().mean()

    return model, loss


def classifier(seed: int) -> tuple[nn.Module, Loss]:
    """Three overlapping clouds."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
    model.append(nn.Linear(24, 3))
    centres = torch.randn(3, 8)

    def loss(step: int) -> Tensor:
        y = torch.randint(3, (32,))
        return nn.functional.cross_entropy(model(centres[y] + torch.randn(32, 8)), y)

    return model, loss


def rnn(seed: int, gain: float = 0.9, length: int = 12) -> tuple[nn.Module, Loss]:
    """Recall the sum of a sequence; a large gain makes gradients explode."""
    torch.manual_seed(seed)
    cell, head = nn.RNN(1, 16, batch_first=True), nn.Linear(16, 1)
    with torch.no_grad():
        nn.init.orthogonal_(cell.weight_hh_l0, gain)

    def loss(step: int) -> Tensor:
        x = torch.randn(16, length, 1) / length**0.5
        return (head(cell(x)[0][:, -1]) - x.sum(dim=1)).square().mean()

    return nn.ModuleDict({"cell": cell, "head": head}), loss


TASKS = {"mlp": mlp, "classifier": classifier, "rnn": rnn}


def build(model: nn.Module, lr: float, adam: bool) -> torch.optim.Optimizer:
    if adam:
        return torch.optim.Adam(model.parameters(), lr=lr / 10)
    return torch.optim.SGD(model.parameters(), lr=lr)


def probe(
    task: tuple[nn.Module, Loss], lr: float = 0.05, adam: bool = False, steps: int = 200
) -> Probe:
    model, loss = task
    optimizer = build(model, lr, adam)

    def step_fn(step: int) -> None:
        loss(step).backward()
        optimizer.step()

    return find_threshold(
        step_fn, steps, params=model.parameters(), model=model, optimizer=optimizer
    )


def train(
    task: tuple[nn.Module, Loss],
    threshold: float | Threshold | None = None,
    *,
    steps: int = 400,
    lr: float = 0.05,
    adam: bool = False,
    **options: object,
) -> History:
    """Train; threshold None: as a probe finds."""
    model, loss = task
    if threshold is None:
        threshold = probe(task, lr, adam).threshold
    optimizer = build(model, lr, adam)
    options = {"nonfinite": "propagate"} | options
    clipper = Clipper(model.named_parameters(), threshold, **options)
    clipper.history.labels = [name for name, _ in model.named_parameters()]
    clipper.attach(optimizer)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    return clipper.history


def healthy(seed: int) -> History:
    """SGD or Adam; clipped where one step in ten of an unclipped run is."""
    task, adam = TASKS[list(TASKS)[seed % 3]](seed), seed % 2 == 1
    return train(task, probe(task, adam=adam, steps=400).threshold, adam=adam)


def healthy_by_tensor(seed: int) -> History:
    """The right unit, and no part that is clipped often."""
    return by_tensor(seed, 1.0)


def never_clips(seed: int) -> History:
    return train(mlp(seed), 1e3)


def always_clips(seed: int) -> History:
    return train(mlp(seed), 0.02)


def low_threshold(seed: int) -> History:
    task = mlp(seed)
    return train(task, probe(task).quantiles[0.25])


def growing(seed: int) -> History:
    """Just above the largest stable learning rate of a quadratic: the norm grows slowly."""
    torch.manual_seed(seed)
    model, x = nn.Linear(8, 1, bias=False), torch.randn(64, 8)
    y = x @ torch.randn(8, 1)
    curvature = torch.linalg.eigvalsh(2 * x.T @ x / 64).max()

    def loss(step: int) -> Tensor:
        return (model(x) - y - 0.1 * torch.randn(64, 1)).square().mean()

    return train((model, loss), 1e6, lr=float(2.02 / curvature), steps=300)


def game(seed: int) -> History:
    """Two players, gradient steps at once: the bilinear game spirals outwards."""
    torch.manual_seed(seed)
    model = nn.ParameterList([torch.randn(8), torch.randn(8)])

    def loss(step: int) -> Tensor:
        a, b = model
        value = (a * b.detach()).sum() - (a.detach() * b).sum()
        return value + 0.1 * (torch.randn(8) * (a + b)).sum()

    return train((model, loss), 1e6, lr=0.12, steps=400)


def spikes(seed: int) -> History:
    """One batch in fifty is broken: its loss is 30 times what it should be."""
    model, loss = TASKS[list(TASKS)[seed % 3]](seed)
    found = probe((model, loss)).threshold
    bad = set((50 * torch.arange(1, 8) + torch.randint(50, (7,))).tolist())
    return train((model, lambda step: loss(step) * (30.0 if step in bad else 1.0)), found)


def diverging(seed: int) -> History:
    """Far too high a learning rate, unclipped: NaN to the end."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.randn(64, 8)
    return train((model, lambda step: (model(x) - 3).square().mean()), 1e30, lr=3.0, steps=150)


def sometimes_nan(seed: int) -> History:
    """A log of nothing now and then; the clipper leaves these steps out."""
    model, loss = mlp(seed)
    bad = set(torch.randint(20, 400, (6,)).tolist())
    broken = lambda step: loss(step) * (torch.tensor(0.0).log() if step in bad else 1.0)  # noqa: E731
    found = probe((model, loss)).threshold
    return train((model, broken), found, nonfinite="skip")


class WideAndDeep(nn.Module):
    """The wide half sees a raw feature in the wrong unit."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit, self.wide = unit, nn.Linear(1, 1)
        self.deep = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(x) + self.wide(x[:, :1] * self.unit)


def by_tensor(seed: int, unit: float) -> History:
    torch.manual_seed(seed)
    model = WideAndDeep(unit)

    def loss(step: int) -> Tensor:
        x = torch.randn(32, 8)
        return (model(x) - x.sin().sum(dim=1, keepdim=True)).square().mean()

    return train((model, loss), 1.0, lr=0.05 / max(unit, 1) ** 2, scope="tensor")


def dominated(seed: int) -> History:
    return by_tensor(seed, 100.0)


def skipping(seed: int) -> History:
    task = mlp(seed)
    return train(task, probe(task).quantiles[0.75], mode="skip")


DISEASES = {
    "never clips": never_clips,
    "always clips": always_clips,
    "threshold below the median": low_threshold,
    "norm trending up": growing,
    "isolated spikes": spikes,
    "non-finite wall": diverging,
    "non-finite steps": sometimes_nan,
    "one part dominates": dominated,
    "many skipped steps": skipping,
}


# --- what is found in them --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102, 103, 104, 105])
def test_a_healthy_run_has_no_finding(seed):
    assert diagnose(healthy(seed)) == []


@pytest.mark.parametrize("seed", [100, 101])
def test_a_healthy_run_by_tensor_has_no_finding(seed):
    assert diagnose(healthy_by_tensor(seed)) == []


@pytest.mark.parametrize("seed", [100, 101])
@pytest.mark.parametrize("name", DISEASES)
def test_a_disease_is_found(name, seed):
    finding = found(DISEASES[name](seed))[name]
    assert any(character.isdigit() for character in finding.message)
    assert finding.evidence


def test_a_game_that_spirals_outwards_trends_up():
    assert found(game(100))["norm trending up"].evidence["rise"] == pytest.approx(11.6, rel=0.1)


def test_where_every_step_is_clipped_the_product_is_what_matters():
    history = train(mlp(3), 0.02, lr=0.05)
    assert found(history)["always clips"].evidence["lr_times_threshold"] == pytest.approx(1e-3)
    unknown = record([5.0] * 60)
    assert "lr_times_threshold" not in found(unknown)["always clips"].evidence
    assert "0.5 x 1 = 0.5" in found(unknown, lr=0.5)["always clips"].advice


def test_a_percentile_policy_is_below_the_median_by_design():
    history = train(classifier(3), Percentile(25))
    assert "by design" in found(history)["threshold below the median"].advice


def test_findings_by_part_name_the_parts():
    rows = [[5.0, 0.1, 0.1 + 0.9 * (step % 3)] for step in range(240)]
    findings = found(record(rows, 0.5, labels=["embedding", "body", "head"]))
    assert findings["always clips"].evidence["parts"] == "embedding"
    assert findings["threshold below the median"].evidence["parts"] == "head"
    assert findings["one part dominates"].evidence["part"] == "embedding"
    rows[120][1] = 300.0
    findings = found(record(rows, 0.5, labels=["embedding", "body", "head"]))
    assert "most of it in body" in findings["isolated spikes"].message
    rows[7][2] = math.nan
    findings = found(record(rows, 0.5, labels=["embedding", "body", "head"]))
    assert "first in head" in findings["non-finite steps"].message


def test_one_or_two_spikes_are_told_and_no_warning():
    norms = [1.0 + 0.01 * (step % 7) for step in range(300)]
    for count, severity in ((1, "info"), (2, "info"), (3, "warning")):
        norms[50 * count + 40] = 30.0
        finding = found(record(norms))["isolated spikes"]
        assert (finding.evidence["count"], finding.severity) == (count, severity)


def test_a_wall_says_whether_the_norm_had_grown_before():
    calm = found(record([1.0, 2.0] * 60 + [math.nan] * 5))["non-finite wall"]
    assert "without warning" in calm.advice
    assert calm.evidence["begin"] == 120
    grown = found(record([1.0, 2.0] * 60 + [1e3, 1e9] + [math.inf] * 5))["non-finite wall"]
    assert "had grown" in grown.advice
    assert found(record([math.nan] * 30 + [1.0] * 300))["non-finite wall"].severity == "critical"


def test_what_a_grad_scaler_does_is_no_wall():
    norms = [math.inf] * 12 + [0.5 + step % 2 for step in range(400)]
    finding = found(record(norms, skipped=range(12)))["non-finite steps"]
    assert finding.severity == "info"


def test_a_ring_that_forgot_its_first_steps_names_the_right_one():
    history = record([1.0 + 0.01 * (step % 7) for step in range(300)] + [900.0] + [1.0] * 99)
    history.first_step = 5000
    assert found(history)["isolated spikes"].evidence["steps"] == [5300]


@pytest.mark.parametrize("steps", [0, 1, MIN_STEPS - 1])
def test_a_short_history_is_not_judged(steps):
    (finding,) = diagnose(record([9.0] * steps))
    assert finding.name == "too short"
    assert f"{steps} finite steps" in finding.message


def test_the_worst_comes_first_and_everything_prints():
    findings = diagnose(record([5.0] * 100 + [math.nan] * 20))
    assert [f.severity for f in findings] == ["critical", "warning", "info", "info"]
    assert findings.headline == "1 critical, 1 warning, 2 info"
    assert str(findings).count("\n") == 3
    assert findings._repr_html_().count("<tr>") == 5
    assert "&lt;b&gt;" in Findings([Finding("<b>", "info", "", "")])._repr_html_()
    assert str(Findings()) == "nothing found"
    assert json.dumps([f.as_dict() for f in findings], allow_nan=False)


@pytest.mark.parametrize("lr", [0, -1.0, math.nan, True, "1"])
def test_a_bad_learning_rate_is_refused(lr):
    with pytest.raises(ValueError, match="lr must be a number > 0"):
        diagnose(record([1.0]), lr)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ([1.0] * 2, r"each of the 3 recorded steps \(7 to 9\), got 2"),
        (torch.ones(4), r"each of the 3 recorded steps \(7 to 9\), got 4"),
        (torch.ones(3, 1), "loss must be numbers on one axis, got"),
        (["a", "b", "c"], "loss must be numbers on one axis, got"),
        (torch.ones(3, dtype=torch.complex64), "loss must be numbers on one axis, got"),
        (1.0, "loss must be numbers on one axis, got"),
    ],
)
def test_bad_losses_are_refused(loss, message):
    history = record([1.0, 2.0, 3.0])
    history.first_step = 7
    with pytest.raises(ValueError, match=message):
        diagnose(history, loss=loss)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_found_clips_about_one_step_in_ten(seed):
    task = classifier(seed)
    history = train(task, probe(task, steps=400).threshold)
    assert 0.02 < float(history.clip_fraction) < 0.25


def test_the_page_of_findings_names_them_all():
    root = Path(__file__).parents[2]
    code = "".join(path.read_text() for path in root.glob("cliplab/diagnosis/criteria/*.py"))
    table = (root / "docs/findings.md").read_text()
    named = re.findall(r"^\| ([a-z- ]+) \| (?:critical|warning|info)", table, re.MULTILINE)
    assert sorted(named) == sorted(set(re.findall(r'Finding\(\s*"([^"]+)"', code)))
