"""The page of a race: one file that loads nothing."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from cliplab.lab.race.figure import cloud, plane
from cliplab.lab.race.race import Raced
from cliplab.lab.race.summary import Summary
from cliplab.lab.report import tables
from cliplab.lab.report.environment import environment
from cliplab.lab.runs.csvrows import write_rows
from cliplab.lab.runs.files import write_atomic

__all__ = ["write_page"]

PAGE, TABLE = "race.html", "rows.csv"


def write_page(raced: Raced, summary: Summary) -> Path:
    """Write page and table into the race's folder; the page."""
    folder = raced.asked.folder
    write_atomic(folder / TABLE, write_rows(raced.rows))
    write_atomic(folder / PAGE, _html(raced, summary))
    return folder / PAGE


def _html(raced: Raced, summary: Summary) -> str:
    from markupsafe import Markup, escape

    pages = environment(Path(__file__).parent)
    pages.filters["options"] = lambda text: Markup(_options(str(escape(text))))
    return pages.get_template("race.html.j2").render(
        file=PAGE,
        summary=summary,
        verdict=raced.verdict,
        target=str(raced.asked.target),
        size=raced.size,
        size_name=raced.size_name,
        n_rows=len(raced.rows),
        repeat=raced.asked.repeat,
        date=time.strftime("%Y-%m-%d"),
        cloud=cloud(raced),
        plane=plane(raced),
        table=TABLE,
        settings=_settings(raced),
    )


def _options(text: str) -> str:
    """A sentence whose options are code, which no line breaks."""
    return re.sub(r"--[a-z]+", r"<code>\g<0></code>", text)


def _settings(raced: Raced) -> dict[str, Any]:
    """What the race was run with."""
    asked = raced.asked
    margin = "not given" if asked.margin is None else tables.number(asked.margin)
    chance = tables.number(raced.chance) + (" (measured)" if asked.chance is None else "")
    return {
        "learning rates": f"{asked.lr[0]:g} to {asked.lr[1]:g}",
        "thresholds": f"{asked.threshold[0]:g} to {asked.threshold[1]:g}",
        "margin": margin,
        "chance": chance,
        "lost": "not given" if asked.lost is None else tables.number(asked.lost),
        "seconds a run": tables.number(raced.run_s),
        "jobs": asked.jobs,
        "repeat": asked.repeat,
        "first seed": asked.first_seed,
    }
