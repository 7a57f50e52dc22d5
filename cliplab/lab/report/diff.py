"""Which numbers are not the same on two sides: bit for bit, by experiment, row and column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cliplab.lab.attest.compare import same
from cliplab.lab.report.export import finite
from cliplab.lab.report.sides import Experiment, Item, Side
from cliplab.lab.report.tables import aligned

MOST = 20  # lines shown of an experiment


@dataclass(frozen=True)
class Change:
    """A number with its name, on either side; None where it is not."""

    item: Item
    name: str
    old: Any
    new: Any


@dataclass
class Comparison:
    """One experiment on two sides, or (``only``: the name of a side) on one.

    ``settings`` tell it from others of its notebook and preset.
    """

    notebook: str
    preset: str
    settings: dict[str, Any]
    only: str = ""
    parameters: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    columns_old: list[str] = field(default_factory=list)  # of no row on the other side
    columns_new: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    only_old: list[Item] = field(default_factory=list)
    only_new: list[Item] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (
            self.only
            or self.parameters
            or (self.columns_old or self.columns_new)
            or (self.changes or self.only_old or self.only_new)
        )


def compare(old: Side, new: Side) -> list[Comparison]:
    """Every experiment of either side; those of other parameters are one if there is no choice."""
    kinds = old.kinds & new.kinds
    groups: dict[tuple[str, str], list[tuple[Experiment | None, Experiment | None]]]
    groups = defaultdict(list)
    for key in sorted({*old.experiments, *new.experiments}):
        groups[key[:2]].append((old.experiments.get(key), new.experiments.get(key)))
    found = []
    for pairs in groups.values():
        varying = _varying([one for pair in pairs for one in pair if one])
        found += [_compared(a, b, varying, kinds, (old.name, new.name)) for a, b in _paired(pairs)]
    return found


def _paired(
    pairs: Sequence[tuple[Experiment | None, Experiment | None]],
) -> list[tuple[Experiment | None, Experiment | None]]:
    """With the one that is only on the one side and the one that is only on the other as a pair."""
    alone = [pair for pair in pairs if None in pair]
    olds, news = [a for a, _ in alone if a], [b for _, b in alone if b]
    if len(olds) == len(news) == 1:
        return [*(pair for pair in pairs if None not in pair), (olds[0], news[0])]
    return list(pairs)


def _varying(experiments: Sequence[Experiment]) -> list[str]:
    names = dict.fromkeys(name for one in experiments for name in one.params)
    return [n for n in names if len({repr(one.params.get(n)) for one in experiments}) > 1]


def _compared(
    old: Experiment | None,
    new: Experiment | None,
    varying: Sequence[str],
    kinds: frozenset[str],
    names: tuple[str, str],
) -> Comparison:
    one = old or new
    assert one is not None
    settings = {name: one.params[name] for name in varying if name in one.params}
    if old is None or new is None:
        return Comparison(one.notebook, one.preset, settings, only=names[old is None])
    parameters = {
        name: (old.params.get(name), new.params.get(name))
        for name in {**old.params, **new.params}
        if not same(old.params.get(name), new.params.get(name))
    }
    settings = {name: value for name, value in settings.items() if name not in parameters}
    found = Comparison(one.notebook, one.preset, settings, parameters=parameters)
    theirs = {item: columns for item, columns in old.items.items() if item[0] in kinds}
    ours = {item: columns for item, columns in new.items.items() if item[0] in kinds}
    before, after = _columns(theirs), _columns(ours)
    if before and after:  # rows are there on both sides
        found.columns_old = sorted(before - after)
        found.columns_new = sorted(after - before)
    alone = {*found.columns_old, *found.columns_new}
    for item, columns in theirs.items():
        if item in ours:
            changes = _changes(item, columns, ours[item])
            found.changes += [c for c in changes if item[0] != "row" or c.name not in alone]
    found.only_old = [item for item in theirs if item not in ours]
    found.only_new = [item for item in ours if item not in theirs]
    return found


def _columns(items: Mapping[Item, Mapping[str, Any]]) -> set[str]:
    """The names of what is measured in rows."""
    rows = (columns for item, columns in items.items() if item[0] == "row")
    return {name for row in rows for name, value in row.items() if value is not None}


def _changes(item: Item, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before, after = dict(_leaves("", old)), dict(_leaves("", new))
    for name in {**before, **after}:
        x, y = before.get(name), after.get(name)
        if not same(x, y):
            yield Change(item, name, x, y)


def _leaves(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The plain values in a nested one, by their way there."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{where} {name}".strip(), inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(f"{where}[{i}]", inner)
    else:
        yield where, value


def as_text(found: Sequence[Comparison], names: tuple[str, str], most: int | None = MOST) -> str:
    """What differs, at most ``most`` lines an experiment; and how many are the same."""
    different = [one for one in found if not one.same]
    parts = [_text(one, names, most) for one in different]
    counts = f"{len(found) - len(different)} the same, {len(different)} different"
    return "\n".join([*parts, counts])


def _text(one: Comparison, names: tuple[str, str], most: int | None) -> str:
    settings = (f"{name}={value!r}" for name, value in one.settings.items())
    label = " ".join([one.notebook, one.preset, *settings])
    if one.only:
        return f"{label}: only in {one.only}"
    counts = {
        "parameters differ": len(one.parameters),
        "columns differ": len(one.columns_old) + len(one.columns_new),
        "numbers differ": len(one.changes),
        f"only in {names[0]}": len(one.only_old),
        f"only in {names[1]}": len(one.only_new),
    }
    head = f"{label}: {', '.join(f'{n} {what}' for what, n in counts.items() if n)}"
    lines = [
        *(("parameter", n, f"{_word(x)} → {_word(y)}") for n, (x, y) in one.parameters.items()),
        *(("column", name, f"only in {names[0]}") for name in one.columns_old),
        *(("column", name, f"only in {names[1]}") for name in one.columns_new),
        *((_called(c.item), c.name, f"{_word(c.old)} → {_word(c.new)}") for c in one.changes),
        *((_called(item), "", f"only in {names[0]}") for item in one.only_old),
        *((_called(item), "", f"only in {names[1]}") for item in one.only_new),
    ]
    shown = aligned(lines[:most]).splitlines()
    if len(lines) > len(shown):
        shown.append(f"{len(lines) - len(shown)} lines more (--all)")
    return "\n  ".join([head, *shown])


def _called(item: Item) -> str:
    """An item in words.

    >>> _called(("row", "clip 1", 3000, 1)), _called(("value", "loss", 0, 4))
    ("arm 'clip 1', seed 3000", 'value loss (seeds 0 to 3)')
    """
    kind, name, *more = item
    if kind == "row":
        again = f" (no. {more[1]})" if more[1] > 1 else ""
        return f"arm {name!r}, seed {more[0]}{again}"
    if kind == "curve":
        return f"curve {more[1]} of arm {name!r}, seed {more[0]}"
    seeds = f" (seeds {more[0]} to {more[0] + more[1] - 1})" if len(more) == 2 else ""
    return f"{kind} {name}{seeds}"


def _word(value: Any) -> str:
    return "–" if value is None else repr(value)


def as_data(found: Sequence[Comparison], names: tuple[str, str]) -> list[dict[str, Any]]:
    """The same for programs, as JSON values."""
    told = [
        {
            "notebook": one.notebook,
            "preset": one.preset,
            "settings": one.settings,
            "same": one.same,
            "only": one.only or None,
            "parameters": {n: list(pair) for n, pair in one.parameters.items()},
            "columns_old": one.columns_old,
            "columns_new": one.columns_new,
            "changes": [
                {"of": list(c.item), "name": c.name, "old": c.old, "new": c.new}
                for c in one.changes
            ],
            "only_old": [list(item) for item in one.only_old],
            "only_new": [list(item) for item in one.only_new],
        }
        for one in found
    ]
    plain: list[dict[str, Any]] = finite(told)
    return plain
