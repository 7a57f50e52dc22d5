"""What runs cost to compute: the published ones with their pilots, and the short presets.

The times that pages tell are these. ``records/times.toml`` has those of the short presets, whose
records are not published.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published, superseded
from cliplab.lab.report.tables import minutes

__all__ = ["TIMED", "TIMES", "computing", "cost", "read_times", "times_text", "with_times"]

TIMED = ("smoke", "quick")  # presets whose records are not published, but for their times
TIMES = Path("records", "times.toml")
Times = Mapping[str, Mapping[str, float]]  # core-seconds by notebook and preset
_ORDER = ("smoke", "quick", "verdict", "full")
_LINE = re.compile(r"(\*\*Expected time\*\*[^:\n]*: )(.+?)(?=\.(?:\s|$)|$)", re.MULTILINE)


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


def computing(published: Published, times: Times) -> str:
    """How long the published runs took, and those of the short presets, in a sentence each."""
    spent = [seconds for about in published.about.values() if (seconds := _seconds(about))]
    if not spent:
        return ""
    said = (
        f"The published runs of {len(spent)} notebooks took {sum(spent) / 3600:.1f} core-hours, "
        f"{_minutes(min(spent))} to {_minutes(max(spent))} core-minutes a notebook "
        "([each one](RESULTS.md#what-it-cost))."
    )
    timed = {preset: [own[preset] for own in times.values() if preset in own] for preset in TIMED}
    told = [f"{p} {_minutes(sum(own))} ({len(own)})" for p, own in timed.items() if own]
    if not told:
        return said
    measured = f"In core-minutes (notebooks): {', '.join(told)}"
    return f"{said} {measured}; starts of kernels and the report not counted."


def read_times(root: Path) -> dict[str, dict[str, float]]:
    """Core-seconds by notebook and short preset; ``ValueError`` for a file that is damaged."""
    path = root / TIMES
    if not path.exists():
        return {}
    try:
        times = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name, own in times.items():
        if not isinstance(own, dict) or not all(
            preset in TIMED and type(seconds) is float for preset, seconds in own.items()
        ):
            raise ValueError(f"{path}: {name} = {own!r:.60}, expected seconds of {TIMED}")
    return times


def times_text(times: Times) -> str:
    """The file that `read_times` reads."""
    lines = ["# Core-seconds of a run; written by `cliplab report --preset smoke --publish`."]
    for name, own in sorted(times.items()):
        told = [f"{preset} = {own[preset]:.1f}" for preset in TIMED if preset in own]
        lines += ["", f"[{json.dumps(name)}]", *told]
    return "\n".join(lines) + "\n"


def with_times(text: str, about: Mapping[str, Any], short: Mapping[str, float]) -> str:
    """A title cell whose line of expected times has those that were measured; others stay.

    >>> with_times("**Expected time**: full days.", {"provenance": {"cpu_s": 500}}, {"smoke": 4.0})
    '**Expected time**: smoke 4 seconds · verdict about 8 minutes · full days.'
    """
    measured = {**short, "verdict": _seconds(about)}

    def told(line: re.Match[str]) -> str:
        parts = dict(part.split(" ", 1) for part in line[2].split(" · ") if " " in part)
        if not set(parts) <= set(_ORDER):
            return line[0]
        parts |= {preset: _told(seconds) for preset, seconds in measured.items() if seconds}
        return line[1] + " · ".join(f"{p} {parts[p]}" for p in _ORDER if p in parts)

    return _LINE.sub(told, text)


def _told(seconds: float) -> str:
    if seconds < 59.5:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' if whole > 1 else ''}"
    return f"about {minutes(seconds)}"


def _seconds(about: Mapping[str, Any], clock: str = "cpu_s") -> float:
    """Of a run whose answers stand: nothing of one that is superseded."""
    return 0.0 if superseded(about) else float(about.get("provenance", {}).get(clock) or 0.0)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds else "–"
