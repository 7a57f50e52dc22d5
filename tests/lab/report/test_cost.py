"""What RESULTS.md says of computing: every run, and every pilot that was timed."""

import pytest

from cliplab.lab.report.cost import computing, cost, with_time
from cliplab.lab.report.published import Published


def published(about=None, again=None, pilots=()):
    return Published(
        about={} if about is None else about,
        verdicts={},
        registrations={"01_toy": {"pilots": list(pilots)}},
        about_again={} if again is None else again,
    )


def took(seconds):
    return {"provenance": {"cpu_s": seconds, "wall_s": 2 * seconds}}


def test_runs_replications_and_pilots_are_added_up():
    told = cost(
        published(
            {"01_toy": took(3000.0), "02_other": took(600.0)},
            {"01_toy": took(3600.0)},
            [{"cpu_s": 120.0}, {"cpu_s": 60.0}],
        )
    )
    assert told.startswith("In all 2.0 core-hours. Scratch runs")
    assert "| [01_toy](notebooks/01_toy.ipynb) | 50.0 | 60.0 | 3.0 | 100.0 |" in told
    assert "| [02_other](notebooks/02_other.ipynb) | 10.0 | – | – | 20.0 |" in told


def test_pilots_without_a_time_are_named_not_guessed():
    told = cost(published({"01_toy": took(3600.0)}, pilots=[{}, {"cpu_s": 3600.0}, {}]))
    assert "In all 2.0 core-hours. 2 pilots were registered without their time" in told


def test_a_superseded_run_is_no_part_of_it():
    about = {"01_toy": took(3600.0), "02_old": took(7200.0) | {"pending": "asked again"}}
    told = cost(published(about))
    assert "In all 1.0 core-hours." in told
    assert "| [02_old](notebooks/02_old.ipynb) | – | – | – | – |" in told
    assert "of 1 notebooks took 1.0 core-hours" in computing(published(about))


def test_the_sentence_has_the_least_and_the_most():
    told = computing(published({"01_toy": took(3000.0), "02_other": took(600.0)}))
    assert "took 1.0 core-hours, 10.0 to 50.0 core-minutes a notebook" in told


def test_without_records_nothing_is_said():
    assert cost(published()) == computing(published()) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(8.0, "less than a minute"), (70.0, "about 1 minute"), (100.0, "about 2 minutes")],
)
def test_a_title_tells_the_time_also_where_it_is_short_and_each_time_anew(seconds, said):
    title = "**Expected time**: quick 2 minutes · verdict {} · full days"
    told = with_time(title.format("10 to 15 minutes"), took(seconds))
    assert told == title.format(said)
    assert with_time(told, took(500.0)) == title.format("about 8 minutes")
