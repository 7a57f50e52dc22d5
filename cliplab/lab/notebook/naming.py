"""Which notebook a word means, of the names that there are."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches

__all__ = ["meant", "only"]


def meant(word: str, names: Collection[str]) -> list[str]:
    """The names meant: the one that it is, else those of its number, else that begin with it, else
    that have it among their words.

    A name is a path without its suffix, as ``sub/03_chess``; its folder need not be given.

    >>> names = ["01_choosing_a_rate", "10_chess", "sub/03_Go_boards"]
    >>> [meant(word, names) for word in ("10_chess", "1", "03", "sub", "go", "a-rate")]
    [['10_chess'], ['01_choosing_a_rate'], ['sub/03_Go_boards'], ['sub/03_Go_boards'], \
['sub/03_Go_boards'], ['01_choosing_a_rate']]
    """
    if not word:
        return []
    stems = {name: name.rpartition("/")[2] for name in names}
    return (
        [name for name in names if name == word]
        or [name for name, stem in stems.items() if stem == word]
        or [name for name, stem in stems.items() if word.isdecimal() and _number(stem) == int(word)]
        or [name for name, stem in stems.items() if name.startswith(word) or stem.startswith(word)]
        or [name for name, stem in stems.items() if f"_{_words(word)}_" in f"_{_words(stem)}_"]
    )


def only(word: str, found: Sequence[str], names: Collection[str]) -> str:
    """The one name that was found; ``ValueError`` with all that were, else with the nearest.

    >>> only("ches", [], ["10_chess", "11_go"])
    Traceback (most recent call last):
    ValueError: 'ches' matches no notebook: the nearest is 10_chess
    """
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{word!r} matches {len(found)} notebooks: {', '.join(found)}")
    known = {part: name for name in names for part in (name, *_words(name).split("_"))}
    close = get_close_matches(word.lower(), known, n=1)
    told = f"the nearest is {known[close[0]]}" if close else ", ".join(names) or "none found"
    raise ValueError(f"{word!r} matches no notebook: {told}")


def _number(stem: str) -> int | None:
    number = re.match(r"\d+", stem)
    return int(number[0]) if number else None


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_")
