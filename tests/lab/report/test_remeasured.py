"""What RESULTS.md says of records that were measured again."""

from cliplab.lab.report.published import Published
from cliplab.lab.report.remeasured import remeasured

FOUND = {"commit": "a" * 40, "date": "2026-11-29", "n_rows": 4, "difference": None}


def published(**found):
    about = {name: {"remeasured": FOUND | more} if more else {} for name, more in found.items()}
    return Published(about, {}, {})


def test_drawn_records_come_first_and_a_difference_is_told():
    told = remeasured(
        published(a={"drawn_of": 0, "difference": "loss: 1.0, now 0.5"}, b={"drawn_of": 9})
    )
    first, second = told.splitlines()[2:]
    assert first.startswith("| [b](notebooks/b.ipynb) | drawn from 9 by the commit aaaaaaaaaaaa")
    assert "all 4 rows the same, to the last bit | –" in first
    assert "by name" in second
    assert "**not the same**: loss: 1.0, now 0.5" in second


def test_without_such_a_record_nothing_is_said():
    assert remeasured(published(a={})) == ""
