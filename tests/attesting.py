"""A package of three files in a repository of its own, with a measured record."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from cliplab.lab.attest.attest import Acceptance, Attest
from cliplab.lab.attest.checkout import git
from cliplab.lab.runs.keys import code_key

RECORD = """
from IPython.display import display


def record(rows, curves=(), choices=None):
    payload = {"rows": rows, "curves": list(curves), "choices": choices or {}}
    display({"application/vnd.cliplab.record+json": payload, "text/plain": ""}, raw=True)
"""
MATHS = """
SCALE = 0.5


class Line:
    slope = 2.0

    def at(self, x):
        return self.slope * x

    def never(self, x):
        return x - 1


def scaled(x):
    # a comment
    return SCALE * x


def unused(x):
    return x + 1
"""
CELL = """
from cliplab.maths import Line, scaled
from cliplab.record import record
rows = [{"arm": arm, "seed": seed, "loss": scaled(Line().at(seed + i)), "n": seed}
        for i, arm in enumerate(["a", "b"]) for seed in range(first_seed, first_seed + n_seeds)]
record(rows, [{"arm": "a", "seed": 0, "name": "norm", "x": [0, 1], "y": [1.0, None]}], {"lr": 0.1})
"""
PRESETS = "[00_tiny.fingerprint]\nn_seeds = 2\nupdates = 3\n"


class Tiny:
    """A repository with a measured record, to be changed and attested."""

    def __init__(self, root: Path, make_notebook: Callable[..., Path]) -> None:
        self.root, self.make_notebook = root, make_notebook
        self.package, self.records = root / "cliplab", root / "records"
        self.notebook = root / "notebooks" / "00_tiny.ipynb"
        files = {"__init__.py": "", "maths.py": MATHS, "record.py": RECORD, "lab/__init__.py": ""}
        for name, source in files.items():
            self.write(name, source)
        self.write("lab/keys.py", "def code_key(notebook):\n    return 'measured'\n")
        self.cells(CELL)
        (root / "notebooks" / "presets.toml").write_text(PRESETS)
        git(root, "init", "--quiet")
        self.measure()

    def write(self, name: str, source: str) -> None:
        path = self.package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    def replace(self, name: str, old: str, new: str) -> None:
        source = (self.package / name).read_text()
        assert source.count(old) == 1
        self.write(name, source.replace(old, new))

    def cells(self, *cells: str) -> None:
        self.make_notebook(self.notebook, *cells, parameters="updates: int = 9  # updates")

    def commit(self) -> str:
        git(self.root, "add", ".")
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(
            ["git", "-C", str(self.root), *who, "commit", "-qm", "x", "--allow-empty"], check=True
        )
        return git(self.root, "rev-parse", "HEAD")

    def measure(self, **provenance: object) -> None:
        """Pretend that the record was measured with the code as it is now."""
        sha = self.commit()
        versions = {"python": f"{'.'.join(map(str, __import__('sys').version_info[:3]))}"}
        about = {
            "code_key": "measured",
            "params": {"updates": 9, "first_seed": 0, "n_seeds": 2},
            "provenance": {
                "git_sha": sha,
                "git_dirty": False,
                "versions": versions,
                "hardware": {"device": "cpu"},
                **provenance,
            },
        }
        self.records.mkdir(exist_ok=True)
        (self.records / "00_tiny.json").write_text(json.dumps(about))

    def attest(self, *accept: tuple[str, str], name: str = "00_tiny") -> str:
        self.commit()
        acceptances = [Acceptance(*words) for words in accept]
        return Attest(self.root, self.records, acceptances, str).record(self.notebook, name)

    @property
    def about(self) -> dict:
        return json.loads((self.records / "00_tiny.json").read_text())

    @property
    def key(self) -> str:
        return code_key(self.notebook, self.package)
