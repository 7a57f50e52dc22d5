"""What counts as the same rows."""

import math

import pytest

from cliplab.lab.attest.compare import first_difference


def payload(*rows):
    return {
        "rows": [{"arm": arm, "seed": 0, **more} for arm, more in rows],
        "curves": [],
        "choices": {},
    }


BEFORE = payload(("none", {"loss": 1.0}), ("norm", {"clip": 2.0}))


def test_a_row_may_get_columns_that_it_had_not_also_those_of_other_rows():
    after = payload(("none", {"loss": 1.0, "clip": 9.0, "new": 1}), ("norm", {"clip": 2.0}))
    assert first_difference(BEFORE, after) is None


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([("none", {"clip": 1.0}), ("norm", {"clip": 2.0})], "loss was recorded"),
        ([("norm", {"clip": 2.0}), ("none", {"loss": 1.0})], "now arm 'norm'"),
        (
            [("none", {"loss": 1.0}), ("norm", {"clip": math.nan})],
            "clip: 2.0 was recorded, now nan",
        ),
        ([("none", {"loss": 1.0}), ("norm", {"clip": 2})], "clip: 2.0 was recorded, now 2"),
        ([("none", {"loss": 1.0})], "values were recorded"),
        ([("none", {"loss": 1.0}), ("norm", {"clip": 2.0}), ("x", {})], "values were recorded"),
    ],
)
def test_what_is_gone_moved_or_of_another_type_is_named(after, said):
    assert said in first_difference(BEFORE, payload(*after))


def test_a_column_left_out_is_not_looked_at():
    after = payload(("none", {"loss": 7.0}), ("norm", {"clip": 2.0}))
    assert first_difference(BEFORE, after, without={"loss"}) is None
