"""A race in this process: its budget, what it says, what it refuses of a function's rows."""

import errno
import itertools
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from racing import TOY, calls, write_toy

from cliplab.lab.race import race as racing
from cliplab.lab.race.decided import check_folder, find
from cliplab.lab.race.figure import BOTTOM, LEFT, RIGHT, TOP, cloud, plane
from cliplab.lab.race.function import code_of, load, target_of
from cliplab.lab.race.page import write_page
from cliplab.lab.race.race import Asked, race
from cliplab.lab.race.rows import checked
from cliplab.lab.race.runner import RaisedError
from cliplab.lab.race.size import choose, larger, reach, runs_of
from cliplab.lab.race.summary import Summary, by
from cliplab.lab.stats.paired import Estimate
from cliplab.lab.study.size import SIZES
from cliplab.lab.study.space import Log, Space

LOSSES = '"val_loss": loss, "test_loss": loss'
names = (f"toy_{number}.py" for number in itertools.count())


@pytest.fixture
def raced(tmp_path, monkeypatch):
    """Race a function's code at a size: the race, what it was told to say, and its folder."""

    def run(code=TOY, size="small", said=None, name=None, **changes):
        monkeypatch.setattr(racing, "choose", (lambda *_: size) if size else choose)
        monkeypatch.syspath_prepend(tmp_path)
        path = write_toy(tmp_path, code, name or next(names))
        load.cache_clear()
        for module in ("beside", path.stem):
            sys.modules.pop(module, None)
        changes = {"lr": (1e-4, 10.0)} | changes
        asked = Asked(target_of(f"{path}:train"), tmp_path / f"race_{path.stem}", **changes)
        return race(asked, (said if said is not None else []).append)

    return run


def test_the_largest_size_that_fits_is_taken_and_what_fits_is_said():
    assert [choose(s, 1, False) for s in (0.1, 0.11, 0.12, 0.13, 1.3)] == [
        *("full", "full32", "half", "small", "tiny")
    ]
    with pytest.raises(ValueError, match=r"a run takes 30 s, .*--minutes 8.2, or .* to 3.8 s"):
        choose(30, 1, False)
    for size, control in itertools.product(SIZES.values(), (False, True)):
        least, most = runs_of(size, control)
        assert 0 < least <= most


def test_the_minutes_that_are_said_to_reach_a_size_reach_it_and_are_said_before_the_runs(raced):
    for run_s, control, size in itertools.product((0.012, 0.7, 30.0), (False, True), SIZES):
        told = reach(size, run_s, control)
        found = {name: float(told) for told, name in re.findall(r"([\d.]+) \((\w+)\)", told)}
        assert list(found) == list(larger(size))
        for name, minutes in found.items():
            assert choose(run_s, minutes, control) in (name, *larger(name))
        small = f"{size} decides nothing; "
        assert told.startswith(small) is not SIZES[size].decides
    said = []
    raced(said=said)
    assert ["size small" in said[-2], "--minutes" in said[-1]] == [True, True]
    raced(size="full", said=said)
    assert "size full" in said[-1]


@pytest.mark.parametrize("size", ["tiny", "small", "half"])
def test_a_race_has_as_many_runs_as_it_said(raced, size, tmp_path):
    found = raced(size=size)
    least, most = runs_of(SIZES[size], False)
    assert least <= len(found.rows) <= most
    assert len(calls(tmp_path)) <= len(found.rows) + 4  # untrained, and timed


def test_a_small_race_decides_nothing_and_says_what_more_would_take(raced):
    told = Summary(raced(margin=0.1))
    text = told.text()
    assert told.headline.endswith("(small)")
    assert "a race of this size decides nothing" in told.why
    assert [one.name for one in told.sizes] == ["half", "full32", "full"]
    halves = [one.half for one in told.sizes]
    loss = told.verdict.loss
    assert halves == sorted(halves, reverse=True)
    assert halves[-1] == pytest.approx((loss.high - loss.low) / 4)
    assert all(0 <= one.two <= 1 for one in told.sizes)
    assert text.count("\nSurer:         --minutes ") == 3
    assert max(map(len, text.splitlines())) <= 96


def test_a_larger_race_uses_the_runs_of_a_smaller_one(raced, tmp_path):
    raced(name="toy_grows.py")
    before = calls(tmp_path)
    raced(size="half", name="toy_grows.py")
    after = calls(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == len(set(after))


def test_chance_is_measured_unless_it_is_given(raced):
    said = []
    found = raced(said=said)
    assert found.chance == 4.9
    assert "chance, by a run that learned nothing (rate 1e-12): 4.90" in said
    given = raced(chance=2.5)
    assert given.chance == 2.5
    assert sum(row["failed"] for row in given.rows) > sum(row["failed"] for row in found.rows)
    assert all(row["failed"] == (row["diverged"] or row["test_loss"] >= 2.5) for row in given.rows)
    untrained = TOY.replace('c["lr"] > 0.1', 'c["lr"] < 1e-9 or c["lr"] > 0.1')
    with pytest.raises(ValueError, match="should show what an untrained model scores"):
        raced(untrained)


def test_one_loss_is_both_and_is_told(raced):
    two, one = raced(), raced(TOY.replace(LOSSES, '"loss": loss'))
    assert [row["test_loss"] for row in one.rows] == [row["test_loss"] for row in two.rows]
    assert any("rows have one loss" in note for note in Summary(one).notes)
    assert not any("rows have one loss" in note for note in Summary(two).notes)


def test_the_control_is_the_earlier_checkpoint_where_rows_have_one(raced):
    without = raced(margin=0.3)
    assert without.verdict.control is None
    early = '**({} if gone else {"early_val_loss": loss + 0.5, "early_test_loss": loss + 0.5}), '
    early += '"val_loss"'
    equal = TOY.replace("limit > 3", "False").replace('"val_loss"', early)
    said = []
    found = raced(equal, size="full", margin=0.3, said=said)
    assert "no control" not in " ".join(said) + Summary(found).text()
    assert found.verdict.control.effect == pytest.approx(0.5, abs=0.1)
    assert found.verdict.verdict == "no matter"
    some = raced(TOY.replace('"val_loss"', early), margin=0.3)
    assert any(row["diverged"] for row in some.rows)
    assert some.verdict.control is not None
    blind = raced(equal.replace("early_", "other_"), size="full", margin=0.3)
    assert blind.verdict.verdict == "unclear (control)"
    assert "it has no control" in Summary(blind).why


def test_that_there_is_no_control_is_said_before_the_runs_and_first_of_what_would_help(raced):
    said = []
    without = raced(said=said)
    summary = Summary(without)
    assert "no early_val_loss and early_test_loss in its rows, so there is no control" in said[0]
    assert "size small" not in said[0]
    assert sum("no control" in line for line in said) == 1
    surer = summary.text().partition("\nSurer: ")[2]
    assert surer.lstrip().startswith("return early_val_loss and early_test_loss, the scores")
    page = write_page(without, summary).read_text()
    assert "surer</h2>\n<p>Return early_val_loss" in page


def test_what_has_no_effect_and_what_lies_at_an_edge_is_noted(raced):
    def notes(*code, **changes):
        return " ".join(Summary(raced(*code, **changes)).notes)

    seedless = TOY.replace("{seed} ", "")
    unclipped = TOY.replace('c["threshold"] is None', "True").replace(" {c['way']}", "")
    assert "no seed changed any run" in notes(seedless)
    assert "no threshold changed any run" in notes(unclipped)
    assert "the best rate of norm lies at the low end of --lr" in notes(
        lr=(1.0, 10.0), threshold=(0.01, 2.9)
    )
    fine = notes()
    assert "changed any run" not in fine
    assert "lies at the" not in fine


def test_the_recommended_threshold_is_that_of_the_best_configuration(raced):
    found = raced(size="full", margin=0.1)
    told = Summary(found)
    assert told.headline == "Clipping the norm helps"
    assert not told.no_control  # which only "no matter" needs
    assert told.clipped.lr > 0.1  # where only clipped runs live
    assert told.clipped.threshold <= 3
    assert told.unclipped.lr <= 0.1
    assert told.unclipped.threshold is None
    near = next(line.text for line in told.recommended if line.name == "How flat")
    works = near_the_best(found)
    assert near.startswith(f"with {sum(works.values())} of 48 thresholds drawn, each at a rate of")
    filled = [dot["kind"] == "fresh" for dot in plane(found)["dots"]]
    assert filled == [works[i] for i in range(48)]


def test_a_threshold_that_never_clips_is_not_recommended_in_silence(raced):
    def with_clipping(**changes):
        return Summary(raced(**changes)).recommended[0].text

    idle = TOY.replace('c["threshold"] is None', "True").replace(" {c['way']}", "")
    assert "it never clips: where both ran, the losses are those without" in with_clipping(
        code=idle
    )
    assert "never clips" not in with_clipping(size="full", margin=0.1)


def near_the_best(found):
    line = min(found.verdict.levels["loss"]) + 2 * found.margin
    worst = {}
    for row in found.rows:
        if row["way"] == "norm" and row["stage"] == "screening":
            loss = math.inf if row["failed"] else row["test_loss"]
            worst[row["configuration"]] = max(loss, worst.get(row["configuration"], 0))
    return {i: loss <= line for i, loss in worst.items()}


def test_the_figures_show_every_run_within_their_axes(raced, tmp_path):
    found = raced()
    every, drawn = cloud(found), plane(found)
    assert len(every["dots"]) == len(found.rows)
    assert len(drawn["dots"]) == 12
    assert len(drawn["picks"]) == 1
    for dot in every["dots"] + drawn["dots"]:
        assert LEFT <= dot["x"] <= RIGHT
        assert TOP <= dot["y"] <= BOTTOM
    failed = sum(row["failed"] for row in found.rows)
    assert failed
    assert sum(dot["kind"] == "failed" for dot in every["dots"]) == failed
    page = write_page(found, Summary(found)).read_text()
    assert f"{len(found.rows)} runs · size small" in page
    assert "What it would cost to be surer" in page


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, "--chance"),
        ({"chance": -1.5}, "--chance"),
        ({"lost": 0.0}, "--chance, --lost"),
        ({"chance": 0.0}, "--chance"),
    ],
)
def test_a_race_in_which_nothing_succeeds_is_told_and_drawn(raced, changes, options):
    lost = raced(
        TOY.replace('c["lr"] > 0.1 and limit > 3', 'c["lr"] > 1e-9'), margin=0.1, **changes
    )
    told = Summary(lost)
    assert "cannot be compared, as a way hardly ever succeeds" in told.text()
    assert "Nothing was learned, every run failed: " in told.text()
    assert told.why.endswith(f"check the function, {options} and --lr")
    assert not plane(lost)["picks"]
    page = write_page(lost, told).read_text()
    for advice in ("With clipping", "Without", "to train with", "Surer", "to be surer"):
        assert advice not in told.text() + page


def test_a_loss_that_never_falls_is_told_as_one_and_one_run_that_learns_is_enough(raced):
    still = TOY.replace('min(bowl(c["lr"]) + noise, 4.9)', "1.0").replace(
        "gone = c", "gone = 0 * c"
    )
    told = Summary(raced(still))
    assert told.headline == "Nothing was learned, every run failed"
    runs = len(told.raced.rows)
    assert told.why.startswith(f"0 of {runs} runs diverged, {runs} were no better than 1.00: ")
    row = told.raced.rows[0] | {"failed": False}
    assert replace(told.raced, rows=[row, *told.raced.rows[1:]]).learned


def test_a_function_without_any_noise_is_told_and_drawn(raced):
    still = raced(TOY.replace("gauss(0, 0.02)", "gauss(0, 0)"))
    text = Summary(still).text()
    assert "no spread" in " ".join(text.split())
    assert "Usable range" not in text
    assert "How flat" not in text
    page = write_page(still, Summary(still)).read_text()
    assert "A cross: a run failed." in page
    assert "runs end within" not in page


@pytest.mark.parametrize(("margin", "unit"), [(None, "standard deviation"), (0.1, "margin")])
def test_what_differences_are_measured_in_is_the_same_everywhere(raced, margin, unit):
    found = raced(margin=margin)
    summary = Summary(found)
    assert f"runs end within 2 {unit}s (" in " ".join(summary.text().split())
    assert (
        f"all its screening runs end within 2 {unit}s of the best"
        in write_page(found, summary).read_text()
    )


def test_failures_are_told_with_the_margin_of_the_verdict(raced):
    found = raced()
    other = replace(found, verdict=replace(found.verdict, failure_margin=0.2))
    assert "with clipping (10 would matter)" in " ".join(Summary(found).text().split())
    assert "with clipping (20 would matter)" in " ".join(Summary(other).text().split())


def test_runs_of_other_code_are_not_used(raced, tmp_path):
    raced(name="toy_edited.py")
    before, said = len(calls(tmp_path)), []
    raced(TOY.replace("0.02", "0.03"), said=said, name="toy_edited.py")
    assert f"{before} saved runs are of other code than today's, and not used" in said


def test_code_is_the_file_and_what_it_imports_beside_it(tmp_path):
    path = write_toy(tmp_path)
    target = target_of(f"{path}:train")
    code = code_of(target)
    path.write_text("# a comment\n" + TOY)
    assert code_of(target) == code
    (tmp_path / "beside.py").write_text("def bowl(lr):\n    return 2.0\n")
    assert code_of(target) != code


CONFIGURATION = {"way": "norm", "lr": 0.1, "threshold": 2.0}
GOOD = {"val_loss": 1.0, "test_loss": 1.0}


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (None, "returned None, expected a list of dictionaries"),
        (GOOD, "expected a list of dictionaries"),
        ([1.0], r"returned \[1.0\], expected a list of dictionaries"),
        ([], "returned 0 rows, expected 1"),
        ([GOOD, GOOD], "returned 2 rows, expected 1"),
        (
            iter([GOOD]),
            r"returned <list_iterator .*, expected a list of .*, one a run, as by list\(rows\)",
        ),
        (
            pd.DataFrame([GOOD]),
            r"expected a list of .*, one a run, as by rows\.to_dict\('records'\)",
        ),
        ([{}], r"no val_loss and no loss in the row, which has nothing"),
        ([GOOD | {"clip_fraction": 1.5}], r"clip_fraction = 1.5, expected the share of updates"),
        ([GOOD | {"clip_fraction": "all"}], r"clip_fraction = 'all', expected the share"),
        (
            [{"acc": 1, "test_loss": 1.0}],
            r"threshold 2, seed 7\): no val_loss .*has acc, test_loss$",
        ),
        ([GOOD | {"val_loss": math.nan}], r"\(norm, lr 0.1, .* val_loss = nan, .* diverged = True"),
        ([GOOD | {"test_loss": "low"}], "test_loss = 'low', expected a finite number"),
        ([GOOD | {"test_loss": [1.0, 2.0]}], r"test_loss = \[1.0, 2.0\], expected a finite"),
        ([GOOD | {"diverged": "no"}], "diverged = 'no', expected True or False"),
        ([GOOD | {"early_val_loss": 1.0}], "early_test_loss = None, expected a finite number"),
    ],
)
def test_rows_that_are_none_are_refused_by_name(returned, complaint):
    with pytest.raises(ValueError, match=complaint):
        checked(returned, [CONFIGURATION], [7])


def test_rows_may_hold_tensors_and_arrays_and_diverged_ones_anything():
    row = {"val_loss": torch.tensor([1.5]), "test_loss": np.float32(2), "diverged": np.bool_(False)}
    gone = {"val_loss": math.nan, "test_loss": None, "diverged": True, "curve": [1, 2]}
    one, two = checked([row, gone], [CONFIGURATION] * 2, [7, 8])
    assert (one["val_loss"], one["test_loss"], one["diverged"]) == (1.5, 2.0, False)
    assert two.keys() == {"val_loss", "test_loss", "diverged", "one_loss"}


def test_a_column_that_no_table_holds_is_named(raced):
    said = []
    raced(TOY.replace('"extra": 1', '"curve": [1, 2]'), said=said)
    assert [line for line in said if "curve" in line] == [
        "not kept of the rows: curve (a table holds numbers, text, True and False)"
    ]


UNUSED = "\n\ndef unused():\n    pass\n"
ASKED = {"margin": 0.1, "size": "half", "name": "toy_asked.py"}


@pytest.mark.parametrize(
    ("changed", "before"),
    [
        ({"margin": None}, "--margin 0.1"),
        ({"margin": 0.2}, "--margin 0.1"),
        ({"chance": 4.0}, "no --chance"),
        ({"lost": 4.0}, "no --lost"),
        ({"lr": (1e-5, 10.0)}, "--lr 0.0001:10"),
        ({"threshold": (0.001, 100.0)}, "--threshold 0.01:100"),
        ({"repeat": 1}, "--repeat 0"),
    ],
)
def test_what_is_changed_after_a_look_takes_runs_of_its_own(raced, changed, before, tmp_path):
    said = []
    first = raced(**ASKED, said=said)
    assert not any("asked anew" in line for line in said)
    made = calls(tmp_path)
    after = raced(**ASKED | changed, said=said)
    assert sum("asked anew" in line for line in said) == 1
    assert (first.asked.first_seed, after.asked.first_seed) == (0, 10_000)
    own = {row["seed"] for row in after.rows}
    assert own.isdisjoint(row["seed"] for row in first.rows)
    both = calls(tmp_path)
    assert both[: len(made)] == made
    assert any(f"draws and seeds: {before}. " in note for note in Summary(after).notes)
    again, back = raced(**ASKED | changed), raced(**ASKED)
    assert (again.rows, back.rows, calls(tmp_path)) == (after.rows, first.rows, both)


@pytest.mark.parametrize(
    ("code", "changes", "complaint"),
    [
        (TOY, {"size": None, "minutes": 1e-9}, r"the smallest race \(tiny\) has 16 of them"),
        (TOY.replace('c["lr"] > 0.1', 'c["lr"] < 1e-9'), {}, "give --chance"),
    ],
)
def test_a_race_that_is_refused_takes_no_seeds_and_was_not_asked(
    code, changes, complaint, raced, tmp_path
):
    with pytest.raises(ValueError, match=complaint):
        raced(code, name="toy_refuses.py", margin=0.1, **changes)
    assert not (tmp_path / "race_toy_refuses" / "rows.jsonl").exists()
    said = []
    found = raced(code, name="toy_refuses.py", margin=0.2, chance=4.9, said=said)
    assert found.asked.first_seed == 0
    text = " ".join([*said, *Summary(found).notes])
    assert "asked anew" not in text
    assert "also asked" not in text
    lines = (tmp_path / "race_toy_refuses" / "rows.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) >= len(found.rows)


def test_a_word_is_had_with_a_margin_and_says_what_is_known(raced):
    none = Summary(raced(**ASKED | {"margin": None}))
    assert none.headline == "Measured, without a word"
    assert "no margin was given" in none.why
    assert "there is one, of fresh draws and seeds" in none.why
    assert not any("race.json" in note for note in none.notes)
    for code in (TOY, TOY + UNUSED):
        told = Summary(raced(**ASKED, code=code))
        assert told.raced.verdict.kind == "comparison"
        assert told.notes[-1].startswith("what decides was fixed before these runs, as race.json")
        assert any("no --margin" in note for note in told.notes)


def test_a_race_that_grows_is_told_where_it_had_a_word_before(raced):
    def told(size):
        notes = " ".join(Summary(raced(**ASKED | {"size": size})).notes)
        return "judged before with other --minutes (half)" in notes

    assert [told(size) for size in ("small", "half", "half", "full32")] == [False] * 3 + [True]


def test_a_repeat_is_called_one_on_its_page(raced):
    def page(**changes):
        found = raced(name="toy_repeated.py", **changes)
        return write_page(found, Summary(found)).read_text()

    assert " · repeat 2 · " in page(repeat=2)
    assert "· repeat" not in page()
    assert "no <code>--margin</code>" in page(margin=0.1)


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (Estimate(0.25, -0.5, 1.0, 0.5, 8), "better by 0.250 [−0.500, +1.00]"),
        (Estimate(-0.25, -1.0, 0.5, 0.5, 8), "worse by 0.250 [−0.500, +1.00]"),
        (
            Estimate(0.0, -1.0, 0.5, 0.5, 8),
            "neither better nor worse (0 [−1.00, +0.500], above 0 better)",
        ),
    ],
)
def test_a_difference_is_told_in_the_direction_that_it_has(effect, told):
    assert by(effect, "better", "worse") == told


def test_the_page_tells_what_below_zero_is_for_a_loss_that_is_better_and_one_that_is_worse(raced):
    found = raced()
    for loss, word in ((0.25, "better"), (-0.25, "worse")):
        levels = replace(found.verdict.loss, effect=loss, low=loss - 1, high=loss + 0.5)
        other = replace(found, verdict=replace(found.verdict, loss=levels))
        page = " ".join(write_page(other, Summary(other)).read_text().split())
        low = "−0.750" if loss > 0 else "−0.250"
        assert f"clipping is {word} by 0.250 [{low}, " in page
        assert "below 0 in them means the opposite of its line’s word" in page
        assert "the other way round" not in page


def test_a_folder_has_the_runs_of_one_function(tmp_path):
    one, two = (target_of(f"{write_toy(tmp_path / name)}:train") for name in "ab")
    folder = tmp_path / "race"
    folder.mkdir()
    check_folder(folder, one)
    check_folder(folder, one)
    with pytest.raises(ValueError, match=r"runs of \.\./a/train\.py:train .*not of \.\./b/train"):
        check_folder(folder, two)
    (folder / "race.json").write_text("{}")
    with pytest.raises(ValueError, match=r"race\.json is damaged: remove it"):
        find(folder, {"margin": 0.1}, [])


def test_seeds_of_runs_that_nothing_was_registered_for_are_not_used(tmp_path):
    own, others = find(tmp_path, {"margin": 0.1}, [64, 20_128])
    assert (own.first_seed, others) == (30_000, [])


EARLY = '"early_val_loss": loss + 0.5, "early_test_loss": loss + 0.5'
WITH_EARLY = f"**({{}} if gone else {{{EARLY}}}), "


def test_chances_are_told_with_their_error_and_no_matter_only_with_a_control(raced):
    for code, control in (
        (TOY, False),
        (TOY.replace('"val_loss"', WITH_EARLY + '"val_loss"'), True),
    ):
        found = raced(code, size="full32", margin=0.1)
        summary = Summary(found)
        decisive = [one for one in summary.sizes if one.two is not None]
        assert decisive
        assert all((one.equal is not None) is control for one in decisive)
        text, page = summary.text(), write_page(found, summary).read_text()
        for said in (" ".join(text.split()), page):
            assert "50 studies a size" in said
            assert "standard error 7 points at most" in said
            assert ("with a control that is two margins worse" in said) is control
        assert ("equal ways called “no matter” in" in " ".join(text.split())) is control
        assert ("Equal: no matter" in page) is control


def test_rows_some_of_which_have_early_losses_are_refused_each_time(raced, tmp_path):
    some = f"**({{{EARLY}}} if seed % 2 and not gone else {{}}), "
    code = TOY.replace('"val_loss"', some + '"val_loss"')
    match = r"toy_some\.py:train \(.*seed \d+\): the row has .*in all rows of runs that lived"
    before = []
    for _ in range(2):
        with pytest.raises(ValueError, match=match):
            raced(code, name="toy_some.py")
        before.append((tmp_path / "race_toy_some" / "rows.jsonl").read_text())
    assert before[0] == before[1]


def test_early_losses_count_where_the_first_runs_all_diverged(raced):
    draws = Space(lr=Log(1e-4, 10.0)).draws(4, 0)
    timed = 64 * min(range(4), key=lambda i: draws[i]["lr"])
    code = TOY.replace("gone = ", f"gone = seed == {timed} or ")
    found = raced(code.replace('"val_loss"', WITH_EARLY + '"val_loss"'), margin=0.3, chance=4.9)
    assert found.verdict.control is not None


def test_rows_that_no_process_can_send_are_refused_by_name(raced):
    code = TOY.replace("    return rows", "    return (row for row in rows)")
    with pytest.raises(ValueError, match=r"returned <generator .*, as by list\(rows\)"):
        raced(code, name="toy_generator.py", jobs=2)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("class train: ...", r"no function 'train' \(it is <class '\w+\.train'>\), only helper"),
        ("train = 3", r"no function 'train' \(it is 3\), only helper$"),
        ("def other(): ...", "no function 'train', only helper, other$"),
        (
            "def train(configurations): ...",
            r"takes \(configurations\), expected one that is called",
        ),
        (
            "def train(a, b, c): ...",
            r"takes \(a, b, c\), expected .* train\(configurations, seeds\)",
        ),
        ("def train(a, b, c=1): ...", None),
        ("train = functools.partial(helper, 1)", None),
        ("train = max", None),
    ],
)
def test_what_is_no_training_function_is_refused_before_it_is_called(code, complaint, tmp_path):
    before = "import functools\n\nhelp = functools.partial(print)\n\n\ndef helper(*a): ...\n\n\n"
    path = write_toy(tmp_path, before + code + "\n", next(names))
    target = target_of(f"{path}:train")
    if complaint is None:
        assert callable(load(target))
    else:
        with pytest.raises(ValueError, match=complaint):
            load(target)


def test_what_the_function_raises_names_the_run(raced):
    with pytest.raises(RaisedError, match=r"raised SystemExit: 3 .* at \(none, lr .*, seed \d+\)"):
        raced(TOY.replace("    rows = []\n", "    raise SystemExit(3)\n"))


def test_only_one_race_runs_in_a_folder(raced, tmp_path):
    from cliplab.lab.batch.lock import locked

    folder = tmp_path / "race_toy_locked"
    with locked(folder), pytest.raises(ValueError, match="another race is running"):
        raced(name="toy_locked.py")


def test_a_file_that_ends_the_process_when_it_is_imported_is_refused(tmp_path):
    path = write_toy(tmp_path, "import sys\n\nsys.exit(0)\n", "toy_ends.py")
    with pytest.raises(ValueError, match=r"cannot be imported: SystemExit: 0 \(line 3 of toy_ends"):
        load(target_of(f"{path}:train"))


def test_a_folder_without_locks_is_refused(raced, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(ValueError, match=r"has no locks .*: give another one by --results"):
        raced()
