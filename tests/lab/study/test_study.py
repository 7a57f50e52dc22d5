"""A study: its stages, its seeds, its failure stage, and rows that it cannot take."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studying import CHANCE, study, surface

from cliplab.lab.study import SIZES, Log, Size, Space
from cliplab.lab.study.size import size_named, size_of

THREE = {"none": ["lr"], "norm": ["lr", "threshold"], "value": ["lr", "threshold"]}


def by_stage(rows, way):
    found = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["way"] == way:
            found[row["stage"]][row["configuration"]].append(row["seed"])
    return found


def counted(rows):
    return Counter((row["way"], row["stage"]) for row in rows)


def failing(*ways):
    """Norm, value and none; the ways named fail in every tenth of their runs, by seed."""

    def train(configurations, seeds):
        rows = surface()([c | {"way": "norm"} for c in configurations], seeds)
        for row, c, seed in zip(rows, configurations, seeds, strict=True):
            if c["way"] in ways and seed % 10 == 0:
                row |= {"test_loss": CHANCE, "diverged": True}
        return rows

    return train


@pytest.mark.parametrize(
    ("size", "screened", "again"), [("full", 96, 72), ("full32", 64, 72), ("half", 48, 72)]
)
def test_every_stage_runs_what_the_size_says_and_picks_what_screening_ranked(size, screened, again):
    rows = study(handicaps={}).run(size, 10**6)
    assert counted(rows) == {
        (way, stage): n
        for way in ("none", "norm")
        for stage, n in (("screening", screened), ("finalists", again), ("failures", 33))
    }
    for way in ("none", "norm"):
        stages = by_stage(rows, way)
        means = {
            i: np.mean([r["score"] for r in rows if (r["way"], r["stage"], r["configuration"])
                        == (way, "screening", i)])
            for i in range(SIZES[size].configurations)
        }  # fmt: skip
        best = sorted(means, key=means.get)[:6]
        assert sorted(stages["finalists"]) == sorted(best)
        assert set(stages["failures"]) <= set(best)
        assert len(stages["failures"]) == 3


def test_seeds_are_of_a_block_for_each_configuration_shared_by_the_ways_and_never_used_twice():
    rows = study(surface(fails=0.1)).run("full", 10**6)
    for way in ("none", "norm"):
        own = [(row["configuration"], row["seed"]) for row in rows if row["way"] == way]
        assert len(set(own)) == len(own)
        assert {(seed - 10**6) // 64 == i for i, seed in own} == {True}
        stages = by_stage(rows, way)
        assert all(seeds == [10**6 + 64 * i, 10**6 + 64 * i + 1]
                   for i, seeds in stages["screening"].items())  # fmt: skip
        assert all(seeds[0] == 10**6 + 64 * i + 2 for i, seeds in stages["finalists"].items())
        assert all(seeds == list(range(10**6 + 64 * i + 14, 10**6 + 64 * i + 57))
                   for i, seeds in stages["failures"].items())  # fmt: skip


def test_ways_share_the_draws_and_do_not_see_what_they_do_not_tune():
    seen = []

    def train(configurations, seeds):
        seen.extend(configurations)
        return surface()(configurations, seeds)

    rows = study(train).run("small", 100)
    by_way = {way: [c for c in seen if c["way"] == way] for way in ("none", "norm")}
    assert {c["threshold"] for c in by_way["none"]} == {None}
    assert [c["lr"] for c in by_way["none"]][:12] == [c["lr"] for c in by_way["norm"]][:12]
    assert all(set(c) == {"way", "lr", "threshold"} for c in seen)
    for row in rows:
        assert (row["threshold"] is None) == (row["way"] == "none")
        assert row["arm"] == f"toy: {row['way']} #{row['configuration']:02}"


def test_the_order_of_the_ways_and_how_many_run_at_once_change_nothing():
    def rows(ways, at_once):
        made = study(surface(fails=0.1), ways={way: THREE[way] for way in ways}, at_once=at_once)
        return sorted(made.run("full", 3), key=lambda row: (row["arm"], row["seed"]))

    assert rows(["none", "norm"], 64) == rows(["norm", "none"], 5)


def test_other_first_seeds_draw_other_configurations():
    one, two = (study().run("tiny", seed) for seed in (100, 101))
    assert {row["lr"] for row in one}.isdisjoint({row["lr"] for row in two})


@pytest.mark.parametrize(
    ("fails", "runs"),
    [
        ([], {"norm": 33, "none": 33, "value": 33}),
        (["norm"], {"norm": 129, "none": 129, "value": 33}),
        (["value"], {"norm": 33, "none": 33, "value": 129}),  # "other" is not compared
        (["norm", "value"], {"norm": 129, "none": 129, "value": 129}),
    ],
)
def test_only_a_failure_extends_the_ways_that_are_compared(fails, runs):
    versus = [("norm", "none"), ("value", "other")]
    ways = {**THREE, "other": ["lr"], "control": ["lr"]}
    rows = study(failing(*fails), ways=ways, versus=versus, handicaps={}).run("full", 0)
    found = {way: n for (way, stage), n in counted(rows).items() if stage == "failures"}
    assert found == runs | {"other": runs["value"]}  # a control that is a way has no such stage


def test_a_failure_in_tuning_extends_nothing():
    def train(configurations, seeds):
        rows = surface()(configurations, seeds)
        for row, seed in zip(rows, seeds, strict=True):
            if seed % 64 < 14:
                row["diverged"] = seed % 3 == 0
        return rows

    rows = study(train, handicaps={}).run("full", 0)
    assert max(n for (_, stage), n in counted(rows).items() if stage == "failures") == 33


def test_a_handicap_is_the_same_runs_and_its_finalists_are_run_too():
    def train(configurations, seeds):
        rows = surface()(configurations, seeds)
        for row, c in zip(rows, configurations, strict=True):
            row["early_val_loss"] = row["early_test_loss"] = (
                3 + c["lr"] / 100
            )  # ranks the other way
        return rows

    rows = study(train).run("full", 0)
    found = counted(rows)
    assert found["norm", "finalists"] == 72
    assert 72 < found["none", "finalists"] <= 144
    low = sorted({(row["lr"], row["configuration"]) for row in rows})[:6]
    assert {i for _, i in low} <= set(by_stage(rows, "none")["finalists"])
    assert {"early_failed", "early_score"} <= rows[0].keys()
    assert not any("early_failed" in row for row in rows if row["way"] == "norm")


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_small_sizes_count_no_failures(size):
    rows = study(surface(fails=0.5)).run(size, 0)
    assert {row["stage"] for row in rows} == {"screening", "finalists"}


@given(
    val=st.floats(0, 5), test=st.floats(0, 5), gone=st.booleans(), lost=st.sampled_from([1.5, 9.0])
)
def test_a_run_fails_by_its_test_loss_and_is_chosen_by_its_validation_loss(val, test, gone, lost):
    def train(configurations, seeds):
        return [{"val_loss": val, "test_loss": test, "diverged": gone} for _ in seeds]

    row = study(train, handicaps={}, lost=lost).run(Size(2, 1, 1, 1, 1), 0)[0]
    line = min(lost, CHANCE)
    assert row["failed"] == (gone or test >= line)
    assert row["score"] == (CHANCE if gone or val >= line else val)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"val_loss": None}, r"toy: none #00, seed 100: val_loss = None, expected a finite number"),
        ({"test_loss": float("nan")}, "test_loss = nan, .*chance where the run diverged"),
        ({"test_loss": float("inf"), "diverged": True}, "test_loss = inf"),
        ({"val_loss": True}, "val_loss = True"),
        ({"early_test_loss": "2.0"}, r"early_test_loss = '2\.0'"),
    ],
)
def test_a_row_that_cannot_be_judged_names_arm_seed_and_column(change, complaint):
    def train(configurations, seeds):
        return [row | change for row in surface()(configurations, seeds)]

    with pytest.raises(ValueError, match=complaint):
        study(train).run("tiny", 100)


def test_a_column_that_is_missing_and_rows_that_are_missing_are_refused():
    def without(column):
        def train(configurations, seeds):
            rows = surface()(configurations, seeds)
            return [{k: v for k, v in row.items() if k != column} for row in rows]

        return study(train)

    with pytest.raises(ValueError, match="early_val_loss = None"):
        without("early_val_loss").run("tiny", 0)
    with pytest.raises(ValueError, match="toy: 3 rows of 4 runs"):
        study(lambda c, s: surface()(c, s)[1:]).run("tiny", 0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ways": {"none": ["rate"], "norm": []}}, r"toy: way 'none' tunes \['rate'\], which the"),
        ({"versus": [("norm", "nothing")]}, "toy: no way 'nothing', only none, norm"),
        ({"handicaps": {"early": "nothing"}}, "toy: no way 'nothing'"),
        ({"handicaps": {"norm": "none"}}, r"\['norm'\] are ways and handicaps"),
        ({"chance": float("inf")}, "chance = inf, expected the loss of a chance predictor"),
    ],
)
def test_what_is_no_study_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        study(**changes)


def test_a_study_says_in_literals_what_it_is():
    about = study(space=Space(lr=Log(0.1, 1.0), threshold=Log(1.0, 2.0, open_high=True))).about()
    assert about == {
        "space": {
            "lr": {"kind": "log", "low": 0.1, "high": 1.0, "open": []},
            "threshold": {"kind": "log", "low": 1.0, "high": 2.0, "open": ["high"]},
        },
        "ways": {"none": ["lr"], "norm": ["lr", "threshold"]},
        "handicaps": {"none, early": "none"},
        "versus": [["norm", "none"]],
        "chance": CHANCE,
        "lost": None,
    }


def test_sizes_are_found_by_name_and_by_how_many_configurations_they_have():
    assert {name: size.best_of for name, size in SIZES.items()} == {
        "full": 16, "full32": 11, "half": 8, "small": 4, "tiny": 2,
    }  # fmt: skip
    assert {name for name, size in SIZES.items() if size.decides} == {"full", "full32", "half"}
    assert all(size_of(size.configurations) == size == size_named(size) for size in SIZES.values())
    with pytest.raises(
        ValueError, match="size = 'huge', expected one of full, full32, half, small"
    ):
        size_named("huge")
    with pytest.raises(ValueError, match="7 configurations, expected one of 48, 32, 24, 12, 4"):
        size_of(7)


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ((4, 0, 2, 2), "expected 1 <= picks <= finalists <= configurations"),
        ((4, 1, 5, 2), "expected 1 <= picks"),
        ((4, 1, 2, 2, 3), "expected 1 <= picks"),
        ((9, 1, 3, 2, 3, (32, 129)), r"runs = \(32, 129\), expected two multiples of 3, rising"),
        ((9, 1, 3, 2, 3, (129, 33)), "rising"),
        ((9, 20, 3, 20, 3, (33, 129)), "a configuration has 64 seeds at most"),
    ],
)
def test_sizes_that_cannot_be_are_refused(numbers, complaint):
    with pytest.raises(ValueError, match=complaint):
        Size(*numbers)
