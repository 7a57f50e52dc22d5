"""How a history and a report look: a line of text, and a table in a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from cliplab.checks import counted
from cliplab.history.ring import Ring
from cliplab.history.summary import summarise

MOST = 20  # rows of a table


def history_line(history: Ring) -> str:
    """Steps, parts, what happened to them, and how large the norms were."""
    summary = summarise(history)
    steps, first = summary["steps"], summary["first_step"]
    words = [counted(steps, "step") + f" from {first} on" * (first > 0)]
    if not history.scalar and steps:
        words.append(counted(len(history.part_names), "part"))
    if steps:
        words.append(f"{summary['clip_fraction']:.0%} clipped")
    words += [f"{summary[k]} {k}" for k in ("skipped", "nonfinite") if summary[k]]
    known = {"norm median": "norm_median", "norm p99": "norm_p99"}
    known["update norm median"] = "update_norm_median"
    for name, key in known.items():
        if not math.isnan(summary.get(key, math.nan)):
            words.append(f"{name} {summary[key]:.3g}")
    return f"{type(history).__name__}({', '.join(words)})"


def history_table(history: Ring) -> str:
    """The summary as an HTML table, then the parts that were clipped most."""
    summary = summarise(history)
    shares: dict[str, float] = summary.pop("clip_fraction_by_part", {})
    rows = [(name, _number(value)) for name, value in summary.items()]
    ordered = sorted(shares.items(), key=lambda part: -part[1])
    rows += [(f"clip_fraction of {name}", _number(share)) for name, share in ordered]
    return html_table(("", type(history).__name__), rows)


def report_line(name: str, columns: dict[str, Tensor]) -> str:
    """The columns of a report: a number each, or their range over the parts."""
    words = []
    for key, column in columns.items():
        if column.ndim == 0:
            words.append(f"{key}={_number(column.item())}")
        elif column.dtype.is_floating_point and len(column):
            low, high = (_number(float(end)) for end in (column.min(), column.max()))
            words.append(f"{key}={low}" + f"..{high}" * (low != high))
        else:
            words.append(f"{key}={int(column.sum())} of {len(column)}")
    return f"{name}({', '.join(words)})"


def report_table(columns: dict[str, Tensor]) -> str:
    """The columns of a report as an HTML table, a row for each part."""
    cells = [[_number(x) for x in column.reshape(-1).tolist()] for column in columns.values()]
    return html_table(tuple(columns), list(zip(*cells, strict=True)))


def html_table(head: Sequence[str], rows: Sequence[Iterable[str]], *, text: bool = False) -> str:
    """A table, its first rows if there are many; one of ``text`` is whole, and stands to the left.

    >>> html_table(["name", "size"], [("weight", "a > b")])
    '<table><tr><th>name</th><th>size</th></tr><tr><td>weight</td><td>a &gt; b</td></tr></table>'
    """
    shown, td = (rows, '<td style="text-align: left">') if text else (rows[:MOST], "<td>")
    lines = [f"<th>{'</th><th>'.join(map(html.escape, head))}</th>"]
    lines += ["".join(f"{td}{html.escape(cell)}</td>" for cell in row) for row in shown]
    if len(rows) > len(shown):
        lines.append(f'<td colspan="{len(head)}">and {len(rows) - len(shown)} more</td>')
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
