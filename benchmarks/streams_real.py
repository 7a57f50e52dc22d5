"""Norms recorded from training, and training itself, for ``python benchmarks/streams.py --real``.

Tasks: a character LSTM on the generated corpus, and a tanh RNN on temporal order; SGD. Each is
trained on good batches, and with 2 % bad ones (from step 5 on): their targets are random, and their
loss is multiplied by 20, as when a mean is taken for a sum. Absolute rules are tuned: their limit
is the median of the first 100 norms of a run on a seed of its own (pilot), clipped nowhere.

*Recorded*: raw norms of runs held by a fixed limit of twice that median, over which every rule is
replayed (open loop). ``clipped``, ``kept``: share of good steps clipped, and mean of let through /
size on them, in the run without bad batches; ``bad: clipped``: the same share with bad batches;
``bad: energy``: share of the squared size of the bad steps let through; ``bad: largest``: the
largest of them let through, over the median good size.

*Trained*: loss on held-out data after training with the rule, for seeds that share weights, good
batches and bad steps; chance where not finite or worse. ``wins``: in how many seeds ``robust``
ended lower than the method. The difference to ``robust`` is paired, with a 95 % t-interval.
``robust, cap`` is ``robust`` held below the limit of the absolute rules, as ``zclip`` is.
"""

import math
from typing import NamedTuple

import torch
from rules import arms, context_of, let_through, table
from torch.nn import functional as F

from cliplab import Bounded, Clipper, Fixed
from cliplab.lab.data.corpora import char_corpus, windows
from cliplab.lab.data.tasks import temporal_order
from cliplab.lab.models.rnn import CharLSTM, TanhRNN
from cliplab.thresholds import RobustSpike

SEEDS = range(100, 106)
PILOT, BAD_SHARE, BAD_FACTOR = 50, 0.02, 20.0
T_95 = 2.571  # two-sided quantile of Student's t with len(SEEDS) - 1 = 5 degrees of freedom


class Task(NamedTuple):
    build: object  # seed -> model
    draw: object  # generator -> inputs, targets
    held_out: tuple
    classes: int
    lr: float
    steps: int


def tasks():
    text, length = char_corpus("fixture"), 32
    draw = lambda ids, count, g: windows(  # noqa: E731
        ids, torch.randint(len(ids) - length, (count,), generator=g), length
    )
    fixed = torch.Generator().manual_seed(7)
    return {
        "char LSTM": Task(
            lambda seed: CharLSTM(text.vocab, 48, seed=seed),
            lambda g: draw(text.train, 8, g),
            draw(text.valid, 128, fixed),
            text.vocab,
            2.0,
            300,
        ),
        "tanh RNN": Task(
            lambda seed: TanhRNN(6, 50, 4, init="tanh", seed=seed),
            lambda g: temporal_order(20, 20, g),
            temporal_order(500, 20, fixed),
            4,
            0.03,
            600,
        ),
    }


def nats(model, inputs, targets):
    return F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def train(task, seed, policy, mode="rescale", *, bad=False):
    """Raw norms ``[steps]``, which steps were bad, and the loss on held-out data."""
    model = task.build(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.lr)
    clipper = Clipper(model, policy, mode=mode, nonfinite="skip")
    good, other = (torch.Generator().manual_seed(10 * seed + k) for k in (0, 1))
    is_bad = (torch.rand(task.steps, generator=other) < BAD_SHARE) & (torch.arange(task.steps) >= 5)
    is_bad &= torch.tensor(bad)
    for step in range(task.steps):
        inputs, targets = task.draw(good)
        if is_bad[step]:
            targets = torch.randint(task.classes, targets.shape, generator=other)
        loss = nats(model, inputs, targets) * (BAD_FACTOR if is_bad[step] else 1.0)
        optimizer.zero_grad()
        loss.backward()
        if not clipper.clip(loss.detach()).skipped:
            optimizer.step()
    with torch.no_grad():
        final = nats(model, *task.held_out).item()
    chance = math.log(task.classes)
    final = final if final < chance else chance
    return clipper.history.norm_before, is_bad, final


def and_capped(scale):
    """The rules, and ours held below the limit of the absolute ones."""
    return arms(scale) | {"robust, cap": (Bounded(RobustSpike(), high=scale), "rescale")}


def recorded(task, scale):
    """One row a method over the recorded norms."""
    (clean, _, _), (mixed, bad, _) = (
        train(task, PILOT, Fixed(2 * scale), bad=flag) for flag in (False, True)
    )
    median = mixed[~bad].median()
    rows = {}
    for name in and_capped(scale):
        through = []
        for norms in (clean, mixed):
            policy, mode = and_capped(scale)[name]
            policy.init(1)
            limits = [policy(n, context_of(n, i)) for i, n in enumerate(norms.split(1))]
            through.append(let_through(norms, torch.cat(limits), mode))
        rows[name] = {
            "clipped": f"{(through[0] < clean).float().mean():.2%}",
            "kept": f"{(through[0] / clean).mean():.4f}",
            "bad: clipped": f"{(through[1] < mixed)[~bad].float().mean():.2%}",
            "bad: energy": f"{through[1][bad].square().sum() / mixed[bad].square().sum():.2%}",
            "bad: largest": f"{through[1][bad].max() / median:.1f}",
        }
    spread = (clean.log().quantile(0.75) - clean.log().quantile(0.25)) / 1.349
    about = (
        f"{len(clean)} steps; limit of absolute rules {scale:.3g}; norms without bad batches: "
        f"median {clean.median():.3g}, largest {clean.max():.3g}, scale of the logarithm "
        f"{spread:.2f}; {int(bad.sum())} bad steps, median size "
        f"{mixed[bad].median() / median:.1f} x that of good ones."
    )
    return about, rows


def trained(task, scale):
    """Losses after training with and without bad batches: who beat ours, and one row a method."""
    losses = {
        (name, bad): torch.tensor(
            [train(task, s, *and_capped(scale)[name], bad=bad)[2] for s in SEEDS]
        )
        for name in and_capped(scale)
        for bad in (False, True)
    }
    rows, lower, beaten = {name: {} for name in and_capped(scale)}, {}, {}
    for name, row in rows.items():
        for bad, label in ((False, "good"), (True, "2 % bad")):
            difference = losses[name, bad] - losses["robust", bad]
            half = T_95 * difference.std() / math.sqrt(len(SEEDS))
            other = name != "robust"
            lower.setdefault(label, []).extend([name] if difference.mean() < 0 else [])
            beaten.setdefault(label, []).extend([name] if difference.mean() < -half else [])
            row[f"{label}: loss"] = f"{losses[name, bad].mean():.3f}"
            row[f"{label}: - robust"] = f"{difference.mean():+.3f} ± {half:.3f}" if other else ""
            row[f"{label}: wins"] = f"{int((difference > 0).sum())}/{len(SEEDS)}" if other else ""
    said = "; ".join(
        f"{label} batches: lower mean loss than `robust`: {', '.join(names) or 'none of them'}; "
        f"with an interval that excludes 0: {', '.join(beaten[label]) or 'none of them'}"
        for label, names in lower.items()
    )
    return f"{said}.", rows


def report():
    """The Markdown of all tasks."""
    text = ""
    for title, task in tasks().items():
        scale = float(train(task, PILOT + 1, Fixed(math.inf))[0][:100].median())
        about, rows = recorded(task, scale)
        text += f"\n\n## Recorded: {title}\n\n{about}\n\n{as_table(rows)}"
        said, rows = trained(task, scale)
        text += f"\n\n## Trained: {title}, {len(SEEDS)} seeds, lr {task.lr:g}\n\n"
        text += f"{said}\n\n"
        text += as_table(rows)
    return text


def as_table(rows):
    header = ["method", *next(iter(rows.values()))]
    return table([[name, *row.values()] for name, row in rows.items()], header)
