"""Which tensors a clipper works on, and which of them share a limit of their own."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cliplab.checks import check_flag, described
from cliplab.parts.names import excluded, first_matches, listed, plain_names

Parameters = (
    nn.Module
    | Tensor
    | Iterable[Tensor]
    | Iterable[tuple[str, Tensor]]
    | Iterable[Mapping[str, Any]]
)


@dataclass
class Group:
    """Tensors that were given together, and what was said of them.

    ``threshold`` is their own (None: the clipper's); without ``clip`` they are left alone;
    ``reduce`` sums the powers of these alone over ranks.
    """

    label: str
    threshold: Any = None
    clip: bool = True
    reduce: Any = None
    params: list[Tensor] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    @property
    def ruled(self) -> bool:
        """Whether anything was said of these tensors that does not hold for all."""
        return self.threshold is not None or not self.clip or self.reduce is not None

    def keep(self, which: Sequence[int]) -> None:
        """Forget all tensors but those at these positions."""
        self.params = [self.params[i] for i in which]
        self.names = [self.names[i] for i in which]


class Selection(NamedTuple):
    """Groups of parameters to clip, and ``(label, reduce, ids of its tensors)`` of the groups that
    gave one.
    """

    groups: list[Group]
    reduces: list[tuple[str, Any, set[int]]]


def select_parameters(
    params: Parameters,
    exclude: str | Sequence[str] | None = None,
    thresholds: Mapping[str, Any] | None = None,
    *,
    elsewhere: bool = False,
) -> Selection:
    """Groups of parameters to clip, every tensor once; ``ValueError`` if there is none.

    Groups with a threshold of their own come last, otherwise the order is kept. Names are those
    that the model has without wrappers. Frozen parameters (``requires_grad=False``) are no part
    of it; plain tensors are, whatever they require. Each pattern of ``exclude`` must match. With
    ``thresholds`` by pattern the groups are those of the patterns, each of the tensors that it is
    the first to match; each must rule some, and every tensor must be ruled. ``elsewhere``: other
    ranks hold tensors, too, so that groups and patterns stay that have none here.
    """
    groups = _groups(params)
    _check(groups, elsewhere)
    names = _names(params, groups)
    plain = plain_names(chain.from_iterable(names.values()))
    for group in groups:
        group.names = [None if name is None else plain[name] for name in group.names]
    groups = [group for group in groups if group.clip]
    _need(groups, "none were given, or all with clip=False")
    reduces = [(g.label, g.reduce, set(map(id, g.params))) for g in groups if g.reduce is not None]
    if exclude is not None:
        if any(name is None for group in groups for name in group.names):
            raise ValueError(f"exclude={described(exclude)} needs a module or named parameters")
        _leave_out(groups, excluded(exclude, names, plain))
        _need(groups, f"exclude={described(exclude)} leaves none")
    if thresholds is not None:
        groups = _by_pattern(groups, thresholds, names, plain, elsewhere)
    _leave_out(groups, {id(p) for group in groups for p in group.params if _is_frozen(p)})
    _need(groups, "all are frozen (requires_grad is False)")
    _leave_out_repeated(groups)
    kept = [group for group in groups if group.params or elsewhere or group.reduce is not None]
    return Selection(sorted(kept, key=lambda g: g.threshold is not None), reduces)


def _groups(params: Parameters) -> list[Group]:
    """All that was given, by groups; what stands in none comes last."""
    groups: list[Group] = []
    loose = Group("group 0")
    for position, entry in enumerate(_entries(params)):
        if not isinstance(entry, Mapping):
            _add(loose, [entry])
            continue
        held = entry.get("params")
        label = str(entry.get("name", f"group {position}"))
        if not isinstance(held, Iterable) or isinstance(held, nn.Module):
            raise ValueError(f"{label} needs its params, tensors, got {described(held)}")
        clip = check_flag(f"clip of {label}", entry.get("clip", True))
        groups.append(Group(label, entry.get("threshold"), clip, entry.get("reduce")))
        _add(groups[-1], [held] if isinstance(held, Tensor) else held)
    return [*groups, loose] if loose.params else groups


def _entries(params: Any) -> Iterable[Any]:
    if isinstance(params, nn.Module):
        return params.named_parameters()
    if isinstance(params, Tensor):
        return [params]
    what = f"expected a module, tensors or groups to clip, got {described(params)}"
    if hasattr(params, "param_groups"):
        raise ValueError(f"{what}: pass the model or optimizer.param_groups")
    if isinstance(params, Mapping):
        raise ValueError(f"{what}: pass a list of groups, or .items() of named tensors")
    if isinstance(params, str) or not isinstance(params, Iterable):
        raise ValueError(what)
    return params


def _add(group: Group, entries: Iterable[Any]) -> None:
    for entry in entries:
        name, tensor = entry if isinstance(entry, tuple) and len(entry) == 2 else (None, entry)
        if not isinstance(tensor, Tensor) or not isinstance(name, str | None):
            hint = ": pass its .parameters()" if isinstance(entry, nn.Module) else ""
            raise ValueError(f"parameters must be tensors, got {described(entry)}{hint}")
        if is_lazy(tensor):
            which = "a parameter" if name is None else name
            raise ValueError(f"{which} is lazy, it has no shape yet: run a forward pass first")
        group.params.append(tensor)
        group.names.append(name)


def _check(groups: Sequence[Group], elsewhere: bool) -> None:
    """Raise ``ValueError`` for a group whose rule holds for nothing, or not alone."""
    owner: dict[int, Group] = {}
    for group in groups:
        here = not elsewhere and group.reduce is None
        if here and group.ruled and not group.params:
            raise ValueError(f"{group.label} has a rule of its own and no parameters")
        for p, name in zip(group.params, group.names, strict=True):
            other = owner.setdefault(id(p), group)
            if other is not group and (other.ruled or group.ruled):
                what = "a parameter" if name is None else name
                raise ValueError(
                    f"{what} stands in {other.label} and in {group.label}: whose rule holds?"
                )


def _names(params: Parameters, groups: Sequence[Group]) -> dict[int, list[str]]:
    """All names of every tensor, by its id: a tied weight has several."""
    names: dict[int, list[str]] = {}
    given = [(n, p) for g in groups for n, p in zip(g.names, g.params, strict=True)]
    named = [(name, p) for name, p in given if name is not None]
    if isinstance(params, nn.Module):
        named += nn.Module.named_parameters(params, remove_duplicate=False)
    for name, p in named:
        names.setdefault(id(p), []).append(name)
    return names


def _by_pattern(
    groups: Sequence[Group],
    thresholds: Mapping[str, Any],
    names: Mapping[int, list[str]],
    plain: Mapping[str, str],
    elsewhere: bool,
) -> list[Group]:
    """A group for each pattern, of the tensors that it is the first to match."""
    held = [(n, p) for g in groups for n, p in zip(g.names, g.params, strict=True)]
    if any(name is None for name, _ in held):
        raise ValueError("threshold by name patterns needs a module or named parameters")
    for group in groups:
        if group.threshold is not None:
            raise ValueError(
                f"threshold by name patterns rules all: {group.label} may have none of its own"
            )
    here = {id(p) for _, p in held}
    pattern_of = first_matches(thresholds, names, plain, here, elsewhere=elsewhere)
    missed = [str(n) for n, p in held if id(p) not in pattern_of and not _is_frozen(p)]
    if missed := list(dict.fromkeys(missed)):
        raise ValueError(
            f"threshold: no pattern matches {listed(missed)}: end with "
            '"*", which rules all others (math.inf: never clipped)'
        )
    ruled = {pattern: Group(pattern, threshold) for pattern, threshold in thresholds.items()}
    for name, p in held:
        if id(p) in pattern_of:
            _add(ruled[pattern_of[id(p)]], [(name, p)])
    return list(ruled.values())


def _need(groups: Sequence[Group], reason: str) -> None:
    if not any(group.params for group in groups):
        raise ValueError(f"no parameters to clip: {reason}")


def _is_frozen(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def _leave_out(groups: Sequence[Group], out: Container[int]) -> None:
    """Forget the tensors with these ids."""
    for group in groups:
        group.keep([i for i, p in enumerate(group.params) if id(p) not in out])


def _leave_out_repeated(groups: Sequence[Group]) -> None:
    seen: set[int] = set()
    for group in groups:
        first = {id(p): i for i, p in reversed(list(enumerate(group.params)))}
        group.keep(sorted(i for key, i in first.items() if key not in seen))
        seen |= first.keys()
