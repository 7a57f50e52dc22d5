"""Secondary contrasts: arms against each other with an interval, and no verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cliplab.lab.stats.paired import paired

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["contrasts"]


def contrasts(
    rows: Iterable[Mapping[str, Any]],
    metric: str,
    pairs: Mapping[str, tuple[str, str]],
    *,
    better: str = "lower",
) -> DataFrame:
    """How much better the first arm of every pair is than the second, paired by seed.

    ``pairs`` maps a label to two arms. Returns one row a pair: ``effect`` (Hodges-Lehmann, positive
    where the first arm is better), the ends ``low`` and ``high`` of its 90 % interval, ``n`` pairs.
    Raises ``ValueError`` for an arm that is not there, a seed that only one of them has or that is
    there twice, or a metric that is not finite.

    Args:
        rows: recorded rows, one for each arm and seed.
        metric: column that is compared.
        pairs: two arms by label.
        better: "lower" or "higher".

    >>> rows = [{"arm": a, "seed": s, "loss": s + k} for s in range(6) for k, a in enumerate("xy")]
    >>> print(contrasts(rows, "loss", {"x against y": ("x", "y")}).to_string())
                 effect  low  high  n
    x against y     1.0  1.0   1.0  6
    """
    import pandas

    if better not in ("lower", "higher"):
        raise ValueError(f"better must be 'lower' or 'higher', got {better!r}")
    sign = -1 if better == "lower" else 1
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        own = values.setdefault(row["arm"], {})
        if row["seed"] in own:
            raise ValueError(f"arm {row['arm']!r} has seed {row['seed']} twice")
        own[row["seed"]] = row.get(metric, float("nan"))
    table = {}
    for label, (first, second) in pairs.items():
        for arm in (first, second):
            if arm not in values:
                raise ValueError(f"{label}: no rows of arm {arm!r}")
        a, b = values[first], values[second]
        if a.keys() != b.keys():
            raise ValueError(f"{label}: seeds {sorted(a.keys() ^ b.keys())} are in one arm only")
        estimate = paired([sign * (float(a[seed]) - float(b[seed])) for seed in sorted(a)])
        table[label] = {name: getattr(estimate, name) for name in ("effect", "low", "high", "n")}
    return pandas.DataFrame.from_dict(table, orient="index")
