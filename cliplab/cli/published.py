"""``cliplab attest | remeasure``: published records, and whether today's code gives them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FAILED = 1


def attest(options: argparse.Namespace) -> int:
    """``cliplab attest``: carry published records over changes that move no number."""
    from cliplab.lab.attest.attest import Acceptance
    from cliplab.lab.attest.attest import attest as attest_records

    root = _checkout()
    outcomes = attest_records(
        _published(options.notebook, options),
        options.records,
        root,
        [Acceptance(name, why) for name, why in options.accept],
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    refused = [name for name, outcome in outcomes.items() if isinstance(outcome, ValueError)]
    print(f"{len(outcomes) - len(refused)} current or carried, {len(refused)} refused")
    return FAILED if refused else 0


def remeasure(options: argparse.Namespace) -> int:
    """``cliplab remeasure``: published records again in full, chosen or drawn by the commit."""
    from cliplab.lab.attest.checkout import git
    from cliplab.lab.attest.remeasured import drawn, remeasured
    from cliplab.lab.notebook.registrations import find_registration

    if not (options.notebook or options.draw):
        raise ValueError("which? Name notebooks, or say --draw N")
    root, chosen = _checkout(), _published(options.notebook, options)
    registered: list[str] = []
    if options.draw:
        registered = [path.stem for path in _published([], options) if find_registration(path)]
        ours = drawn(registered, git(root, "rev-parse", "HEAD"), options.draw)
        chosen = [path for path in chosen if path.stem in ours]
    if not chosen:
        raise ValueError("none of these is drawn")
    for path in chosen:
        told = "to be measured again"
        if not options.list:
            told = remeasured(path, options.records, root, len(registered))
        print(f"{path.stem}: {told}", flush=True)
    return 0


def _checkout() -> Path:
    """The checkout that this code runs from."""
    from cliplab.lab.runs.faces import PACKAGE

    if not (PACKAGE.parent / "notebooks").is_dir():
        raise ValueError("this compares commits: it needs a checkout of cliplab, not a package")
    return PACKAGE.parent


def _published(names: Sequence[str], options: argparse.Namespace) -> list[Path]:
    """The notebooks named, all of which must have a published record; unnamed: those with one."""
    from cliplab.lab.notebook.presets import find_notebooks

    found = find_notebooks(names, options.notebooks)
    published = [path for path in found if (options.records / f"{path.stem}.json").exists()]
    if names and published != found:
        missing = [path.stem for path in found if path not in published]
        raise ValueError(f"no published record in {options.records}: {', '.join(missing)}")
    return published
