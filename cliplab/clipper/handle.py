"""What a clipper at work by itself is ended by, and what it must not meet then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from cliplab.clipper.engine import Engine


class Handle(ABC):
    """A clipper at work; a context manager, or ``remove()`` it."""

    where = "attached to an optimizer"

    @abstractmethod
    def remove(self) -> None:
        """Stop clipping."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def refuse_at_work(engine: Engine, what: str) -> None:
    """``RuntimeError`` for a clipper that clips by itself: the same gradient once more."""
    if engine.target == "update":
        raise RuntimeError(f'{what} clips gradients, the clipper has target="update": attach it')
    if engine.attached is not None:
        raise RuntimeError(
            f"the clipper is at work by itself ({engine.attached!r}), with {what} it would clip "
            f"twice: detach() it before, or leave {what} out"
        )
