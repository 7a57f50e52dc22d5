import dataclasses
import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.data import prices
from cliplab.lab.data.catalogue import DATA_SETS
from cliplab.lab.data.fetch import cache_dir
from cliplab.lab.data.prices import daily_returns

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)
HEADER = "Date,Open,High,Low,Close,Adj Close,Volume\r\n"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces the S&P 500's file by one of ours that lies in the cache already."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))

    def put(lines: str) -> None:
        packed = gzip.compress((HEADER + lines).encode())
        ours = dataclasses.replace(prices.SP500, sha256=hashlib.sha256(packed).hexdigest())
        monkeypatch.setitem(prices._DATA_SETS, "sp500", ours)
        path = cache_dir() / f"{ours.package}-{ours.version}" / ours.member
        path.parent.mkdir(parents=True)
        path.write_bytes(packed)

    return put


def line(date: str, adjusted: float) -> str:
    return f"{date},1,1,1,7,{adjusted},10\r\n"


def test_returns_are_percent_logs_of_the_adjusted_close(put: Callable[[str], None]) -> None:
    put(line("12/30/1999", 100) + line("12/31/1999", 110) + line("1/3/2000", 99))
    returns = daily_returns("sp500")
    assert len(returns) == 2
    np.testing.assert_allclose(returns.percent, 100 * np.log([1.1, 0.9]))
    assert returns.dates.tolist() == np.array(["1999-12-31", "2000-01-03"], "M8[D]").tolist()
    assert returns.years.tolist() == [1999, 2000]
    assert [returns.first_day_of(year) for year in (1998, 1999, 2000, 2001)] == [0, 0, 1, 2]
    assert "Yahoo" in returns.notice


@pytest.mark.parametrize(
    "lines",
    [line("1/4/2000", 5) + line("1/3/2000", 6), line("1/3/2000", 5) + line("1/4/2000", 0)],
)
def test_unordered_dates_and_impossible_prices_are_refused(
    put: Callable[[str], None], lines: str
) -> None:
    put(lines)
    with pytest.raises(ValueError, match=r"'sp500'.*rising dates and positive prices"):
        daily_returns("sp500")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no returns 'dax': choose one of sp500, nasdaq, fixture"):
        daily_returns("dax")


def test_the_fixture_is_a_heavy_tailed_market_that_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "nothing"))
    market = daily_returns("fixture")
    assert not (tmp_path / "nothing").exists()
    assert len(market) == 5_030
    np.testing.assert_array_equal(market.percent, daily_returns("fixture").percent)
    np.testing.assert_allclose(
        market.percent[:3], [-0.7983275401, -0.5301009352, 0.0134068177], rtol=1e-6
    )
    r = market.percent
    assert ((r - r.mean()) ** 4).mean() / r.var() ** 2 > 6  # 3 for a Gaussian
    size = np.abs(r) - np.abs(r).mean()
    assert (size[1:] * size[:-1]).mean() / size.var() > 0.15  # large moves come in clusters
    assert (np.diff(market.dates).astype(int) > 0).all()
    assert np.is_busday(market.dates).all()


@given(st.integers(1990, 2030))
def test_the_first_day_of_a_year_divides_the_days(year: int) -> None:
    market = daily_returns("fixture")
    first = market.first_day_of(year)
    assert (market.years[:first] < year).all()
    assert (market.years[first:] >= year).all()


def test_both_indices_are_in_the_catalogue() -> None:
    assert DATA_SETS["sp500"] is prices.SP500
    assert DATA_SETS["nasdaq"] is prices.NASDAQ


@pytest.mark.network
@network
@pytest.mark.parametrize(("name", "worst"), [("sp500", "2008-10-15"), ("nasdaq", "2000-04-14")])
def test_real_indices(name: str, worst: str) -> None:
    market = daily_returns(name)
    assert len(market) == 5_030
    assert str(market.dates[0]) == "1999-01-05"
    assert str(market.dates[-1]) == "2018-12-31"
    assert np.isfinite(market.percent).all()
    assert str(market.dates[market.percent.argmin()]) == worst
