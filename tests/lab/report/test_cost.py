"""What RESULTS.md says of computing: every run, and every pilot that was timed."""

import json
import re
from pathlib import Path

import pytest

from cliplab.lab.report.cost import TIMES, computing, cost, read_times, times_text, with_times
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
    assert "of 1 notebooks took 1.0 core-hours" in computing(published(about), {})


def test_the_sentence_has_the_least_and_the_most():
    both = published({"01_toy": took(3000.0), "02_other": took(600.0)})
    told = computing(both, {"01_toy": {"smoke": 30.0}, "02_other": {"quick": 200.0}})
    assert "took 1.0 core-hours, 10.0 to 50.0 core-minutes a notebook" in told
    assert "In core-minutes (notebooks): smoke 0.5 (1)" in told
    assert "smoke" not in computing(both, {})


def test_without_records_nothing_is_said():
    assert cost(published()) == computing(published(), {}) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 second"), (8.0, "8 seconds"), (70.0, "about 1 minute"), (100.0, "about 2 minutes")],
)
def test_a_title_tells_the_time_also_where_it_is_short_and_each_time_anew(seconds, said):
    title = (
        "# Is it?\n\n**Expected time** (one core): {} · full days (at 1.5 GHz). More. Twice.\n\n$x$"
    )
    told = with_times(
        title.format("quick 1.5 minutes · verdict 10 to 15 minutes"), took(seconds), {}
    )
    assert told == title.format(f"quick 1.5 minutes · verdict {said}")
    again = with_times(told, took(500.0), {"smoke": 4.0, "quick": 90.0})
    assert again == title.format(
        "smoke 4 seconds · quick about 2 minutes · verdict about 8 minutes"
    )


@pytest.mark.parametrize("title", ["# No line", "**Expected time**: under a minute · always."])
def test_a_title_without_presets_stays(title):
    assert with_times(title, took(8.0), {"smoke": 4.0}) == title


def test_what_is_written_of_times_is_read_and_what_is_damaged_named(tmp_path):
    assert read_times(tmp_path) == {}
    times = {"01_toy": {"smoke": 3.0, "quick": 61.5}, "ordner/größe": {"smoke": 0.5}}
    path = tmp_path / TIMES
    path.parent.mkdir()
    path.write_text(times_text(times), encoding="utf-8")
    assert read_times(tmp_path) == times
    for text in ("[", "smoke = 1.0", "[a]\nfull = 1.0", "[a]\nsmoke = 'x'"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"times.toml: "):
            read_times(tmp_path)


NOTEBOOKS = sorted((ROOT := Path(__file__).parents[3]).glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_tells_only_times_that_were_measured_but_for_full(path):
    """They stand in its title; those of presets that were not timed are left out."""
    text = path.read_text(encoding="utf-8")
    (line,) = re.findall(r"\*\*Expected time\*\* \(one core\): (.*?)\.(?:\\n| )", text)
    timed = read_times(ROOT).get(path.stem, {})
    about = json.loads((ROOT / "records" / f"{path.stem}.json").read_text("utf-8"))
    verdict = [] if about.get("pending") else ["verdict"]
    parts = [part.split(" ")[0] for part in line.split(" · ")]
    assert [part for part in parts if part != "full"] == [*timed, *verdict]
    assert all("estimated" in part for part in line.split(" · ") if part.startswith("full"))
