"""The batch runner against plain papermill, and against SIGKILL; Linux.

`python benchmarks/batch.py [--only run,kills] [--rounds 5] [--seed 0] [--write]`

`run`: what one more run of a trivial notebook costs, as the slope between two grids, against one
`papermill` command. `grid`: LSTM runs on two workers, start-up and report included, against `xargs
-P2` over papermill. `finished`: a command whose runs are done, again. `kills`: runner, workers,
fork servers and kernels are killed at random, and nothing may be lost, run twice or left behind.

Arms are interleaved; times are medians of wall clock and of user + system CPU of all processes.
Target: what is aimed at. `--write` puts what was measured into benchmarks/batch.md.
"""

import argparse
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil
from nbformat import v4, write

from cliplab.lab.kernels.processes import adopt_orphans, end
from cliplab.lab.runs.provenance import provenance
from cliplab.lab.runs.record import RunRecord

ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
ENV.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their modules compiled
PAPERMILL = [sys.executable, "-m", "papermill"]
PARAMETERS = "first_seed: int = 0  # first seed [>= 0]\nn_seeds: int = 1  # seeds"
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
NAP = "import random, time\ntime.sleep(random.Random(first_seed).uniform(0.3, 0.6))"
LOG = "with open('log.txt', 'a') as log:\n    log.write(f'{first_seed} {n_seeds}\\n')\n"
RECORD = "from cliplab.lab import record\nrecord([{'arm': 'a', 'seed': first_seed, 'x': 1.0}])"
KINDS = {"runner": "cliplab.cli", "worker": "multiprocessing.forkserver"}
KINDS |= {"fork server": "zygote.py", "kernel": "ipykernel_launcher"}
MARK = "CLIPLAB_BENCHMARK"  # in the environment of a command and of all that descends from it
NONE_OF = ("unexplained", "last exit status", "lost", "run twice", "missing", "left behind")


def write_notebook(path, *cells):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    tagged = v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [v4.new_markdown_cell("# A question?"), tagged, *map(v4.new_code_cell, cells)]
    write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def cliplab_run(notebook, results, seeds, jobs):
    """The command for one run a seed."""
    grid = f"first_seed={','.join(map(str, seeds))}"
    command = [sys.executable, "-m", "cliplab.cli", "run", notebook, "--preset", "quick"]
    command += ["--grid", grid, "--jobs", jobs, "--notebooks", notebook.parent]
    return list(map(str, [*command, "--results", results, "--reports", results / "html"]))


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


def records_in(results):
    """All records there, each checked against its own hash."""
    return [RunRecord.load(path) for path in results.glob("*/*/*/record.json")]


def kills(folder, n_kills=100, seed=0, size=80, limit_s=1800.0):
    """Kill processes of grids of ``size`` runs, then finish; counts, 0 for those in ``NONE_OF``."""
    adopt_orphans()  # they would end with pid 1 as their parent
    chaos = Chaos(folder, n_kills, seed, time.monotonic() + limit_s)
    try:
        while chaos.goes_on():
            chaos.carry_out(range(chaos.total, chaos.total + size))
        chaos.carry_out(range(chaos.total))
        return chaos.outcome()
    finally:
        end(family(folder))


class Chaos:
    """Batches in one results folder whose processes get killed, and what was seen there."""

    def __init__(self, folder, n_kills, seed, deadline):
        self.folder, self.results = folder, folder / "results"
        self.n_kills, self.deadline, self.total = n_kills, deadline, 0
        self.notebook = write_notebook(folder / "chaos.ipynb", NAP, LOG + RECORD)
        self.rng, self.kinds, self.count = random.Random(seed), [], Counter()
        self.seen, self.lost, self.rewritten = {}, set(), set()

    def goes_on(self):
        return self.count["kills"] < self.n_kills and time.monotonic() < self.deadline

    def carry_out(self, seeds):
        """The same command until it ends by itself; kills on the way, as long as they go on."""
        self.total, status = seeds.stop, -signal.SIGKILL
        while status == -signal.SIGKILL:
            runner = self.start(seeds)
            while self.goes_on() and runner.poll() is None:
                self.strike()
                self.look()
            status = runner.wait(600)
        self.look()
        self.account(status, seeds)

    def start(self, seeds):
        self.count["commands"] += 1
        command = cliplab_run(self.notebook, self.results, seeds, 2)
        with (self.folder / "said.txt").open("wb") as said:
            env = ENV | {MARK: str(self.folder)}
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=env)

    def strike(self):
        """Kill, at a random moment, one of a kind whose turn it is; each has as many turns."""
        time.sleep(self.rng.uniform(0, 1.5))
        self.kinds = self.kinds or [*KINDS]
        kind = self.rng.choice(self.kinds)
        with suppress(IndexError, psutil.NoSuchProcess):  # there is none now
            self.rng.choice(family(self.folder, kind)).kill()
            self.kinds.remove(kind)
            self.count.update(["kills", f"kills of a {kind}"])

    def look(self):
        """Every record is to stay as it was first seen: its content, its file."""
        paths = self.results.glob("*/*/*/record.json")
        now = {p: (p.read_bytes(), p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}
        self.seen = first = now | self.seen
        self.lost |= {p for p in first if p not in now or now[p][0] != first[p][0]}
        self.rewritten |= {p for p in now if now[p][1:] != first[p][1:]}

    def account(self, status, seeds):
        """A command that ended by itself: each run has its record, or is listed as failed."""
        table = (self.folder / "said.txt").read_text(encoding="utf-8").partition("failed run ")[2]
        listed = set(map(int, re.findall(r"^chaos first_seed=(\d+) ", table, re.MULTILINE)))
        missing = set(seeds) - {record.params["first_seed"] for record in records_in(self.results)}
        self.count["listed as failed after two attempts"] += len(listed)
        self.count["unexplained"] += len(missing - listed) + (status != bool(listed))
        self.count["last exit status"] = status

    def outcome(self):
        """Counts, once the family had time to end."""
        psutil.wait_procs(family(self.folder), timeout=60)
        runs = [record.params["first_seed"] for record in records_in(self.results)]
        lines = (self.folder / "log.txt").read_text().splitlines()
        return {
            **dict(sorted(self.count.items())),
            "runs": len(runs),
            "killed between their line in a log and their record": len(lines) - len(runs),
            "lost": len(self.lost),
            "run twice": len(self.rewritten) + len(runs) - len(set(runs)),
            "missing": len(set(range(self.total)) - set(runs)),
            "left behind": len(family(self.folder)),
        }


def family(folder, kind=None):
    """The living that descend from a command on this folder: all, or those of a kind."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder) and kind in (None, kind_of(process)):
                found.append(process)
    return found


def kind_of(process):
    """By its command; what was forked has that of its parent."""
    line, above = (" ".join(p.cmdline()) if p else "" for p in (process, process.parent()))
    if KINDS["fork server"] in line:
        return "kernel" if KINDS["fork server"] in above else "fork server"
    if KINDS["worker"] in line:
        return "worker" if KINDS["worker"] in above else "server of workers"
    return next((kind for kind, part in KINDS.items() if part in line), "")


def survival(folder, options):
    """SIGKILL at random moments, two workers."""
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
