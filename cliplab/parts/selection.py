"""Which tensors a clipper works on, and which of them share a limit of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

Parameters = (
    nn.Module
    | Tensor
    | Iterable[Tensor]
    | Iterable[tuple[str, Tensor]]
    | Iterable[Mapping[str, Any]]
)


@dataclass
class Group:
    """Tensors that were given together, and the limit they were given (None: the clipper's)."""

    label: str
    threshold: Any = None
    params: list[Tensor] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)


def select_parameters(params: Parameters, exclude: str | Sequence[str] | None) -> list[Group]:
    """Groups of parameters to clip, every tensor once; ``ValueError`` if there is none.

    Groups with a threshold of their own come last, otherwise the order is kept.
    """
    if not isinstance(params, nn.Module | Iterable):
        raise ValueError(f"expected a module, tensors or groups to clip, got {params!r}")
    entries: Iterable[Any] = params if isinstance(params, Iterable) else ()
    if isinstance(params, nn.Module):
        entries = params.named_parameters()
    elif isinstance(params, Tensor):
        entries = [params]
    groups: list[Group] = []
    loose = Group("group 0")
    for position, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            _add(loose, [entry])
        elif entry.get("clip", True):
            held = entry.get("params")
            if not isinstance(held, Iterable):
                raise ValueError(f"a group needs its params, tensors, got {entry!r}")
            label = str(entry.get("name", f"group {position}"))
            groups.append(Group(label, entry.get("threshold")))
            _add(groups[-1], [held] if isinstance(held, Tensor) else held)
    groups.append(loose)
    if exclude is not None:
        patterns = [exclude] if isinstance(exclude, str) else list(exclude)
        for group in groups:
            _leave_out(group, patterns)
    seen: set[int] = set()
    for group in groups:
        own = [i for i, p in enumerate(group.params) if not _known(p, seen)]
        group.params = [group.params[i] for i in own]
        group.names = [group.names[i] for i in own]
    found = sorted((g for g in groups if g.params), key=lambda g: g.threshold is not None)
    if not found:
        raise ValueError("no parameters to clip")
    return found


def _add(group: Group, entries: Iterable[Any]) -> None:
    for entry in entries:
        name, tensor = entry if isinstance(entry, tuple) else (None, entry)
        if not isinstance(tensor, Tensor):
            raise ValueError(f"parameters must be tensors, got {type(tensor).__name__}")
        group.params.append(tensor)
        group.names.append(name)


def _leave_out(group: Group, patterns: Sequence[str]) -> None:
    if any(name is None for name in group.names):
        raise ValueError(f"exclude={list(patterns)!r} needs a module or named parameters")
    kept = [
        i
        for i, name in enumerate(group.names)
        if not any(fnmatchcase(str(name), x) for x in patterns)
    ]
    group.params = [group.params[i] for i in kept]
    group.names = [group.names[i] for i in kept]


def _known(tensor: Tensor, seen: set[int]) -> bool:
    known = id(tensor) in seen
    seen.add(id(tensor))
    return known
