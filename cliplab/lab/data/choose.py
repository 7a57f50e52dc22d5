"""How every data set is asked for by its name."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def choose(readers: Mapping[str, T], name: str, what: str) -> T:
    """Return what has this name; a ``ValueError`` with all names for another one.

    >>> choose({"penn": 1, "fixture": 2}, "brown", "corpus")
    Traceback (most recent call last):
    ValueError: no corpus 'brown': choose one of penn, fixture
    """
    if name not in readers:
        raise ValueError(f"no {what} {name!r}: choose one of {', '.join(readers)}")
    return readers[name]
