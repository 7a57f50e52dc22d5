"""An error in one line."""

from __future__ import annotations


def one_line(error: object) -> str:
    """What an error says, without line breaks; its type if it says nothing.

    >>> one_line(ValueError("too\\n  large")), one_line(TimeoutError())
    ('too large', 'TimeoutError')
    """
    return " ".join(str(error).split()) or type(error).__name__
