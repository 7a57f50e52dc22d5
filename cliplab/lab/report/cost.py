"""What the published answers cost to compute, pilots included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published

__all__ = ["cost"]


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
        rows.append({"Notebook": link(name), **{k: _minutes(s) for k, s in spent.items()}})
    if not rows:
        return ""
    said = [f"In all {total / 3600:.1f} core-hours."]
    if untimed:
        said.append(f"{untimed} pilots were registered without their time, and are not in it.")
    said.append(
        "Scratch runs, which shaped the studies and are named in "
        "[records/DEVIATIONS.md](records/DEVIATIONS.md), were not timed."
    )
    return f"{' '.join(said)}\n\nCore-minutes:\n\n{markdown(rows)}"


def _seconds(about: Mapping[str, Any]) -> float:
    return float(about.get("provenance", {}).get("cpu_s") or 0.0)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds else "–"
