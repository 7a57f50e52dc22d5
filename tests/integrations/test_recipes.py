"""The recipes' own code, executed: every block of every framework's section."""

import re
import warnings
from pathlib import Path

import pytest
import torch
import trackers
from needs import need

import cliplab

TEXT = (Path(__file__).parents[2] / "docs" / "recipes" / "trainers.md").read_text("utf-8")
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST, *REST = re.split(r"^## ", TEXT, flags=re.MULTILINE)
SECTIONS = dict(section.split("\n", 1) for section in REST)
MODULES = {"Accelerate": "accelerate", "fastai": "fastai", "Ignite": "ignite", "Keras": "keras"}
MODULES |= {"Lightning": "lightning", "Loggers": "tensorboard", "skorch": "skorch"}
MODULES |= {"Stable-Baselines3": "stable_baselines3", "transformers": "transformers"}
HERE = MODULES.keys() - {"Keras"}  # which keras_on_torch.py runs, in a process on torch
LINES = re.findall(r"^\| (.+) \| `(log = .+)` \|$", SECTIONS["Loggers"], re.MULTILINE)


def test_the_page_has_a_section_for_each_framework():
    assert list(SECTIONS) == sorted(MODULES, key=str.lower)


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", [name for name in sorted(HERE) if BLOCKS.search(SECTIONS[name])]
)
def test_the_blocks_of_a_section_run_one_after_the_other(section, tmp_path, monkeypatch):
    need(MODULES[section], "integrations")
    monkeypatch.chdir(tmp_path)
    scope = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for block in BLOCKS.findall(FIRST + SECTIONS[section]):
            exec(block, scope)
    ours = [str(warning.message) for warning in said if "clip" in str(warning.message).lower()]
    assert not ours


class Writer:
    def __init__(self):
        self.steps = []

    def add_scalar(self, tag, scalar_value, global_step):
        if tag == "clip/norm_before":
            self.steps.append(global_step)


@pytest.mark.parametrize(("tracker", "line"), LINES)
def test_each_trackers_line_logs_each_step_once(tracker, line):
    names = {"run": trackers.Wandb(), "mlflow": trackers.Mlflow(), "aim_run": trackers.Aim()}
    names |= {"trackio": trackers.Trackio(), "accelerator": trackers.Accelerator()}
    names |= {"logger": trackers.LightningLogger(), "writer": Writer()}
    model = torch.nn.Linear(2, 2)
    scope = {"clipper": cliplab.Clipper(model, 1.0), **names}
    exec(line, scope)
    for _ in range(12):
        model(torch.ones(1, 2)).sum().backward()
        scope["clipper"].clip()
        scope["log"]()
        model.zero_grad()
    (used,) = [name for name in names if re.search(rf"\b{name}\b", line)]
    expected = [0, 10] if tracker == "one step in ten" else list(range(12))
    assert names[used].steps == expected


def test_there_is_a_line_for_each_tracker():
    assert len(LINES) == 8
