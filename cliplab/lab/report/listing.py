"""What there is: notebooks, their parameters and presets, and the state of their results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.notebook.inspect import told
from cliplab.lab.notebook.parameters import read_parameters
from cliplab.lab.notebook.presets import notebook_name, preset_params, read_presets
from cliplab.lab.notebook.values import Parameter
from cliplab.lab.report.tables import duration
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.keys import closure
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.runs.staleness import other_parameters, why_stale

MOST = 8  # reasons shown for a preset


def describe(
    notebook: Path, notebooks: Path, results: Path, only: str | None = None
) -> dict[str, Any]:
    """A notebook's question, times, parameters, presets, and its records by preset."""
    name = notebook_name(notebook, notebooks)
    presets = read_presets(notebook)
    code = closure(notebook)
    chosen = [only] if only in presets else list(presets)
    texts = [c["source"] for c in load_cells(notebook) if c["cell_type"] == "markdown"]
    lines = [line for text in texts for line in text.splitlines()]
    times = next((line for line in lines if line.startswith("**Expected time**")), "")
    return {
        "notebook": name,
        "code_key": code.key,
        "question": next((line.lstrip("# ") for line in lines if line.startswith("#")), ""),
        "expected_time": re.sub(r"^\*\*Expected time\*\*:?\s*", "", times),
        "presets": list(presets),
        "values": {preset: presets[preset] for preset in chosen},
        "parameters": [asdict(p) for p in read_parameters(notebook).values()],
        "records": {
            preset: _state(results / name / preset, code, preset_params(notebook, preset))
            for preset in chosen
        },
    }


def _state(folder: Path, code: Closure, preset: dict[str, Any]) -> dict[str, Any]:
    """How many runs are done with today's code, with other code, damaged, and failed; and each."""
    state: dict[str, Any] = {"current": 0, "stale": 0, "corrupt": 0, "failed": 0}
    runs: list[dict[str, Any]] = []
    wall_s = 0.0
    for path in sorted(folder.glob("*/record.json")):
        try:
            record = RunRecord.load(path)
        except ValueError as error:
            state["corrupt"] += 1
            runs.append({"run": path.parent.name, "state": "corrupt", "why": [str(error)]})
            continue
        why = why_stale(code, record.made_of, record.provenance, record.code_key)
        word = "stale" if why else "current"
        state[word] += 1
        if why:
            why += other_parameters(record.params, preset)
        else:
            wall_s += record.provenance.get("wall_s") or 0
        runs.append({"run": path.parent.name, "state": word, "why": why})
    errors = list(folder.glob("*/error.txt"))
    state["failed"] = sum(not path.with_name("record.json").exists() for path in errors)
    return state | {"wall_s": round(wall_s, 1), "runs": runs}


def corrupt(entries: Iterable[dict[str, Any]]) -> int:
    """How many records of these descriptions are damaged."""
    return sum(state["corrupt"] for entry in entries for state in entry["records"].values())


def as_text(entry: dict[str, Any], brief: bool = False) -> str:
    """A description for people; a brief one is of what was run alone."""
    lines = [": ".join(filter(None, (entry["notebook"], entry["question"])))]
    if entry["expected_time"] and not brief:
        lines.append(f"  expected time {entry['expected_time']}")
    for preset, state in entry["records"].items():
        counts = [f"{state[n]} {n}" for n in ("current", "stale", "corrupt", "failed") if state[n]]
        if brief and not counts:
            continue
        took = f" ({duration(state['wall_s'])})" if state["current"] else ""
        lines.append(f"  {preset}: {', '.join(counts) or 'not run here'}{took}")
        for run in state["runs"]:
            if run["state"] == "corrupt":
                lines.append(f"    {one_line(run['why'][0])}")
        stale = dict.fromkeys(
            reason for run in state["runs"] if run["state"] == "stale" for reason in run["why"]
        )
        lines += [f"    stale: {reason}" for reason in [*stale][:MOST]]
        if len(stale) > MOST:
            lines.append(f"    stale: {len(stale) - MOST} reasons more (--json)")
        if not brief:
            values = [f"{name}={value!r}" for name, value in entry["values"][preset].items()]
            lines += _wrapped(values)
    if brief:
        return "\n".join(lines)
    if entry["parameters"]:
        lines.append("  parameters (quick):")
    for p in entry["parameters"]:
        declaration, help = told(Parameter(**p))
        lines.append(f"    {declaration}  {help}".rstrip())
    return "\n".join(lines)


def _wrapped(values: Sequence[str]) -> list[str]:
    import textwrap

    text = ", ".join(values)
    return textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="    ")
