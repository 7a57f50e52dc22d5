"""The pages' own commands: the parser takes each, and the page on running knows every option."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from cliplab.cli.arguments import parse_arguments
from cliplab.cli.main import main

ROOT = Path(__file__).parents[1]
RUNNING = ROOT / "docs" / "running.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Each line of a shell block, and each text between backticks, that calls cliplab."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [
            line
            for kind, block in BLOCK.findall(text)
            if kind == "sh"
            for line in block.splitlines()
        ]
        lines += re.findall(r"`(cliplab \w+ [^`]+)`", BLOCK.sub("", text))
        found += [(page.name, line) for line in lines if line.startswith("cliplab ")]
    return found


@pytest.mark.parametrize(("page", "line"), [pytest.param(*c, id=": ".join(c)) for c in commands()])
def test_the_parser_takes_every_command(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine/data").mkdir(parents=True)
    Path("grid.toml").write_text("width = [64, 128]\n")
    Path("values.yaml").write_text("lr: 0.1\n")
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "3"), comments=True)[1:]
    if words != ["run", "--help"]:
        assert parse_arguments(words).command == words[0]


def test_the_page_has_commands_of_every_kind():
    told = {line.split()[1] for _, line in commands()}
    assert told == {
        *("run", "list", "report", "attest", "diagnose"),
        *("export", "diff", "inspect", "notebooks", "register", "calibrate", "remeasure"),
        *("race", "new"),
    }


def test_the_page_on_running_tells_of_every_option(capsys):
    page = RUNNING.read_text("utf-8")
    for command in ("run", "export", "diff", "inspect", "notebooks", "diagnose"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = re.findall(
            r"^ +(?:(-\w)\b[^-\n]*)?(?:, )?(--[a-z-]+)?", capsys.readouterr().out, re.M
        )
        for option in {name for pair in options for name in pair if name} - {"-h", "--help"}:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", page), (command, option)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_in_the_pages_are_what_they_say(page):
    readers = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    readers["python"] = lambda text: compile(text, page.name, "exec")
    for kind, block in BLOCK.findall(page.read_text("utf-8")):
        if kind in readers:
            assert readers[kind](block)


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for _, block in BLOCK.findall((ROOT / "README.md").read_text("utf-8")):
        assert set(re.findall(r"^make (\w+)", block, re.MULTILINE)) <= set(targets)
