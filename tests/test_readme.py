"""The README: short, its links lead somewhere, its recipes run as they stand."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_it_is_one_that_is_read():
    assert len(README.splitlines()) <= 150
    assert len(RECIPES) == 3
    assert README.count("![") == 1
    table = README.split("<!-- answers:begin -->")[1].split("<!-- answers:end -->")[0]
    assert len(re.findall(r"^\| (?!Question|---)", table, re.MULTILINE)) == 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    for target in found:
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_first_two_recipes_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    batches = [10 * torch.randn(8, 3) for _ in range(200)]
    scope = {"torch": torch, "model": model, "batches": batches, "loader": batches[:100]}
    scope["optimizer"] = torch.optim.SGD(model.parameters(), lr=1e-4)
    scope["loss"] = lambda model, batch: model(batch).square().mean()
    exec(RECIPES[0], scope)
    assert torch.load("clipper.pt", weights_only=True) == scope["clipper"].state_dict()
    assert scope["clipper"].history.clipped.sum() == 100
    assert "always clips: 100% of the steps" in capsys.readouterr().out
    scope["clipper"].detach()
    before = [p.clone() for p in model.parameters()]
    exec(RECIPES[1], scope)
    assert scope["found"].found
    assert all(map(torch.equal, before, model.parameters()))
    assert "autoclip" in repr(scope["clipper"]) or "Percentile" in repr(scope["clipper"])


def test_the_third_names_what_there_is():
    from importlib.util import find_spec

    [module] = re.findall(r"^from (\S+) import Clip", RECIPES[2], re.MULTILINE)
    assert find_spec(module)
