"""The options that say how runs are carried out."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliplab.lab.batch.spec import How

LEFT_OUT = """papermill's own options that are not here: paths on s3://, gs://, adl:// and the like,
- for stdin and stdout, --engine, --language (a kernel has one), --inject-paths, --log-level,
--no-progress-bar (bars are on terminals only), --no-request-save-on-cell-execute.
--help-notebook is `cliplab inspect`, --kernel NAME is -k; --parameters and its kin
have their short forms only."""


def positive_int(text: str) -> int:
    """A count."""
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive(text: str, unit: str = "") -> float:
    """A finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number{unit}")


def count(text: str) -> int:
    """A count that may be none."""
    return 0 if re.fullmatch("0+", text) else positive_int(text)


def _minutes(text: str) -> float:
    return math.inf if text == "none" else positive(text, " of minutes, or none")


def _gigabytes(text: str) -> float:
    return positive(text, " of GB")


def _seconds(text: str) -> float:
    return positive(text, " of seconds")


def _seconds_or_never(text: str) -> float:
    return 0.0 if re.fullmatch("0+", text) else _seconds(text)


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a kernel")
    return text


def _folder(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return path


def add_how(run: argparse.ArgumentParser) -> None:
    """The options of `cliplab run` that fill a `How`, and those of the batch beside them."""
    run.epilog = LEFT_OUT
    how = run.add_argument_group("how")
    add = how.add_argument
    add("--jobs", type=positive_int, default=1, metavar="N", help="runs at once (%(default)s)")
    add(
        "--executor",
        default="local",
        metavar="WHERE",
        help="local, dask, dask://HOST:PORT or dask:CLUSTER.yaml (%(default)s)",
    )
    add(
        "--budget",
        type=_minutes,
        default=60.0,
        metavar="MINUTES",
        help="for a run, or none (%(default)g)",
    )
    add("--memory", type=_gigabytes, metavar="GB", help="for a run, all its processes")
    add(
        "--execution-timeout",
        type=_seconds,
        metavar="S",
        help="for a cell (none)",
    )
    add(
        "--start-timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="for a kernel to come up (%(default)g)",
    )
    add(
        "--retries",
        type=count,
        metavar="N",
        help="of a run that failed (1 if a process died, 0 if the notebook raised an exception)",
    )
    add("--stop-on-failure", action="store_true", help="start nothing after a run that failed")
    add("--cwd", type=_folder, metavar="DIR", help="where the notebooks run (beside themselves)")
    add(
        "-k",
        "--kernel-name",
        type=_name,
        metavar="NAME",
        help="a kernel that Jupyter knows (the notebook's own, else python3)",
    )
    add(
        "--kernel",
        choices=["fork", "stock"],
        default="fork",
        help="kernels of this Python forked where possible, or started the stock way",
    )

    out = run.add_argument_group(
        "what comes out", "A PATH may hold parameters, {notebook}, {preset} and {key}."
    )
    add = out.add_argument
    add(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="a copy of the executed notebook, as 'out/{lr}.ipynb'",
    )
    add(
        "--log-output", action="store_true", help="what the notebooks print, on stderr, as it comes"
    )
    add("--stdout-file", type=Path, metavar="PATH", help="add what they print to this file")
    add("--stderr-file", type=Path, metavar="PATH", help="and what they print on stderr to this")
    add(
        "--autosave-cell-every",
        type=_seconds_or_never,
        default=30.0,
        metavar="S",
        help="save the notebook while a cell runs; 0: never (%(default)g)",
    )
    add("--report-mode", action="store_true", help="hide the code in the executed notebooks")
    add("--no-report", action="store_true", help="do not judge, do not report")
    add(
        "--prepare-only",
        action="store_true",
        help="write the notebooks with their parameters, run nothing",
    )


def how_of(options: argparse.Namespace) -> How:
    """What the options say."""
    from cliplab.lab.batch.spec import How

    return How(
        budget_s=60 * options.budget,
        memory_gb=options.memory,
        kernel=options.kernel,
        retries=options.retries,
        cwd=options.cwd,
        kernel_name=options.kernel_name,
        start_timeout_s=options.start_timeout,
        cell_timeout_s=options.execution_timeout,
        autosave_s=options.autosave_cell_every,
        log_output=options.log_output,
        stdout_file=options.stdout_file,
        stderr_file=options.stderr_file,
        report_mode=options.report_mode,
        output=options.output,
    )
