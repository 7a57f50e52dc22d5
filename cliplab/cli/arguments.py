"""The command line's arguments, checked; an error is one line and exit status 2."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cliplab.cli.how import add_how, positive_int
from cliplab.cli.subcommands import (
    NAMED,
    RACED,
    add_commands,
    add_diagnose,
    add_folder,
    add_race,
    with_examples,
)
from cliplab.cli.values import join_assignments, read_values

REFUSED = 2
DESCRIPTION = """The laboratory for gradient clipping.
For your own training: race, new, diagnose.
For notebooks: list, run, report, inspect, export, diff, notebooks.
For what is published: register, calibrate, attest, remeasure."""
EXAMPLES = f"""
cliplab notebooks nb                        # a copy of the collection
cliplab list --notebooks nb
cliplab run exploding --notebooks nb --preset smoke
cliplab new train.py                        # a training function
cliplab race train.py:train {RACED}
"""


def fail(status: int, error: object) -> int:
    """Say on one line of stderr what is wrong; returns the exit status."""
    from cliplab.lab.batch.oneline import one_line

    print(f"cliplab: error: {one_line(error)}", file=sys.stderr)
    return status


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command; exits with status 2 on bad ones."""
    options = _parser().parse_args(join_assignments(argv))
    if options.command == "run":
        try:
            read_values(options)
        except ValueError as error:
            sys.exit(fail(REFUSED, error))
    return options


def _seed_range(text: str) -> range:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    seeds = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0-31 or 7")
    return seeds


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1/4, the first of four parts")
    return index, count


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(fail(REFUSED, message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cliplab", description=DESCRIPTION, **with_examples(EXAMPLES))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _Parser(add_help=False)
    for name in ("notebooks", "results", "reports"):
        add_folder(shared, name)

    run = commands.add_parser("run", parents=[shared], help="run notebooks, judge, report")
    notebook: dict[str, Any] = {
        "nargs": "*",
        "metavar": "NOTEBOOK",
        "help": f"{NAMED} or folder",
    }
    what = run.add_argument_group("which runs")
    what.add_argument("notebook", **notebook)
    what.add_argument("--preset", default="quick", help="table of presets.toml (%(default)s)")
    many: dict[str, Any] = {"action": "append", "default": []}
    for flag, name, metavar, text in (
        ("-p", "params", "NAME=VALUE", "a parameter of every notebook selected, or -p NAME VALUE"),
        ("-r", "raw", "NAME=TEXT", "the same, and always text"),
        ("-f", "files", "FILE", "parameters from .yaml, .json or .toml"),
        ("-y", "yaml", "YAML", "parameters as '{NAME: VALUE}'"),
        ("-b", "base64", "BASE64", "the same, encoded"),
        ("--grid", "grid", "NAME=V1,V2|FILE", "one run a value; repeated: the product"),
        ("--filter", "filter", "NAME=V1,V2", "of these runs, those with such a value"),
    ):
        what.add_argument(flag, dest=name, metavar=metavar, help=text, **many)
    what.add_argument(
        "--seeds", type=_seed_range, metavar="A-B", help="seeds A to B, both included"
    )
    what.add_argument("--split-seeds", type=positive_int, metavar="K", help="at most K a run")
    what.add_argument("--shard", type=_shard, metavar="I/N", help="part I of N, say of a job array")
    what.add_argument(
        "--replicate", action="store_true", help="a registered study on other draws and seeds"
    )
    what.add_argument("--force", action="store_true", help="also those that are done")
    what.add_argument("--dry-run", action="store_true", help="list them with keys, run nothing")

    add_how(run)

    list_ = commands.add_parser("list", parents=[shared], help="notebooks and their records")
    list_.add_argument("notebook", **notebook)
    list_.add_argument("--json", action="store_true", help="for programs")
    list_.add_argument("--preset", help="only this preset")

    attest = commands.add_parser(
        "attest", parents=[shared], help="carry published records over code that moves no number"
    )
    attest.add_argument("notebook", **notebook)
    attest.add_argument(
        "--accept",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "WHY"),
        help="a changed definition (pattern) that no run enters, or column:NAME",
    )
    records: dict[str, Any] = {"type": Path, "default": Path("records"), "metavar": "DIR"}
    attest.add_argument("--records", help="the published records (%(default)s)", **records)

    add_diagnose(commands)
    report = commands.add_parser("report", parents=[shared], help="judge and report again")
    report.add_argument("--preset", help="all current records of it (default: the last run)")
    report.add_argument(
        "--publish",
        action="store_true",
        help="write records/ and RESULTS.md; of smoke and quick runs, how long they took",
    )
    add_commands(commands, shared)
    add_race(commands)
    return parser
