"""Which optimizers a clipper attaches to, and what then holds of each: docs/optimizers.md.

`python benchmarks/optimizers.py [NAME ...] [--write]`

Nothing is timed: every cell is measured on small tensors, some steps each. `--write` puts the table
into docs/optimizers.md; tests/parity/test_optimizers_table.py measures it again.
"""

import argparse
import copy
import math
import statistics
import sys
import textwrap
import warnings
from pathlib import Path

import torch
from torch import Tensor

from cliplab import EMA, Clipper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from optimizing import NEED_MORE, Kind, Run, kinds, picture

PAGE = Path(__file__).resolve().parents[1] / "docs" / "optimizers.md"
MEASURED = ("alig", "lbfgs", "spectralsphere")  # though they need more
WORKS = "works"


def clip(kind: Kind) -> str:
    """The attached clipper against one that clips by hand before each of 8 steps."""
    by_hand, attached, raw = Run(kind), Run(kind), Run(kind)
    clipper = Clipper(attached.params, 0.5)
    if refusal := attached.attach(clipper):
        return refused(refusal)
    by_hand.take(*range(8), clip=Clipper(by_hand.params, 0.5).clip)
    attached.take(*range(8))
    raw.take(*range(8))
    if clipper.history.clip_fraction != 1.0 or len(clipper.history) < 8:
        return "wrong: not every step was clipped"
    if picture(attached.optimizer) != picture(by_hand.optimizer):
        return "wrong: another state than by hand"
    if not attached.moved():
        return "wrong: no weight moved"
    return same(attached, by_hand)


def skip(kind: Kind) -> str:
    """A step too large, and one not finite, at the start and later: neither is there after it."""
    for before in (0, 3):
        for how in ({"mode": "skip"}, {"nonfinite": "skip"}):
            run, calm = Run(kind), Run(kind)
            clipper = Clipper(run.params, 100.0, **how)
            if refusal := run.attach(clipper):
                return refused(refusal)
            run.take(*range(before))
            weights, remembered = run.weights(), picture(run.optimizer) if before else None
            try:
                run.take(99, size=1e4 if "mode" in how else math.nan)
            except RuntimeError as error:
                return refused(str(error))
            if run.weights() != weights or (before and picture(run.optimizer) != remembered):
                return "wrong: the skipped step left something behind"  # a first one may be zeros
            run.take(before, before + 1)
            calm.take(*range(before + 2))
            forgot = picture(run.optimizer) == picture(calm.optimizer)
            if clipper.history.skipped.sum() != 1 or same(run, calm) != WORKS or not forgot:
                return "wrong: the skipped step was remembered"
    return WORKS


def update(kind: Kind) -> str:
    """Eight steps held back, each against its definition, and what the optimizer makes of it."""
    decayed = 0.1 if decay(kind) == "apart" else 0.0
    free, plain, limited = (Run(kind, decay=0.1) for _ in range(3))
    sizes = [norm(update_of(*stepped(free, step), decayed)) for step in range(8)]
    limit = 0.5 * statistics.median(filter(None, sizes))
    clipper = Clipper(limited.params, limit, target="update")
    if refusal := limited.attach(clipper):
        return refused(refusal)
    for step in range(8):
        plain.set(limited.params)
        before, after, rates = stepped(plain, step)
        wanted = update_of(before, after, rates, decayed)
        factor = min(1.0, limit / max(norm(wanted), 1e-30))
        limited.take(step)
        for p, b, u, rate in zip(limited.params, before, wanted, rates, strict=True):
            allowed = b * (1 - rate * decayed) - rate * factor * u
            if not close(p, allowed, 1e-6 * b.abs().max() + 1e-3 * (p - b).abs().max()):
                return "wrong: not the step that is allowed"
    if not clipper.history.clipped.any():
        return "wrong: nothing was limited"
    return "wrong: keeps what was not allowed" if keeps(kind) else WORKS


def closure(kind: Kind) -> str:
    """A closure, clipped as it computes, against one that clips by hand."""
    by_hand, attached = Run(kind), Run(kind)
    clipper = Clipper(attached.params, 0.5)
    if refusal := attached.attach(clipper):
        return refused(refusal)
    by_hand.take(*range(6), clip=Clipper(by_hand.params, 0.5).clip, closes=True)
    try:
        attached.take(*range(6), closes=True)
    except RuntimeError as error:
        return refused(str(error))
    return same(attached, by_hand) if len(clipper.history) >= 6 else "wrong: a step was not clipped"


def resume(kind: Kind) -> str:
    """Eight steps against four, and four of new objects that take over all states."""
    for target in ("gradient", "update"):
        whole, clipper = Run(kind), None
        clipper = Clipper(whole.params, EMA(warmup=2), target=target)
        if whole.attach(clipper):
            continue
        if same(stopped(whole, clipper, target), whole) != WORKS:
            alone = Run(kind)
            own = same(stopped(alone, None, target), alone)
            return f"wrong: another run ({target})" if own == WORKS else "no, nor does it alone"
    return WORKS


def stopped(whole: Run, clipper: Clipper | None, target: str) -> Run:
    """The last steps of a run that is ``whole``, taken by another that takes over its states."""
    whole.take(*range(4))
    other = Run(whole.kind)
    with torch.no_grad():
        for p, q in zip(other.params, whole.params, strict=True):
            p.copy_(q)
    other.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    if clipper is not None:
        again = Clipper(other.params, EMA(warmup=2), target=target)
        again.attach(other.optimizer)
        again.load_state_dict(copy.deepcopy(clipper.state_dict()))
    for run in (whole, other):
        run.take(*range(4, 8))
    return other


def decay(kind: Kind) -> str:
    """Whether weight decay is a part of the update that is recorded."""
    without, decayed = Run(kind, decay=0.0), Run(kind, decay=0.5)
    clipper = Clipper(decayed.params, math.inf, scope="tensor", target="update")
    if decayed.attach(clipper):
        return ""
    if not any("weight_decay" in group for group in decayed.optimizer.param_groups):
        return "none"
    apart, included = True, True
    for step in range(8):
        without.set(decayed.params)
        bare = update_of(*stepped(without, step), 0.0)
        before, after, rates = stepped(decayed, step)
        recorded = clipper.history.norm_before[-1].tolist()
        for size, own, part, all_, b, rate in zip(
            recorded,
            bare,
            update_of(before, after, rates, 0.5),
            update_of(before, after, rates, 0.0),
            before,
            rates,
            strict=True,
        ):
            rough = 1e-6 * b.norm() / rate + 0.02 * own.norm()
            apart &= close(part, own, rough) and abs(size - part.norm()) < rough
            included &= bool(abs(size - all_.norm()) < rough)
    if apart == included:
        return "wrong: neither with nor without it"
    return "apart" if apart else "included"


def keeps(kind: Kind) -> bool:
    """Whether the optimizer holds copies of the weights, or of its steps, that it goes on from.

    Of two equal runs the weights of one are moved from outside, by half of its last step. One that
    keeps nothing takes the same steps from there; of others the move fades in training or in
    ``eval()``, or is found in the state of the very next step.
    """
    still, moved = Run(kind, decay=0.0), Run(kind, decay=0.0)
    still.take(*range(6))
    moved.take(*range(5))
    before = [p.detach().clone() for p in moved.params]
    moved.take(5)
    generator = torch.Generator().manual_seed(0)
    moves = []
    for p, b in zip(moved.params, before, strict=True):
        move = torch.randn(p.shape, generator=generator)
        moves.append(move * (0.5 * (p.detach() - b).norm() / move.norm()))
        p.data.add_(moves[-1])
    for run in (still, moved):
        run.take(6)
    if follows(still, moved, moves):
        return True
    for run in (still, moved):
        run.take(*range(7, 20))
    modes = ["train", "eval"] if hasattr(still.optimizer, "eval") else [""]
    for mode in modes:
        for run in (still, moved):
            getattr(run.optimizer, mode, lambda: None)()
        for p, q, move in zip(still.params, moved.params, moves, strict=True):
            if share(q.detach() - p.detach(), move) < 0.75 and move.any():
                return True
    return False


def follows(still: Run, moved: Run, moves: list[Tensor]) -> bool:
    """Whether every tensor has something in its state that a move of the weights moves along."""
    states = moved.optimizer.state
    for key in {key for p in moved.params for key in states.get(p, ())}:
        found = []
        for p, q, move in zip(still.params, moved.params, moves, strict=True):
            one, other = (
                run.optimizer.state.get(x, {}).get(key) for run, x in ((still, p), (moved, q))
            )
            if isinstance(one, Tensor) and one.shape == move.shape and one.is_floating_point():
                part = share(other - one, move)
                found.append(
                    part > 2e-4 and close(other - one, part * move, 0.1 * part * move.abs().max())
                )
        if found and all(found):
            return True
    return False


def share(tensor: Tensor, of: Tensor) -> float:
    """The multiple of a tensor that another one contains."""
    return float((tensor * of).sum() / of.square().sum().clamp(min=1e-30))


def stepped(run: Run, step: int) -> tuple[list[Tensor], list[Tensor], list[float]]:
    """The weights before and after a step, and the learning rate of each."""
    before = [p.detach().clone() for p in run.params]
    rates = {
        id(p): float(group.get("lr", 1.0))
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    run.take(step)
    after = [p.detach().clone() for p in run.params]
    return before, after, [rates[id(p)] for p in run.params]


def update_of(
    before: list[Tensor], after: list[Tensor], rates: list[float], decay: float
) -> list[Tensor]:
    """``(w (1 - lr wd) - w') / lr`` of every tensor."""
    return [
        (b * (1 - rate * decay) - a) / rate for b, a, rate in zip(before, after, rates, strict=True)
    ]


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def close(one: Tensor, other: Tensor, rough: Tensor | float) -> bool:
    return bool(((one - other).abs() <= rough).all())


def same(one: Run, other: Run) -> str:
    return WORKS if one.weights() == other.weights() else "wrong: other weights than by hand"


def refused(error: str) -> str:
    """The first words of an error."""
    return "refused: " + error.split(", which")[0].split(": ")[0].replace("|", "/")


def row(kind: Kind) -> str:
    """The line of the table."""
    cells = [measure(kind) for measure in (clip, skip, update, closure, resume, decay)]
    return f"| {kind.library} | {kind.name} | " + " | ".join(cells) + " |"


HEAD = """\
# What a clipper attaches to

Written by `python benchmarks/optimizers.py --write`: every cell is measured, on small tensors on a
CPU, and `tests/parity/test_optimizers_table.py` measures it again. "refused" begins the error that
`attach`, or the step, raises.

- *clip*: 8 steps of `attach` leave the weights and the state that clipping by hand leaves, bit for
  bit.
- *skip*: a step that is too large or not finite, the first or a later one, is no step: weights,
  state and groups go on as in a run without it.
- *update*: with `target="update"`, 8 steps end where the definition says, and what was not allowed
  does not come back: no state keeps weights or steps that later training, `eval()` or an average
  would go on from. Those that do are refused by name, a wrapper by what it holds, and whatever has
  an `eval()` to switch its weights; an optimizer that is not listed here and keeps copies of its
  own without one is not recognised.
- *closure*: gradients computed in a closure are clipped as by a closure that clips by hand.
- *resume*: 4 steps, the state dicts of optimizer and clipper, and 4 more steps are the 8 steps, bit
  for bit, with an `EMA` of gradients and, where that is not refused, of updates.
- *decay*: whether weight decay is "apart" from the update that is recorded and limited, or
  "included" in it: coupled decay is, and so is decoupled decay of which no group tells or that has
  a rate of its own. "none": there is none.

Of torch's variants `capturable` needs an accelerator and `differentiable` wants gradients of the
step: neither is a row.

| library | optimizer | clip | skip | update | closure | resume | decay |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def page(rows: list[str]) -> str:
    """The document."""
    missing = [f"{name} ({why})" for name, why in NEED_MORE.items() if name not in MEASURED]
    told = f"Not measured: {', '.join(missing)}, GSAM and WSAM (the model)."
    return "\n".join([HEAD, *rows, "", textwrap.fill(told, 100), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for kind in kinds():
        if not options.names or kind.name in options.names:
            rows.append(row(kind))
            print(rows[-1], flush=True)
    if options.write:
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
