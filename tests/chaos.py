"""A grid of runs whose processes are killed at random, and whose code changes meanwhile: nothing
may be lost, run twice, left behind, or kept under the key of other code.

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

from cliplab.lab.batch.plan import plan
from cliplab.lab.kernels.processes import adopt_orphans, end
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.record import RunRecord

ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
ENV.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their modules compiled
PARAMETERS = "first_seed: int = 0  # first seed [>= 0]\nn_seeds: int = 1  # seeds"
NAP = "import random, time\ntime.sleep(random.Random(first_seed).uniform(0.3, 0.6))"
LOG = "with open('log.txt', 'a') as log:\n    log.write(f'{first_seed} {n_seeds}\\n')\n"
RECORD = "from cliplab.lab import record\nrecord([{'arm': 'a', 'seed': first_seed, 'x': 1.0}])"
CODE = "from beside import THERE\nHERE = {}\n" + RECORD.replace("1.0", "f'{HERE}, {THERE}'")
KINDS = {"runner": "cliplab.cli", "worker": "multiprocessing.forkserver"}
KINDS |= {"Dask worker": "multiprocessing.spawn", "fork server": "zygote.py"}
KINDS |= {"kernel": "ipykernel_launcher"}
KILL, HANG_UP, CHANGE = "kills of a", "hang-ups of a", "changes of code under a"
STRIKES = [(KILL, "runner"), (KILL, "fork server"), (KILL, "kernel")]
STRIKES += [(HANG_UP, "runner"), (CHANGE, "kernel")]
WORKERS = {"local": "worker", "dask": "Dask worker"}
STOPPED = (-signal.SIGKILL, -signal.SIGHUP, 128 + signal.SIGHUP)
MARK = "CLIPLAB_BENCHMARK"  # in the environment of a command and of all that descends from it
NONE_OF = ("unexplained", "last exit status", "lost", "run twice", "of other code than its key's")
NONE_OF += ("missing", "left behind")


def write_notebook(path, *cells):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    tagged = v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [v4.new_markdown_cell("# A question?"), tagged, *map(v4.new_code_cell, cells)]
    write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def cliplab_run(notebook, results, seeds, jobs, executor="local"):
    """The command for one run a seed."""
    grid = f"first_seed={','.join(map(str, seeds))}"
    command = [sys.executable, "-m", "cliplab.cli", "run", notebook, "--preset", "quick"]
    command += ["--grid", grid, "--jobs", jobs, "--notebooks", notebook.parent]
    command += ["--executor", executor]
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
        self.rng, self.count, self.executor = random.Random(seed), Counter(), "local"
        self.turns = {executor: [] for executor in WORKERS}
        self.seen, self.lost, self.rewritten = {}, set(), set()
        self.codes = {}  # what a run of each code records, by the code's key
        self.write_code(0, 0)

    def write_code(self, here, there):
        """The notebook and a module beside it; a new number in either is new code."""
        pad = "#" * there  # Python compiles again what is of another size
        write_atomic(self.folder / "beside.py", f"THERE = {there}  {pad}\n")
        draft = write_notebook(self.folder / "draft", NAP, LOG + CODE.replace("{}", f"{here}", 1))
        self.notebook = draft.replace(self.folder / "chaos.ipynb")
        (spec,) = plan([self.notebook], "quick", self.results)
        assert spec.code_key not in self.codes
        self.here, self.there, self.code_key = here, there, spec.code_key
        self.codes[spec.code_key] = f"{here}, {there}"

    def goes_on(self):
        return self.count["kills"] < self.n_kills and time.monotonic() < self.deadline

    def carry_out(self, seeds):
        """The same command until it ends by itself; kills on the way, as long as they go on."""
        self.total, over = seeds.stop, False
        while not over:
            began_with = self.code_key
            runner = self.start(seeds)
            while self.goes_on() and runner.poll() is None:
                self.strike()
                self.look()
            status = runner.wait(600)
            over = status not in STOPPED and began_with == self.code_key
        self.look()
        self.account(status, seeds)

    def start(self, seeds):
        self.count["commands"] += 1
        self.executor = "local" if self.count["commands"] % 3 else "dask"
        command = cliplab_run(self.notebook, self.results, seeds, 2, self.executor)
        with self.said().open("wb") as said:
            env = ENV | {MARK: str(self.folder)}
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=env)

    def said(self):
        """What the last command said."""
        return self.folder / f"said-{self.count['commands']}.txt"

    def strike(self):
        """At a random moment, do what has its turn; each has as many with its executor."""
        time.sleep(self.rng.uniform(0, 1.5))
        if not (turns := self.turns[self.executor]):
            turns += [*STRIKES, (KILL, WORKERS[self.executor])]
        how, kind = turn = self.rng.choice(turns)
        with suppress(IndexError, psutil.NoSuchProcess):  # there is none now
            victim = self.rng.choice(family(self.folder, kind))
            if how == CHANGE:
                in_notebook = self.rng.random() < 0.5
                self.write_code(self.here + in_notebook, self.there + (not in_notebook))
            else:
                victim.send_signal(signal.SIGHUP if how == HANG_UP else signal.SIGKILL)
            turns.remove(turn)
            kind = "Dask driver" if (self.executor, kind) == ("dask", "runner") else kind
            self.count.update(["kills", f"{how} {kind}"])

    def look(self):
        """Every record is to stay as it was first seen: its content, its file."""
        paths = self.results.glob("*/*/*/record.json")
        now = {p: (p.read_bytes(), p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}
        self.seen = first = now | self.seen
        self.lost |= {p for p in first if p not in now or now[p][0] != first[p][0]}
        self.rewritten |= {p for p in now if now[p][1:] != first[p][1:]}

    def account(self, status, seeds):
        """A command that ended by itself: each run has its record, or is listed as failed."""
        table = self.said().read_text(encoding="utf-8").partition("failed run ")[2]
        listed = set(map(int, re.findall(r"^chaos first_seed=(\d+) ", table, re.MULTILINE)))
        missing = set(seeds) - self.done()
        self.count["listed as failed after two attempts"] += len(listed)
        self.count["unexplained"] += len(missing - listed) + (status != bool(listed))
        self.count["last exit status"] = status

    def done(self):
        """The seeds whose runs are done, with the code as it is now."""
        records = records_in(self.results)
        return {r.params["first_seed"] for r in records if r.code_key == self.code_key}

    def outcome(self):
        """Counts, once the family had time to end."""
        psutil.wait_procs(family(self.folder), timeout=60)
        records = records_in(self.results)
        runs = {(record.code_key, record.params["first_seed"]) for record in records}
        lines = (self.folder / "log.txt").read_text().splitlines()
        others = [r for r in records if r.rows[0]["x"] != self.codes.get(r.code_key)]
        return {
            **dict(sorted(self.count.items())),
            "runs": len(records),
            "in a log without a record: killed there, or of code that had changed": (
                len(lines) - len(records)
            ),
            "lost": len(self.lost),
            "run twice": len(self.rewritten) + len(records) - len(runs),
            "of other code than its key's": len(others),
            "missing": len(set(range(self.total)) - self.done()),
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
