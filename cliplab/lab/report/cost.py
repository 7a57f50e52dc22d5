"""What the published answers cost to compute, pilots included: the times that pages tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published, superseded
from cliplab.lab.report.tables import minutes

__all__ = ["computing", "cost", "with_time"]

_VERDICT = re.compile(r"verdict (?:less than a minute|(?:about )?\d+(?: to \d+)? minutes?)")


def cost(published: Published) -> str:
    """Core-minutes by notebook and in all; pilots count as far as their registrations timed them.

    Nothing without records.
    """
    rows, untimed = [], 0
    total = 0.0
    for name, about in published.about.items():
        pilots = published.registrations.get(name, {}).get("pilots", ())
        untimed += sum("cpu_s" not in pilot for pilot in pilots)
        spent = {
            "Run": _seconds(about),
            "Replication": _seconds(published.about_again.get(name, {})),
            "Pilots": sum(pilot.get("cpu_s", 0.0) for pilot in pilots),
        }
        total += sum(spent.values())
        told = {column: _minutes(seconds) for column, seconds in spent.items()}
        told["Run, elapsed"] = _minutes(_seconds(about, "wall_s"))
        rows.append({"Notebook": link(name), **told})
    if not rows:
        return ""
    said = [f"In all {total / 3600:.1f} core-hours."]
    if untimed:
        said.append(f"{untimed} pilots were registered without their time, and are not in it.")
    said.append(
        "Scratch runs, which shaped the studies and are named in "
        "[records/DEVIATIONS.md](records/DEVIATIONS.md), were not timed."
    )
    return (
        f"{' '.join(said)}\n\n"
        "Core-minutes of the published runs (one core each; *elapsed*: minutes by the clock, on a "
        f"machine that had other work):\n\n{markdown(rows)}"
    )


def computing(published: Published) -> str:
    """How long the published runs took, in a sentence."""
    spent = [seconds for about in published.about.values() if (seconds := _seconds(about))]
    if not spent:
        return ""
    return (
        f"The published runs of {len(spent)} notebooks took {sum(spent) / 3600:.1f} core-hours, "
        f"{_minutes(min(spent))} to {_minutes(max(spent))} core-minutes a notebook "
        "([each one](RESULTS.md#what-it-cost))."
    )


def with_time(title: str, about: Mapping[str, Any]) -> str:
    """A notebook's title with the minutes that its published run took, where it names any.

    >>> with_time("**Expected time**: verdict 10 to 15 minutes", {"provenance": {"cpu_s": 500}})
    '**Expected time**: verdict about 8 minutes'
    """
    seconds = _seconds(about)
    if not seconds or "**Expected time**" not in title:
        return title
    took = minutes(seconds)
    return _VERDICT.sub(f"verdict {'about ' * took[0].isdigit()}{took}", title)


def _seconds(about: Mapping[str, Any], clock: str = "cpu_s") -> float:
    """Of a run whose answers stand: nothing of one that is superseded."""
    return 0.0 if superseded(about) else float(about.get("provenance", {}).get(clock) or 0.0)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds else "–"
