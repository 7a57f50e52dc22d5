"""The arguments of the commands in ``commands.py``, ``diagnosing.py`` and ``racing.py``."""

from __future__ import annotations

import argparse
import contextlib
import math
from pathlib import Path
from typing import Any

from cliplab.cli.how import count, positive, positive_int

NAMED = "name, number, a word of the name, path"
NOTEBOOKS: dict[str, Any] = {
    "nargs": "*",
    "metavar": "NOTEBOOK",
    "help": f"{NAMED} or folder (all)",
}

RECORDS: dict[str, Any] = {"type": Path, "default": Path("records"), "metavar": "DIR"}

RACED = "--minutes 0.4 --lr 0.01:3 --margin 0.06"
NEW = f"""
cliplab new my-study                        # my-study.ipynb, and its claim
cliplab run my-study.ipynb --preset smoke
cliplab new train.py                        # a function
cliplab race train.py:train {RACED}
"""
RACE = f"""
cliplab new train.py                        # a function to start from
cliplab race train.py:train {RACED}
cliplab race train.py:train {RACED} --repeat 1
"""


def with_examples(text: str) -> dict[str, Any]:
    """Examples below the help of a command, as they are."""
    lines = ["examples:", *text.strip().splitlines()]
    return {
        "epilog": "\n  ".join(lines),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def notebooks_here() -> Path:
    """Where notebooks are unless it is said: here, if there are claims and no ``notebooks``."""
    own = Path("claims.toml").is_file() and not Path("notebooks").is_dir()
    return Path() if own else Path("notebooks")


def add_folder(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option for one of the three folders."""
    here, text = {
        "notebooks": (notebooks_here(), "where the notebooks are"),
        "results": (Path("results"), "records and executed notebooks"),
        "reports": (Path("reports"), "the HTML report and claims.json"),
    }[name]
    text += " (%(default)s)"
    parser.add_argument(f"--{name}", type=Path, default=here, metavar="DIR", help=text)


def add_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add these commands; ``shared`` has the folders."""
    folders: dict[str, Any] = {"parents": [shared]}

    export = commands.add_parser(
        "export", **folders, help="all that was recorded as one table, parameters beside it"
    )
    export.add_argument("notebook", **NOTEBOOKS)
    export.add_argument("--preset", help="only this preset")
    export.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help=".csv, .json, .parquet (CSV to stdout)"
    )
    export.add_argument("--force", action="store_true", help="overwrite any FILE")

    diff = commands.add_parser(
        "diff",
        **folders,
        help="which numbers differ between two results folders or commits",
        description="Exit status 0: none, 1: some, 2: something could not be read.",
    )
    for side in ("A", "B"):
        diff.add_argument(
            side.lower(), metavar=side, help="results or records folder; else commit, tag"
        )
    diff.add_argument("notebook", **NOTEBOOKS)
    diff.add_argument("--preset", help="only this preset")
    diff.add_argument(
        "--records", **RECORDS, help="the published records in a commit (%(default)s)"
    )
    diff.add_argument("--all", action="store_true", help="every line")
    diff.add_argument("--json", action="store_true", help="for programs")

    inspect = commands.add_parser("inspect", help="the parameters of a notebook")
    inspect.add_argument("notebook", metavar="NOTEBOOK", help=NAMED)
    add_folder(inspect, "notebooks")
    inspect.add_argument("--json", action="store_true", help="for programs")

    register = commands.add_parser(
        "register",
        **folders,
        help="fix comparisons before their verdict run: records/NN.registration.json",
    )
    register.add_argument("notebook", nargs="+", metavar="NOTEBOOK", help=NAMED)

    calibrate = commands.add_parser(
        "calibrate",
        **folders,
        help="how often the verdict rule errs: on drawn surfaces, or at a pilot's own noise",
    )
    calibrate.add_argument("notebook", **NOTEBOOKS)
    calibrate.add_argument(
        "--studies", type=int, default=500, metavar="N", help="simulated a cell (%(default)s)"
    )

    remeasure = commands.add_parser(
        "remeasure",
        **folders,
        help="run published records again in full: does today's code give every row?",
    )
    remeasure.add_argument("notebook", **NOTEBOOKS)
    remeasure.add_argument(
        "--draw",
        type=positive_int,
        metavar="N",
        help="the N that HEAD's hash draws",
    )
    remeasure.add_argument("--list", action="store_true", help="name them, run nothing")
    remeasure.add_argument("--records", **RECORDS, help="the published records (%(default)s)")

    copy = commands.add_parser("notebooks", help="copy this collection, to run it anywhere")
    copy.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or one made so")


def add_diagnose(commands: Any) -> None:
    """Add ``cliplab diagnose``."""
    diagnose = commands.add_parser(
        "diagnose",
        help="advice read off a saved history, or any trainer's log of gradient norms",
        description="Exit status 0: nothing found, 1: something (see --fail-on), 2: FILE or an "
        "argument is bad.",
    )
    add = diagnose.add_argument
    add(
        "history",
        type=Path,
        metavar="FILE",
        help="history (.pt, .csv), trainer_state.json, JSON lines, CSV, TensorBoard events or "
        "their folder, - for standard input",
    )
    add("--lr", type=positive, metavar="LR", help="where FILE has no learning rates")
    column = diagnose.add_argument_group(
        "which column of a log is what", "None: guessed by its name. COLUMN none: there is none."
    )
    for role, what in {
        "norm": "of the whole gradient, before clipping",
        "loss": "of training",
        "lr-column": "learning rates",
        "step": "their numbers",
    }.items():
        column.add_argument(f"--{role}", metavar="COLUMN", help=what)
    column.add_argument(
        "--threshold",
        type=_number_or_name,
        metavar="VALUE|COLUMN",
        help="at which norms were clipped, and what follows where FILE does not say it",
    )
    how = diagnose.add_argument_group("how")
    how.add_argument(
        "--fail-on",
        choices=("info", "warning", "critical", "error", "never"),
        default="warning",
        help="least severity for exit status 1; error is critical (%(default)s)",
    )
    how.add_argument("--json", action="store_true", help="for programs; with --watch a line each")
    how.add_argument(
        "--watch", action="store_true", help="read FILE again as it grows, tell what is new"
    )
    how.add_argument("--every", type=positive, metavar="S", help="seconds between two looks (1)")
    how.add_argument("--for", dest="seconds", type=positive, metavar="S", help="and then end")


def _number_or_name(text: str) -> float | str:
    with contextlib.suppress(ValueError):
        float(text)
        return positive(text)
    return text


def add_race(commands: Any) -> None:
    """Add ``cliplab race`` and ``cliplab new``."""
    new = commands.add_parser(
        "new",
        help="write a study of your own: a notebook and its claim, or a function to race",
        **with_examples(NEW),
    )
    new.add_argument(
        "name", type=Path, metavar="NAME", help="of the notebook, or FOLDER/NAME; NAME.py: function"
    )

    race = commands.add_parser(
        "race",
        help="clip against no clip on your own function train(configurations, seeds) -> rows",
        description="Exit status 0; 1: the function raised an error, 2: something is refused.",
        **with_examples(RACE),
    )
    race.add_argument("function", metavar="FILE.py:FUNCTION", help="as train.py:train")
    what = race.add_argument_group("what is compared")
    for name, default, text in (
        ("lr", (1e-4, 1.0), "learning rates of both ways"),
        ("threshold", (0.01, 100.0), "thresholds of the clipped one"),
    ):
        shown = "{:g}:{:g}".format(*default)
        what.add_argument(
            f"--{name}", type=_range, default=default, metavar="A:B", help=f"{text} ({shown})"
        )
    for name, text in {
        "margin": "the smallest difference in loss that would change what you do (no word without)",
        "chance": "loss of a predictor that knows nothing (that of an untrained run)",
        "lost": "loss at which a run counts as failed, too",
    }.items():
        kind = positive if name == "margin" else _number
        what.add_argument(f"--{name}", type=kind, metavar="X", help=text)
    how = race.add_argument_group("how")
    how.add_argument(
        "--minutes",
        type=positive,
        default=30.0,
        metavar="M",
        help="the largest size that fits (%(default)g)",
    )
    how.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="processes (1)")
    how.add_argument(
        "--at-once", type=_few, default=1, metavar="N", help="runs that a call gets, at most (1)"
    )
    how.add_argument(
        "--repeat",
        type=count,
        default=0,
        metavar="N",
        help="does it hold? the N-th time, all fresh",
    )
    how.add_argument(
        "--results",
        type=Path,
        default=Path("race"),
        metavar="DIR",
        help="runs and pages, in a folder each function (%(default)s)",
    )


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    try:
        found = positive(low), positive(high)
        if colon and found[0] < found[1]:
            return found
    except argparse.ArgumentTypeError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not like 0.001:1, two numbers above 0, rising")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _few(text: str) -> int:
    if (count := positive_int(text)) > 63:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 63")
    return count
