"""By this path notebooks import from :mod:`cliplab.lab.stats.scores`."""

from cliplab.lab.stats.scores import collapsed, interquartile_mean, probability_of_improvement

__all__ = ["collapsed", "interquartile_mean", "probability_of_improvement"]
