"""By this path notebooks import from :mod:`cliplab.lab.stats.contrasts`."""

from cliplab.lab.stats.contrasts import contrasts

__all__ = ["contrasts"]
