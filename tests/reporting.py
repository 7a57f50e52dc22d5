"""A run of a notebook with everything that a page shows, and claims of every outcome."""

import base64
import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from studying import comparison, demonstration, identity, study, surface

from cliplab.lab.claims import Claim, Ledger, judge_all
from cliplab.lab.report.beside import Beside
from cliplab.lab.report.twelve import Answer
from cliplab.lab.runs.record import RunRecord

NAME = "01_exploding_gradients"


def png() -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.5))
    axes = figure.subplots()
    axes.plot([1, 3, 2, 5], label="norm before clipping")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return base64.b64encode(buffer.getvalue()).decode()


def executed_notebook() -> nbformat.NotebookNode:
    frame = "<table border='1' class='dataframe'><tr><th>arm</th></tr><tr><td>a</td></tr></table>"
    remote = "<script src='https://example.org/x.js'></script><img src='//example.org/a.png'>"
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# Exploding gradients, $\\lVert g \\rVert > c$\n\n"
                "**Question:** Does clipping at $c = 1$ *prevent* explosion?\n\n"
                "Paper: [here](https://example.org/p). ![badge](https://example.org/b.svg)\n\n"
                "$$\ng \\leftarrow g \\min\\left(1, \\frac{c}{\\lVert g \\rVert_2}\\right)\n$$\n\n"
                "A run costs $5 to $10, `$x$` is code, $\\undefinedcommand{y}$ is unknown.\n\n"
                "| a | b |\n|---|---|\n| $|x|$ | $a_i * b_i * c$ |"
            ),
            new_code_cell(
                "import torch\nlr: float = 0.1\nfor step in range(3):\n    loss = f'{lr}'",
                outputs=[
                    new_output("stream", name="stdout", text="step 1\n" * 80 + "long line " * 60),
                    new_output("display_data", {"image/png": png(), "text/plain": "<Figure>"}),
                    new_output("display_data", {"text/html": frame + remote}),
                    new_output("display_data", {"text/markdown": "norm $n^2$"}),
                    new_output(
                        "error",
                        ename="ValueError",
                        evalue="lr <= 0",
                        traceback=["\x1b[31mValueError\x1b[0m: lr <= 0"],
                    ),
                ],
            ),
        ]
    )


WAYS = {"good": 0.3, "bad": -1.0, "same": 0.0, "odd": 0.09}
STUDY = study(
    surface(**WAYS),
    ways={"none": ["lr"]} | {way: ["lr", "threshold"] for way in WAYS},
    versus=[(way, "none") for way in WAYS],
)


def claim(way: str) -> Claim:
    question = f"Does {way} clipping help where x < y & z?"
    return comparison(id=f"{way}_clip", notebook=NAME, first=way, question=question)


SHOWN = demonstration(
    notebook=NAME,
    statement="At ten times the best rate clipping at 1 ends lower",
    metric="val_loss",
    first="clip 1",
    chosen="unclipped runs fail there",
    source="a | paper",
)
IDENTITY = identity(
    id="identity", notebook=NAME, statement="A huge threshold changes nothing", arms=("none",)
)
WITHDRAWN = Claim(id="C1", kind="withdrawn", notebook=NAME, statement="It was claimed once")
CLAIMS = [*map(claim, [*WAYS, "absent"]), SHOWN, IDENTITY, WITHDRAWN]
LEDGER = Ledger({c.id: c for c in CLAIMS}, 25)


def rows(first_seed: int = 2000, n: int = 8) -> list[dict]:
    shift = {"none": 0.0, "clip 1": -0.2}
    made = []
    for seed in range(first_seed, first_seed + n):
        noise = ((seed * 37) % 11 - 5) / 100
        for arm, by in shift.items():
            own = ((seed * (3 + len(arm))) % 7 - 3) / 100
            made.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "model": "tanh RNN",
                    "task": "temporal order, T = 20",
                    "lr": 0.1,
                    "threshold": None if arm == "none" else float(arm.split()[1]),
                    "diverged": arm == "none" and seed % 2 == 0,
                    "norm_median": 1234.5,
                    "clip_fraction": 0.25 if arm != "none" else 0.0,
                    "excess": 0.0123,
                    "val_loss": 2 + by + noise + own,
                    "same": True,
                }
            )
        again = {"arm": "A/A none", "of": "none", "val_loss": 2 + noise + 0.001}
        made.append(made[-2] | again)
    return made


@cache
def study_rows() -> list[dict]:
    return STUDY.run("full", 10**6)


def run_record(folder: Path, preset: str = "verdict", first_seed: int = 2000, n: int = 8):
    """A run that demonstrates: portions of its seeds may be recorded one by one."""
    key = f"{first_seed:064x}"[::-1]
    directory = folder / key[:8]
    directory.mkdir(parents=True)
    nbformat.write(executed_notebook(), directory / "notebook.ipynb")
    provenance = {
        "git_sha": "abc",
        "git_dirty": False,
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "hardware": {"cpu": "A processor", "cores": 2},
        "finished": "2026-01-02T03:04:05Z",
        "wall_s": 125.0,
        "cpu_s": 120.5,
    }
    return RunRecord(
        notebook=NAME,
        preset=preset,
        params={"lr": 0.1, "first_seed": first_seed, "n_seeds": n},
        key=key,
        code_key="c" * 64,
        rows=rows(first_seed, n),
        curves=[],
        choices={"clip 1": {"lr": 0.1}},
        provenance=provenance,
        directory=directory,
    )


def studied_record(folder: Path, **changes: object):
    """A run with a study, too."""
    record = run_record(folder, **changes)
    choices = record.choices | {"studies": {"toy": STUDY.about()}}
    return replace(record, rows=[*record.rows, *study_rows()], choices=choices)


@cache
def published() -> Beside:
    """An answer, and verdicts of every outcome, as if they were published."""
    studies = {NAME: {"toy": STUDY.about()}}
    full = {NAME: [*rows(), *study_rows()]}
    verdicts = {v.id: v for v in judge_all(full, "verdict", LEDGER, studies)}
    grade, notebooks = "replicated 2, decided 1", (NAME, "02_other")
    answer = Answer(3, "Does it help?", "Often, `c` at $c=1$", "+0.3", grade, ("never",), notebooks)
    return Beside([answer], verdicts)
