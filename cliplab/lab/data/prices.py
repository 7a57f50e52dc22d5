"""Daily returns of stock indices, and a simulated market that needs no network."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.data.choose import choose
from cliplab.lab.data.fetch import DataSet, fetch

_SOURCE = (
    "daily prices 1999-2018 as sourced from Yahoo Finance by the authors of the Python package "
    "arch (NCSA licence); the prices are their providers'."
)
SP500 = DataSet(
    name="sp500",
    package="arch",
    version="8.0.0",
    member="arch/data/sp500/sp500.csv.gz",
    sha256="1e028cbb9c400cc018c816ccc439b33c919387e726c3ed5ca2c05c82746059de",
    size=990_702,
    licence="NCSA (the package); prices: Yahoo Finance",
    notice=f"S&P 500 index, {_SOURCE}",
)
NASDAQ = DataSet(
    name="nasdaq",
    package="arch",
    version="8.0.0",
    member="arch/data/nasdaq/nasdaq.csv.gz",
    sha256="b2009535343ebb14e0aa11ed086788d2997a416ffe4f9450eed9a561ae30ac59",
    size=990_702,
    licence="NCSA (the package); prices: Yahoo Finance",
    notice=f"NASDAQ Composite index, {_SOURCE}",
)
_DATA_SETS = {dataset.name: dataset for dataset in (SP500, NASDAQ)}


@dataclass(frozen=True, eq=False)
class DailyReturns:
    """Percent log returns [N], ``100 ln(p_t / p_{t-1})``, each with the date [N] of day t."""

    name: str
    dates: NDArray[np.datetime64]
    percent: NDArray[np.float64]
    notice: str

    def __len__(self) -> int:
        return len(self.percent)

    @property
    def years(self) -> NDArray[np.int64]:
        """The calendar year of every day: [N]."""
        return self.dates.astype("datetime64[Y]").astype(np.int64) + 1970

    def first_day_of(self, year: int) -> int:
        """Position of the first trading day of `year` (or after it); N if there is none."""
        return int(np.searchsorted(self.years, year))


def daily_returns(name: str = "sp500") -> DailyReturns:
    """Percent log returns of the adjusted close: `sp500`, `nasdaq` or `fixture`.

    * `sp500`, `nasdaq`: 5,030 returns from 1999-01-05 to the end of 2018.
    * `fixture`: as many weekdays of a simulated GARCH(1,1) with Student-t innovations,
      ``r_t = s_t e_t``, ``s_t^2 = 0.02 + 0.10 r_{t-1}^2 + 0.88 s_{t-1}^2``, e_t of 6 degrees of
      freedom and variance 1; always the same. For smoke tests, not for claims.

    Raises `ValueError` for an unknown name, `DataUnavailable` where prices cannot be fetched.
    """
    readers = {"sp500": _index, "nasdaq": _index, "fixture": _fixture}
    return choose(readers, name, "returns")(name)


def _index(name: str) -> DailyReturns:
    import pandas

    dataset = _DATA_SETS[name]
    table = pandas.read_csv(fetch(dataset), usecols=["Date", "Adj Close"])
    days = pandas.to_datetime(table["Date"], format="%m/%d/%Y").to_numpy()
    prices = table["Adj Close"].to_numpy(dtype=float)
    dates = days.astype("datetime64[D]")
    if not (np.diff(dates).astype(int) > 0).all() or not (prices > 0).all():
        raise ValueError(f"{dataset}: expected rising dates and positive prices")
    return DailyReturns(name, dates[1:], 100 * np.diff(np.log(prices)), dataset.notice)


def _fixture(name: str) -> DailyReturns:
    uniform = random.Random(0).random  # the one part of `random` that never changes
    normal = NormalDist().inv_cdf
    returns, variance = [], 1.0
    for _ in range(5_030):
        chi2 = -2 * math.log(uniform() * uniform() * uniform() + 1e-300)  # of 6 degrees of freedom
        student = normal(min(max(uniform(), 1e-12), 1 - 1e-12)) * math.sqrt(6 / chi2)
        returns.append(math.sqrt(variance * 4 / 6) * student)
        variance = 0.02 + 0.10 * returns[-1] ** 2 + 0.88 * variance
    dates = np.busday_offset(np.datetime64("1999-01-05"), np.arange(len(returns)))
    return DailyReturns(name, dates, np.array(returns), "simulated by cliplab")
