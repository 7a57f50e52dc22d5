"""A grid of runs whose processes are killed at random: nothing may be lost, run twice, left behind.

For test_kills.py, and at length for `python benchmarks/batch.py --only kills`. Linux.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from nbformat import v4, write

from cliplab.lab.kernels.processes import adopt_orphans, end
from cliplab.lab.runs.record import RunRecord

ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
ENV.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their modules compiled
PARAMETERS = "first_seed: int = 0  # first seed [>= 0]\nn_seeds: int = 1  # seeds"
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
