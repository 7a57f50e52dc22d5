"""The batch runner against plain papermill, and against SIGKILL; Linux.

`python benchmarks/batch.py [--only run,kills] [--rounds 5] [--seed 0] [--write]`

`run`: what one more run of a trivial notebook costs, as the slope between two grids, against one
`papermill` command. `grid`: LSTM runs on two workers, start-up and report included, against `xargs
-P2` over papermill. `finished`: a command whose runs are done, again. `kills`: runner, workers (two
times in three of our own, else Dask's), fork servers and kernels are killed at random, the runner
loses its terminal, notebook and module change under a run: nothing may be lost, run twice, left
behind, or kept under the key of other code.

Arms are interleaved; times are medians of wall clock and of user + system CPU of all processes.
Target: what is aimed at. `--write` puts what was measured into benchmarks/batch.md.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from cliplab.lab.kernels.processes import adopt_orphans
from cliplab.lab.runs.provenance import provenance

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chaos import ENV, NONE_OF, RECORD, cliplab_run, kills, records_in, write_notebook

PAPERMILL = [sys.executable, "-m", "papermill"]
IMPORTS = "import gymnasium, seaborn, torch\nprint(torch.__version__)"
TRAIN = """\
torch.manual_seed(first_seed)
lstm, readout = torch.nn.LSTM(16, 64, batch_first=True), torch.nn.Linear(64, 16)
optimizer, losses = torch.optim.Adam([*lstm.parameters(), *readout.parameters()]), []
for _ in range(150):
    x = torch.randn(32, 40, 16)
    loss = (readout(lstm(x)[0])[:, 1:] - x[:, :-1]).square().mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    losses.append(loss.item())
seaborn.lineplot(losses);"""


def measure(command):
    """Seconds until a command ends, and seconds of CPU of all its processes.

    What the dead used goes to who reaps them: a parent, or for orphans this process, a subreaper.
    """
    adopt_orphans()
    cpu_s = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
    cpu, began = cpu_s(), time.perf_counter()
    with tempfile.TemporaryFile() as said:  # a pipe would wait for orphans
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=said, env=ENV)
        wall = time.perf_counter() - began
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        said.seek(0)
        assert done.returncode == 0, (command, said.read().decode())
    return wall, cpu_s() - cpu


def interleaved(arms, rounds):
    """Median ``(wall, CPU)`` of every arm's command, one for each round; the order turns."""
    labels, costs = list(arms), defaultdict(list)
    for i in range(rounds):
        for label in labels[i % len(labels) :] + labels[: i % len(labels)]:
            costs[label].append(measure(arms[label](i)))
    return {label: list(map(statistics.median, zip(*costs[label], strict=True))) for label in arms}


def one_more_run(folder, options, few=2, more=10):
    """One more run of a trivial notebook with the usual imports, one worker."""
    notebook = write_notebook(folder / "trivial.ipynb", IMPORTS, RECORD)
    papermill = [*PAPERMILL, notebook, folder / "out.ipynb", "-p", "first_seed"]
    arms = {
        "papermill": lambda i: [*papermill, str(i)],
        "few": lambda i: cliplab_run(notebook, folder / f"few-{i}", range(few), 1),
        "many": lambda i: cliplab_run(notebook, folder / f"many-{i}", range(few + more), 1),
    }
    cost = interleaved(arms, options.rounds)
    slope = [(many - less) / more for many, less in zip(cost["many"], cost["few"], strict=True)]
    return against(slope, cost["papermill"], ("<= 0.12", "<= 0.08"))


def seeded_grid(folder, options, n=20):
    """Twenty seeded LSTM runs on two workers."""
    notebook = write_notebook(folder / "lstm.ipynb", IMPORTS, TRAIN, RECORD)
    words = [f"{notebook} {folder}/out-{seed}.ipynb -p first_seed {seed}\n" for seed in range(n)]
    (folder / "lines").write_text("".join(words))
    arms = {
        "papermill": lambda i: ["xargs", "-a", folder / "lines", "-P2", "-L1", *PAPERMILL],
        "cliplab": lambda i: cliplab_run(notebook, folder / f"{i}", range(n), 2),
    }
    cost = interleaved(arms, options.rounds)
    one = statistics.median(r.provenance["wall_s"] for r in records_in(folder / "0"))
    more = [("wall of one run in its worker", f"{one:.2f} s", "")]
    return against(cost["cliplab"], cost["papermill"], ("<= 0.4", "")) + more


def finished_batch(folder, options, n=100):
    """A batch whose runs are all done."""
    notebook = write_notebook(folder / "trivial.ipynb", RECORD)
    command = cliplab_run(notebook, folder / "results", range(n), 2)
    measure(command)
    arms = {
        f"{n} finished runs, again": lambda i: command,
        "the same with --dry-run": lambda i: [*command, "--dry-run"],
        "`python -c 'import torch'`": lambda i: [sys.executable, "-c", "import torch"],
    }
    cost = interleaved(arms, options.rounds)
    rows = [(a, f"{wall:.2f} s", "<= 2 s" * ("again" in a)) for a, (wall, _) in cost.items()]
    again, _, torch = (wall for wall, _ in cost.values())
    return [*rows, ("again / `import torch`", f"{again / torch:.2f}", "")]


def against(ours, peers, targets):
    """Ratios of wall and CPU, each with the seconds it is of."""
    rows = []
    for name, *costs, aim in zip(("wall", "CPU"), ours, peers, targets, strict=True):
        rows.append((f"{name}, cliplab / papermill", f"{costs[0] / costs[1]:.3f}", aim))
        rows.append((f"{name}, cliplab and papermill", "{:.2f} s, {:.2f} s".format(*costs), ""))
    return rows


def survival(folder, options):
    """SIGKILL, SIGHUP and new code at random moments, two workers."""
    found = kills(folder, seed=options.seed)
    assert not any(found[what] for what in NONE_OF), found
    targets = {"kills": "100"} | dict.fromkeys(NONE_OF, "0")
    return [(what, str(n), targets.get(what, "")) for what, n in found.items()]


def section(name, rows, options):
    """A part's table, and where its numbers are from."""
    told = provenance()
    parts = [f"{package} {version(package)}" for package in ("torch", "papermill", "cliplab")]
    parts += [f"commit {str(told['git_sha'])[:8]}", told["hardware"]["cpu"]]
    parts += [f"{told['hardware']['cores']} cores", f"{options.rounds} rounds"]
    lines = [f"## {PARTS[name].__doc__}", "", "| what | measured | target |", "| --- " * 3 + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"{time.strftime('%Y-%m-%d')}: {', '.join(parts)}."])


def store(path, measured):
    """Put a new section into the file in place of an older one, each part in its turn."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = {s.partition("\n")[0]: s.strip() for s in re.split(r"^(?=## )", text, flags=re.M)[1:]}
    kept[measured.partition("\n")[0]] = measured
    titles = [f"## {part.__doc__}" for part in PARTS.values()]
    told = "# The batch runner\n\nWritten by `python benchmarks/batch.py --write`."
    sections = [kept[title] for title in titles if title in kept]
    path.write_text("\n\n".join([told, *sections]) + "\n", encoding="utf-8")


PARTS = {"run": one_more_run, "grid": seeded_grid, "finished": finished_batch, "kills": survival}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="|".join(PARTS), help="parts (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--write", action="store_true", help="store as benchmarks/batch.md")
    options = parser.parse_args()
    for name in ",".join(options.only or PARTS).split(","):
        with tempfile.TemporaryDirectory(prefix="batch-") as folder:
            text = section(name, PARTS[name](Path(folder), options), options)
        print(text, end="\n\n", flush=True)
        if options.write:
            store(Path(__file__).with_suffix(".md"), text)


if __name__ == "__main__":
    main()
