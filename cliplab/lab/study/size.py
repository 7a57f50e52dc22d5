"""How large a study is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SIZES", "Size", "size_named", "size_of"]

BLOCK = 64  # seeds that a configuration may use: those of screening, then of finalists, of picks


@dataclass(frozen=True)
class Size:
    """What a study spends: see docs/study.md for what each number does to the errors."""

    configurations: int  # K draws of everything that is tuned
    screening: int  # S seeds of each
    finalists: int  # m configurations of each way that get fresh seeds
    fresh: int  # n fresh seeds of each finalist
    picks: int = 3  # finalists whose failures are counted
    runs: tuple[int, int] = (0, 0)  # R of a way's picks together, first and extended; 0: no stage

    def __post_init__(self) -> None:
        counts = (self.configurations, self.screening, self.finalists, self.fresh, self.picks)
        if min(counts) < 1 or not self.picks <= self.finalists <= self.configurations:
            raise ValueError(f"{self}: expected 1 <= picks <= finalists <= configurations")
        if any(r % self.picks for r in self.runs) or not 0 <= self.runs[0] <= self.runs[1]:
            raise ValueError(f"runs = {self.runs}, expected two multiples of {self.picks}, rising")
        if self.screening + self.fresh + self.runs[1] // self.picks > BLOCK:
            raise ValueError(f"{self}: a configuration has {BLOCK} seeds at most")

    @property
    def best_of(self) -> int:
        """How many configurations a user is taken to try: k, a third of K."""
        return max(2, round(self.configurations / 3))

    @property
    def decides(self) -> bool:
        """Whether a verdict may come of it: failures are counted, and edges can be seen."""
        return self.runs[1] > 0 and self.configurations >= 24


SIZES = {
    "full": Size(48, 2, 6, 12, 3, (33, 129)),
    "full32": Size(32, 2, 6, 12, 3, (33, 129)),
    "half": Size(24, 2, 6, 12, 3, (33, 129)),
    "small": Size(12, 1, 3, 4, 3),
    "tiny": Size(4, 1, 2, 2, 2),
}


def size_named(size: str | Size) -> Size:
    """The size of that name; ``ValueError`` if there is none."""
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise ValueError(f"size = {size!r}, expected one of {', '.join(SIZES)}")
    return SIZES[size]


def size_of(configurations: int) -> Size:
    """The size that has so many configurations; ``ValueError`` if there is none."""
    found = [size for size in SIZES.values() if size.configurations == configurations]
    if not found:
        known = ", ".join(str(size.configurations) for size in SIZES.values())
        raise ValueError(f"{configurations} configurations, expected one of {known}")
    return found[0]
