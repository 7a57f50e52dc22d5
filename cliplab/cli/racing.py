"""``cliplab race | new``: a user's own training, as a function and as a notebook."""

from __future__ import annotations

import argparse
import sys
from shlex import quote

from cliplab.cli.arguments import fail
from cliplab.cli.subcommands import RACED, notebooks_here

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
        repeat=options.repeat,
    )
    try:
        raced = race(asked, _say)
    except RaisedError as error:
        print(error.trace, file=sys.stderr, end="")
        return fail(FAILED, error)
    except KeyboardInterrupt:
        _say("stopped: the same command goes on with the runs that are saved")
        return INTERRUPTED
    summary = Summary(raced)
    print(summary.text(), flush=True)
    print(f"page: {write_page(raced, summary)}")
    return 0


def new(options: argparse.Namespace) -> int:
    """``cliplab new``: a notebook with a comparison, or a function, to be made one's own."""
    from cliplab.lab.race.new import write_function, write_study

    if options.name.suffix == ".py":
        made = write_function(options.name)
        print(f"written: {made}")
        print(f"next: cliplab race {quote(f'{made}:train')} {RACED}")
        return 0
    notebook, *beside = write_study(options.name)
    print(f"written: {', '.join(map(str, [notebook, *beside]))}")
    folder = notebook.parent
    here = folder.resolve() == notebooks_here().resolve()
    more = "" if here else f" --notebooks {quote(str(folder))}"
    print(f"next: cliplab run {quote(str(notebook))} --preset smoke{more}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
