"""``--help``: it fits a terminal, and its examples are commands that work as they are."""

import re
import shlex
from pathlib import Path

import pytest
from commanding import status_of

from cliplab.cli.arguments import parse_arguments

PAGE = Path(__file__).parents[2] / "docs" / "your_own_training.md"  # its commands are run


@pytest.fixture
def examples(monkeypatch, capsys):
    """The examples in the help of a command, once it is known to fit."""

    def shown(command):
        monkeypatch.setenv("COLUMNS", "80")
        assert status_of(f"{command} --help") == 0
        told = capsys.readouterr().out
        assert max(map(len, told.splitlines())) <= 80
        lines = told.split("\nexamples:\n")[1].splitlines()
        return [" ".join(shlex.split(line, comments=True)) for line in lines]

    return shown


@pytest.mark.parametrize("command", ["race", "new"])
def test_the_examples_on_ones_own_training_are_those_of_its_page(command, examples):
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    run = [
        " ".join(shlex.split(line, comments=True))
        for start in ("cliplab new train.py", "cliplab new my-study")
        for line in next(b for b in blocks if b.startswith(start)).splitlines()
    ]
    found = examples(command)
    assert len(found) >= 3
    for example in found:
        parse_arguments(example.split()[1:])
        assert example.removesuffix(" --repeat 1") in run


def test_the_first_examples_work_one_after_the_other(examples, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    *found, new, race = examples("")
    assert [example.split()[1] for example in found] == ["notebooks", "list", "run"]
    for example in found:
        dry = " --dry-run" if " run " in example else ""
        assert status_of(example.removeprefix("cliplab ") + dry) == 0
    assert "01_exploding_gradients" in capsys.readouterr().out.splitlines()[-1]
    assert {new, race} <= set(examples("new"))
