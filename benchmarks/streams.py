"""Every adaptive threshold on the same streams of gradient norms, side by side.

``python benchmarks/streams.py`` prints Markdown tables (synthetic streams); ``--real`` adds norms
recorded from training and training itself (``streams_real.py``); ``--write`` stores what was
printed as ``benchmarks/streams.md``. Seeds are fixed; the constants of ``RobustSpike`` were chosen
on seeds 0 and 1 of the synthetic streams, and these are of seed 2.

Streams: 20 of each kind, 1,200 steps, all beginning at median 1, so that an absolute limit of 1.0
is one tuned to the median of the first steps. Clean norms are log-normal, ``exp(s z)``, with one
``s`` a stream from U[0.1, 0.5]. ``stationary``; ``decay`` and ``growth`` (two decades, straight in
the logarithm); ``up`` and ``down`` (x3 and /3 from step 600 on); ``x10`` and ``x100`` (1 % of the
steps from step 5 on multiplied); ``bursts`` (every 200 steps from 150 on, six x50 in a row, and one
more 20 steps later); ``heavy`` (``exp(0.3 t)``, Student's t with 3 degrees of freedom; what is
above 10 x the median counts as a spike, the rest as clean); ``nonfinite`` (``stationary`` with 1 %
NaN, 0.5 % inf, and ten NaN in a row); ``constant`` (1 exactly, then from step 600 on with a jitter
of 1e-6).

"Let through" is ``min(size, limit)``; for mode "skip" 0 above the limit; a limit of NaN clips
nothing. A *probe* is the limit that a size of 10 x the level would have met at that step (the
policy does not learn it), over the level, at most 10. Columns (lower is better, save for ``kept``):

* ``energy``: share of the spikes' squared size let through; mean of x10, x100 and bursts.
* ``largest``: largest spike let through, in units of the level; bursts, median stream.
* ``false clips``: share of clean steps clipped; mean of stationary, decay, growth, x10, x100 and
  bursts.
* ``kept``: mean of let through / size on the same steps (higher is better).
* ``heavy``, ``constant``: share of clean steps clipped in these streams.
* ``up``: steps after the shift until the share not clipped in the next 50 steps is at least 0.95 of
  that in the 300 steps before the shift; 550 if never; mean stream.
* ``down``: steps after the shift until the median probe of the next 50 steps is within a factor
  1.25 of the median probe of the 300 steps before; 550 if never; mean stream.
* ``nonfinite``: share of the steps after the first non-finite size at which the probe is NaN or
  more than 10 % off that of the same stream without non-finite sizes.

Ranks compare the printed digits; ties share the better rank; ``none`` is a reference without one.
``drop`` has no rank: at the end of the stationary streams sizes of 1 to 1,000 x the level are
tried; the largest ratio by which a larger one is let through smaller (1: never; median stream).
"""

import argparse
import copy
import math
from pathlib import Path

import torch
from rules import arms, context_of, let_through, table

STEPS, STREAMS, SHIFT, SPAN = 1200, 20, 600, 50
SPIKES = ("x10", "x100", "bursts")
CLEAN = ("stationary", "decay", "growth", *SPIKES)
KINDS = (*CLEAN, "up", "down", "heavy", "nonfinite", "constant")
COLUMNS = {  # name: format
    "energy": "{:.2%}",
    "largest": "{:.2f}",
    "false clips": "{:.2%}",
    "kept": "{:.4f}",
    "heavy": "{:.2%}",
    "constant": "{:.2%}",
    "up": "{:.0f}",
    "down": "{:.0f}",
    "nonfinite": "{:.2%}",
}


def synthetic(seed=2):
    """Sizes, levels ``[steps, kinds x streams]``, and the mask of spikes."""
    draw = torch.Generator().manual_seed(seed)
    noise = lambda: torch.randn(STEPS, STREAMS, generator=draw)  # noqa: E731
    chance = lambda: torch.rand(STEPS, STREAMS, generator=draw)  # noqa: E731
    step = torch.arange(STEPS)[:, None].expand(STEPS, STREAMS)
    spread = 0.1 + 0.4 * torch.rand(STREAMS, generator=draw)
    flat = torch.ones(STEPS, STREAMS)
    late = step >= SHIFT
    levels = dict.fromkeys(KINDS, flat)
    levels["decay"], levels["growth"] = 10 ** (-2 * step / STEPS), 10 ** (2 * step / STEPS)
    levels["up"], levels["down"] = torch.where(late, 3.0, 1.0), torch.where(late, 1 / 3, 1.0)
    sizes = {kind: levels[kind] * (spread * noise()).exp() for kind in KINDS}
    degrees = 3
    t = noise() / torch.stack([noise() for _ in range(degrees)]).square().mean(0).sqrt()
    sizes["heavy"] = (0.3 * t).exp()
    sizes["constant"] = torch.where(late, 1 + 1e-6 * noise(), 1.0)
    spikes = {kind: torch.zeros(STEPS, STREAMS, dtype=torch.bool) for kind in KINDS}
    spikes["x10"], spikes["x100"] = ((chance() < 0.01) & (step >= 5) for _ in range(2))
    phase = (step - 150) % 200
    spikes["bursts"] = (step >= 150) & ((phase < 6) | (phase == 26))
    for kind, factor in zip(SPIKES, (10, 100, 50), strict=True):
        sizes[kind] = torch.where(spikes[kind], factor * sizes[kind], sizes[kind])
    spikes["heavy"] = sizes["heavy"] > 10
    u = chance()
    bad = torch.where(u < 0.01, math.nan, torch.where(u < 0.015, math.inf, 1.0))
    bad[SHIFT : SHIFT + 10] = math.nan
    bad[:5] = 1.0
    sizes["nonfinite"] = sizes["stationary"] * bad
    return tuple(
        torch.cat([named[kind].float() for kind in KINDS], dim=1)
        for named in (sizes, levels, spikes)
    )


def follow(policy, sizes, probe_sizes):
    """Limits of every step, and those that ``probe_sizes`` would have met: ``[steps, parts]``."""
    parts = sizes.shape[1]
    policy.init(parts)
    limits, probes = [], []
    for step, (size, probe) in enumerate(zip(sizes, probe_sizes, strict=True)):
        probes.append(copy.deepcopy(policy)(probe, context_of(probe, step)))
        limits.append(policy(size, context_of(size, step)))
    return torch.stack(limits), torch.stack(probes)


def score(policy, mode, sizes, levels, spikes):
    """One number a column, and shares clipped and energy by kind."""
    limits, probes = follow(policy, sizes, 10 * levels)
    through = let_through(sizes, limits, mode)
    probes = torch.where(probes.isnan(), probes, (probes / levels).clamp(max=10))
    names = ("sizes", "levels", "spikes", "limits", "probes", "through")
    whole = (sizes, levels, spikes.bool(), limits, probes, through)
    split = {
        n: dict(zip(KINDS, x.split(STREAMS, dim=1), strict=True))
        for n, x in zip(names, whole, strict=True)
    }
    clipped = {k: split["sizes"][k] > split["limits"][k] for k in KINDS}

    def energy(kind):
        own = split["spikes"][kind]
        return split["through"][kind][own].square().sum() / split["sizes"][kind][own].square().sum()

    def share(kind):
        own = ~split["spikes"][kind] & split["sizes"][kind].isfinite()
        return clipped[kind][own].float().mean()

    def kept(kind):
        own = ~split["spikes"][kind]
        return (split["through"][kind] / split["sizes"][kind])[own].mean()

    burst = torch.where(split["spikes"]["bursts"], split["through"]["bursts"], 0.0)
    start = int((~split["sizes"]["nonfinite"].isfinite()).any(dim=1).nonzero()[0])
    ratio = (split["probes"]["nonfinite"] / split["probes"]["stationary"])[start + 1 :]
    values = {
        "energy": mean(energy, SPIKES),
        "largest": burst.amax(dim=0).median(),
        "false clips": mean(share, CLEAN),
        "kept": mean(kept, CLEAN),
        "heavy": share("heavy"),
        "constant": share("constant"),
        "up": steps_to_follow((~clipped["up"]).float(), lambda now, before: now >= 0.95 * before),
        "down": steps_to_follow(
            split["probes"]["down"],
            lambda now, before: (now / before).log().abs() <= math.log(1.25),
            average=lambda x: x.median(dim=0).values,
        ),
        "nonfinite": 1 - ((ratio > 1 / 1.1) & (ratio < 1.1)).float().mean(),
    }
    by_kind = {f"energy, {k}": energy(k) for k in SPIKES}
    by_kind |= {f"clipped, {k}": share(k) for k in KINDS if k not in ("heavy", "constant")}
    by_kind["drop"] = drop(policy, mode, sizes.shape[1])
    as_floats = lambda d: {k: float(v) for k, v in d.items()}  # noqa: E731
    return as_floats(values), as_floats(by_kind)


def mean(function, kinds):
    return sum(function(kind) for kind in kinds) / len(kinds)


def steps_to_follow(series, holds, average=lambda x: x.mean(dim=0)):
    """Mean number of steps after the shift until ``holds(average now, average before)``."""
    before = average(series[SHIFT - 300 : SHIFT])
    starts = range(SHIFT, STEPS - SPAN)
    good = torch.stack([holds(average(series[k : k + SPAN]), before) for k in starts])
    first = torch.where(good.any(dim=0), good.int().argmax(dim=0), len(starts))
    return first.float().mean()


def drop(policy, mode, parts):
    """Largest ratio of what a smaller size is let through to what a larger one is."""
    through = []
    for size in torch.logspace(0, 3, 61):
        sizes = size.expand(parts)
        limits = copy.deepcopy(policy)(sizes, context_of(sizes, STEPS))
        through.append(let_through(sizes, limits, mode)[:STREAMS])
    tried = torch.stack(through)
    return (tried.cummax(dim=0).values / tried).amax(dim=0).median()


def ranks(printed):
    """Rank of every arm in every column, from the printed numbers; ties share the better one."""
    number = lambda text: float(text.rstrip("%"))  # noqa: E731
    out = {name: {} for name in printed if name != "none"}
    for column in COLUMNS:
        sign = -1 if column == "kept" else 1
        values = {name: sign * number(printed[name][column]) for name in out}
        for name in out:
            out[name][column] = 1 + sum(other < values[name] for other in values.values())
    return out


def tables(scores, by_kind):
    """The Markdown of one comparison."""
    printed = {a: {c: f.format(scores[a][c]) for c, f in COLUMNS.items()} for a in scores}
    text = [table([[a, *row.values()] for a, row in printed.items()], ["method", *COLUMNS])]
    placed = ranks(printed)
    rows = []
    for name, row in placed.items():
        places = list(row.values())
        worst = sum(row[c] == max(placed[a][c] for a in placed) and row[c] > 1 for c in COLUMNS)
        counts = [places.count(1), places.count(2), worst, sum(places) / len(places)]
        rows.append([name, *map(str, places), *map(str, counts[:3]), f"{counts[3]:.1f}"])
    header = ["rank", *COLUMNS, "firsts", "seconds", "worsts", "mean rank"]
    text.append(table(rows, header))
    behind = [f"{c} ({r} of {len(placed)})" for c, r in placed["robust"].items() if r > 2]
    text.append(f"`robust` is neither first nor second in: {', '.join(behind) or 'none of them'}.")
    names = list(next(iter(by_kind.values())))
    cell = lambda n, v: f"{v:.2f}" if n == "drop" else f"{v:.2%}"  # noqa: E731
    rows = [[a, *(cell(n, own[n]) for n in names)] for a, own in by_kind.items()]
    text.append(table(rows, ["by kind", *names]))
    return "\n\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="recorded norms and training, too")
    parser.add_argument("--write", action="store_true", help="store as benchmarks/streams.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = synthetic()
    results = {name: score(*arm, *data) for name, arm in arms().items()}
    text = "# Streams of gradient norms\n\nGenerated by `python benchmarks/streams.py"
    text += f"{' --real' if options.real else ''} --write`; columns are defined there.\n\n"
    text += "## Synthetic streams\n\n"
    text += tables({a: r[0] for a, r in results.items()}, {a: r[1] for a, r in results.items()})
    if options.real:
        import streams_real

        text += streams_real.report()
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
