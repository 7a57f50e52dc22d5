"""The bar of a study: what it counts, where it is shown, and that it moves no number."""

import io
import re
import sys

import pytest
from studying import study, surface

from cliplab.lab.notebook.inside import ASKED
from cliplab.lab.study.study import Study as Silent


class Terminal(io.StringIO):
    """A terminal that somebody looks at, or a log that nobody does."""

    def __init__(self, looked_at):
        super().__init__()
        self.isatty = lambda: looked_at


@pytest.fixture
def carry_out(monkeypatch):
    """Run a study of a size; its rows, and what it wrote there."""
    monkeypatch.delenv(ASKED, raising=False)  # of a run in this process

    def carry_out(one, size, looked_at=True):
        with monkeypatch.context() as now:
            now.setattr(sys, "stderr", Terminal(looked_at))
            return one.run(size, 10**6), sys.stderr.getvalue()

    return carry_out


def counts(written):
    """What the bar said: way, runs done, of how many."""
    lines = re.split(r"[\r\n]+", written)
    found = (re.match(r"toy: (\w+):.* (\d+)/(\d+) \[.*<.*\]", line) for line in lines)
    return [(one[1], int(one[2]), int(one[3])) for one in found if one]


@pytest.mark.parametrize("fails", [0.0, 0.2])
def test_the_bar_counts_every_run_and_knows_of_how_many(carry_out, fails):
    rows, written = carry_out(study(surface(fails=fails)), "full32")
    seen = counts(written)
    assert {way for way, _, _ in seen} == {"none", "norm"}
    assert seen[0][1:] == (0, 2 * (64 + 72 + 33))
    assert seen[-1][1:] == (len(rows), len(rows))
    extended = {total for _, _, total in seen} - {seen[0][2]}
    assert bool(extended) == (fails > 0)  # a failure asks for 96 more of each way


def test_no_number_depends_on_the_bar(carry_out):
    one = study(surface(fails=0.2))
    names = ("space", "ways", "versus", "chance", "lost", "handicaps", "at_once")
    plain = Silent(one.name, one.train, **{name: getattr(one, name) for name in names})
    rows, written = carry_out(one, "full32")
    assert counts(written)
    assert (rows, "") == carry_out(plain, "full32")
    assert one.about() == plain.about()


def test_nobody_is_shown_a_bar_in_a_batch_or_a_log(carry_out, monkeypatch):
    assert carry_out(study(), "tiny", looked_at=False)[1] == ""
    monkeypatch.setenv(ASKED, "torch")
    assert carry_out(study(), "tiny")[1] == ""


def test_an_error_of_the_training_goes_through(carry_out):
    with pytest.raises(ZeroDivisionError):
        carry_out(study(lambda configurations, seeds: 1 / 0), "tiny")
