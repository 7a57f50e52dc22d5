"""The code of the pages that tell how to begin, to migrate and to use several processes, run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import LONG

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> list[str]:
    return BLOCKS.findall((DOCS / page).read_text("utf-8"))


@pytest.mark.parametrize(("page", "count"), [("quick_start.md", 6), ("recipes/migrating.md", 5)])
def test_the_blocks_of_a_page_run_one_after_the_other(page, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks, scope = blocks_of(page), {}
    assert len(blocks) == count
    for block in blocks:
        exec(block, scope)


def test_the_quick_start_clips_and_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, told, *_ = blocks_of("quick_start.md")
    scope = {}
    exec(first + told, scope)
    assert scope["clipper"].history.clipped.any()
    assert scope["losses"][-1] < scope["losses"][0] / 2
    weights = [p.detach().clone() for p in scope["model"].parameters()]
    exec("".join(blocks_of("quick_start.md")[3:4]), scope)  # the probe gives the model back
    assert all(map(torch.equal, weights, scope["model"].parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("script", blocks_of("recipes/distributed.md"), ids=["DDP", "FSDP2"])
def test_a_script_runs_in_two_processes(script, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script + "\nprint(f'done {clipper.steps}\\n', end='')\n", "utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ran = subprocess.run(
        [*command, "--nproc-per-node", "2", str(path)],
        env=environment, capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(re.findall(r"done [1-9]", ran.stdout)) == 2
