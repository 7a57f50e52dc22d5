"""Which tensors a clipper works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def select_parameters(params: Parameters, exclude: str | Sequence[str] | None) -> list[Tensor]:
    """Parameters to clip, in order, each once; ``ValueError`` if there is none."""
    entries: Iterable[Any] = params if isinstance(params, Iterable) else ()
    if isinstance(params, nn.Module):
        entries = params.named_parameters()
    elif isinstance(params, Tensor):
        entries = [params]
    named: list[tuple[str | None, Tensor]] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            if "threshold" in entry:
                raise ValueError(
                    'a group\'s own "threshold" is not supported: use one clipper each'
                )
            if entry.get("clip", True):
                held = entry["params"]
                named += [(None, p) for p in ([held] if isinstance(held, Tensor) else held)]
        else:
            named.append((entry[0], entry[1]) if isinstance(entry, tuple) else (None, entry))
    if exclude is not None:
        if any(name is None for name, _ in named):
            raise ValueError(f"exclude={exclude!r} needs a module or named parameters")
        patterns = [exclude] if isinstance(exclude, str) else list(exclude)
        named = [
            (name, p) for name, p in named if not any(fnmatchcase(str(name), x) for x in patterns)
        ]
    for _, p in named:
        if not isinstance(p, Tensor):
            raise ValueError(f"parameters must be tensors, got {type(p).__name__}")
    unique = list({id(p): p for _, p in named}.values())
    if not unique:
        raise ValueError("no parameters to clip")
    return unique
