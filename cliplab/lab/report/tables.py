"""Numbers as people write them, and the summaries that the report and RESULTS.md share."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliplab.lab.stats.paired import Estimate

Row = dict[str, Any]
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_number(value: Any) -> bool:
    """Whether this is a number, or a truth value, of which there can be a mean.

    >>> [is_number(x) for x in (0, 1.5, True, float("nan"), 10**400, "1", None)]
    [True, True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and abs(value) < 1e300


def number(value: float | None) -> str:
    """Three significant digits, a true minus sign, a dash for nothing.

    >>> [number(x) for x in (0.5, -12.34, 99.96, 1234.5, 4.1e-7, 24, None)]
    ['0.500', '−12.3', '100', '1,234', '4.10×10⁻⁷', '24', '–']
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        text = f"{value:,}"
    elif value == 0:
        text = "0"
    elif not math.isfinite(value):
        text = str(value).replace("inf", "∞")
    elif 1e-3 <= abs(value) < 999.5:
        text = f"{value:#.3g}".rstrip(".")
    elif 999.5 <= abs(value) < 1e6:
        text = f"{value:,.0f}"
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value: three digits, but nothing below 0.001."""
    return "< 0.001" if p is not None and p < 0.001 else number(p)


def count(k: int, n: int) -> str:
    """How many of n, in words where that is plainer.

    >>> count(0, 12), count(12, 12), count(5, 12)
    ('none', 'all 12', '5 of 12')
    """
    return "none" if k == 0 else f"all {n}" if k == n else f"{k} of {n}"


def interval(estimate: float | None, low: float | None, high: float | None) -> str:
    """An estimate with its interval: ``0.120 [0.0500, 0.190]``."""
    if low is None or high is None or not math.isfinite(high - low):  # too few seeds for one
        return number(estimate)
    return f"{number(estimate)} [{number(low)}, {number(high)}]"


def effect(estimate: Estimate | None, unit: str = "") -> str:
    """A difference with its interval and unit, signed; a dash for none.

    >>> from cliplab.lab.stats.paired import Estimate
    >>> effect(Estimate(0.12, -0.05, 0.19, 0.1, 8), "nats")
    '+0.120 [−0.0500, +0.190] nats'
    """
    return "–" if estimate is None else f"{_signed(estimate, number)} {unit}".rstrip()


def points(estimate: Estimate | None) -> str:
    """A difference of shares with its interval, in percentage points; a dash for none.

    >>> from cliplab.lab.stats.paired import Estimate
    >>> points(Estimate(0.14, 0.09, 0.194, 0.001, 258))
    '+14.0 [+9.0, +19.4] points'
    """
    return "–" if estimate is None else f"{_signed(estimate, _points)} points"


def percent(share: float) -> str:
    """A share in whole percent: ``79 %``."""
    return f"{100 * share:.0f} %"


def share(found: Estimate) -> str:
    """A share with its interval: ``52 % [43 %, 60 %]``."""
    return f"{percent(found.effect)} [{percent(found.low)}, {percent(found.high)}]"


def _signed(estimate: Estimate, told: Callable[[float], str]) -> str:
    effect, *ends = (
        f"+{told(value)}" if value > 0 else told(value)
        for value in (estimate.effect, estimate.low, estimate.high)
    )
    has_interval = math.isfinite(estimate.high - estimate.low)  # not with too few seeds
    return f"{effect} [{', '.join(ends)}]" if has_interval else effect


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(12.3), duration(200), duration(7500)
    ('12 s', '3 min 20 s', '2 h 05 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def minutes(seconds: float) -> str:
    """A time in whole minutes: ``1 minute``, and below that ``less than a minute``."""
    whole = round(seconds / 60)
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole else "less than a minute"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as columns of equal width, each in one line.

    >>> print(aligned([("a", "bc"), ("abc", "d")]))
    a    bc
    abc  d
    """
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def flat(nested: Mapping[str, Any] | None, prefix: str = "") -> dict[str, str]:
    """Nested dictionaries as one level of text.

    >>> flat({"versions": {"torch": "2.6"}, "git_dirty": False})
    {'versions torch': '2.6', 'git dirty': 'no'}
    """
    lines: dict[str, str] = {}
    for key, value in (nested or {}).items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping):
            lines |= flat(value, f"{name} ")
        else:
            lines[name] = number(value) if isinstance(value, float | bool | None) else str(value)
    return lines


def across_models(rows: list[Row], metric: str | None) -> list[Row]:
    """One line a (model, task, arm): divergence, norms, clipping, and the metric's mean."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not row["arm"].startswith("A/A"):
            groups[str(row.get("model") or ""), str(row.get("task") or ""), row["arm"]].append(row)
    return [
        {
            "model": model,
            "task": task,
            "arm": arm,
            "n": len(group),
            "diverged": count(len([r for r in group if r.get("diverged")]), len(group)),
            "norm": number(_summary(median, group, "norm_median")),
            "clipped": _percent(_summary(fmean, group, "clip_fraction")),
            "excess": number(_summary(fmean, group, "excess")),
            "metric": _metric(group, metric),
        }
        for (model, task, arm), group in groups.items()
    ]


def _values(rows: list[Row], column: str | None) -> list[Any]:
    return [row[column] for row in rows if is_number(row.get(column))] if column else []


def _summary(statistic: Any, rows: list[Row], column: str | None) -> float | None:
    values = _values(rows, column)
    return float(statistic(values)) if values else None


def _metric(rows: list[Row], metric: str | None) -> str:
    values = _values(rows, metric)
    if values and all(isinstance(v, bool) for v in values):
        return count(sum(values), len(values))
    return number(_summary(fmean, rows, metric))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{number(100 * share)} %" if share else "never"


def noise_floor(rows: list[Row], metric: str | None) -> list[Row]:
    """Each A/A arm against the arm its ``of`` column names: what no effect looks like."""
    from cliplab.lab.stats.paired import mcnemar, paired

    partner = {(row["arm"], row["seed"]): row.get(metric or "") for row in rows}
    pairs: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for row in rows:
        if row["arm"].startswith("A/A"):
            a, b = row.get(metric or ""), partner.get((str(row.get("of")), row["seed"]))
            if is_number(a) and is_number(b):
                pairs[str(row["of"])].append((a, b))
    table = []
    for of, values in pairs.items():
        first, second = zip(*values, strict=True)
        differences = [float(a) - float(b) for a, b in values]
        binary = all(isinstance(v, bool) for v in (*first, *second))
        estimate = mcnemar(first, second) if binary else paired(differences)
        table.append(
            {
                "of": of,
                "metric": metric,
                "n": estimate.n,
                "difference": interval(estimate.effect, estimate.low, estimate.high),
                "largest": max(map(abs, differences)),
            }
        )
    return table
