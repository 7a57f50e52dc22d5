"""The names of parameters: as the model has them without wrappers, and by pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from difflib import get_close_matches
from fnmatch import fnmatchcase

from cliplab.checks import described, near

# torch.compile, FSDP, activation checkpointing; DataParallel's "module" may be anybody's name
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Every name without what wrappers put into its path.

    ``module`` is a wrapper's where nothing stands beside it.

    >>> plain_names(["module._orig_mod.0.weight", "module._orig_mod.1.module.weight"])
    {'module._orig_mod.0.weight': '0.weight', 'module._orig_mod.1.module.weight': '1.weight'}
    >>> plain_names(["head.module.weight", "head.scale"])
    {'head.module.weight': 'head.module.weight', 'head.scale': 'head.scale'}
    """
    paths = {name: tuple(name.split(".")) for name in names}
    children: dict[tuple[str, ...], set[str]] = {}
    for path in paths.values():
        for depth, step in enumerate(path):
            children.setdefault(path[:depth], set()).add(step)

    def is_wrapper(path: tuple[str, ...], depth: int) -> bool:
        alone = path[depth] == "module" and len(children[path[:depth]]) == 1
        return path[depth] in WRAPPERS or alone

    kept = {
        name: [step for i, step in enumerate(path[:-1]) if not is_wrapper(path, i)]
        for name, path in paths.items()
    }
    return {name: ".".join([*steps, paths[name][-1]]) for name, steps in kept.items()}


def excluded(
    patterns: str | Iterable[str], names: Mapping[int, Iterable[str]], plain: Mapping[str, str]
) -> set[int]:
    """The keys of ``names`` of which any name, whole or ``plain``, matches any ``fnmatch`` pattern.

    ``ValueError`` with near names for a pattern that matches nothing.
    """
    if not isinstance(patterns, Iterable):
        raise ValueError(f"exclude takes patterns of names, got {described(patterns)}")
    found: set[int] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str):
            raise ValueError(f"exclude takes patterns of names, got {described(pattern)}")
        hit = _matching(pattern, names, plain)
        if not hit:
            raise ValueError(f"exclude={pattern!r} matches no parameter{_near(pattern, plain)}")
        found |= hit
    return found


def first_matches(
    patterns: Iterable[str],
    names: Mapping[int, Iterable[str]],
    plain: Mapping[str, str],
    among: Set[int],
    *,
    elsewhere: bool = False,
) -> dict[int, str]:
    """The first pattern that matches, as for ``excluded``, for every key of ``among``, if any does.

    ``ValueError`` for a pattern that is the first one for no key, unless others lie ``elsewhere``.
    """
    first: dict[int, str] = {}
    for pattern in patterns:
        hit = _matching(pattern, names, plain)
        new = (hit & among) - first.keys()
        if not hit and not elsewhere:
            raise ValueError(
                f"threshold: the pattern {pattern!r} matches no parameter{_near(pattern, plain)}"
            )
        if not new and not elsewhere:
            taken = ", ".join(dict.fromkeys(repr(first[key]) for key in hit & first.keys()))
            why = f"ruled by {taken} before it" if taken else "excluded or not clipped"
            raise ValueError(
                f"threshold: the pattern {pattern!r} rules nothing: all that it matches is {why}"
            )
        first |= dict.fromkeys(new, pattern)
    return first


def _matching(
    pattern: str, names: Mapping[int, Iterable[str]], plain: Mapping[str, str]
) -> set[int]:
    hit = {name for name in plain if fnmatchcase(name, pattern)}
    hit |= {name for name, short in plain.items() if fnmatchcase(short, pattern)}
    return {key for key, own in names.items() if not hit.isdisjoint(own)}


def listed(names: Sequence[str]) -> str:
    """Up to five names, and how many more there are.

    >>> listed(["a", "b"]), listed("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _near(pattern: str, plain: Mapping[str, str]) -> str:
    known = list(dict.fromkeys(plain.values()))
    forms = [form for name in known for form in (name, *_patterns(name))]
    close = get_close_matches(pattern, known, n=5, cutoff=0.0)
    return f"{near(pattern, forms)}; near are {', '.join(close)}"


def _patterns(name: str) -> list[str]:
    """What people write for many names like this one."""
    first, *_, last = name.split(".") * 2
    return [f"{first}.*", f"*.{last}", f"*{last}"]
