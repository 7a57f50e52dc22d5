"""``cliplab race | new``: a user's own training, as a function and as a notebook."""

from __future__ import annotations

import argparse
import sys

from cliplab.cli.arguments import fail
from cliplab.cli.subcommands import notebooks_here

FAILED, INTERRUPTED = 1, 130


def race(options: argparse.Namespace) -> int:
    """``cliplab race``: clipping against no clipping, on a user's function, within a budget."""
    from cliplab.extras import require
    from cliplab.lab.race.function import target_of
    from cliplab.lab.race.page import write_page
    from cliplab.lab.race.race import Asked, race
    from cliplab.lab.race.runner import RaisedError
    from cliplab.lab.race.summary import Summary

    require("scipy", "jinja2", "psutil", "tqdm")
    target = target_of(options.function)
    asked = Asked(
        target,
        options.results / f"{target.path.stem}-{target.name}",
        minutes=options.minutes,
        lr=options.lr,
        threshold=options.threshold,
        margin=options.margin,
        chance=options.chance,
        lost=options.lost,
        jobs=options.jobs,
        at_once=options.at_once,
        first_seed=options.first_seed,
    )
    try:
        raced = race(asked, _say)
    except RaisedError as error:
        print(error.trace, file=sys.stderr, end="")
        return fail(FAILED, error)
    except KeyboardInterrupt:
        _say("stopped: the runs that are done are saved, and the same command goes on")
        return INTERRUPTED
    summary = Summary(raced)
    print(summary.text(), flush=True)
    print(f"page: {write_page(raced, summary)}")
    return 0


def new(options: argparse.Namespace) -> int:
    """``cliplab new``: a notebook with a space, a loop and a comparison, to be made one's own."""
    from cliplab.lab.race.new import write_study

    made = write_study(options.name)
    folder = made[0].parent
    print(f"written: {', '.join(map(str, made))}")
    more = "" if folder.resolve() == notebooks_here().resolve() else f" --notebooks {folder}"
    print(f"next: cliplab run {made[0]} --preset quick{more}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
