"""Carry published records over changes that move no number.

The measured commit runs a notebook's fingerprint twice, today's code once; all that they record
must be equal bit for bit, and every changed definition must have been entered.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cliplab.lab.attest.carried import as_json
from cliplab.lab.attest.checkout import checked_out, git, own_key, uncommitted
from cliplab.lab.attest.compare import columns, first_difference
from cliplab.lab.attest.definitions import Change, gone_definitions, new_definitions
from cliplab.lab.attest.rerun import rerun
from cliplab.lab.claims.judge import unanswered
from cliplab.lab.claims.ledger import registered
from cliplab.lab.notebook.parameters import read_parameters
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.notebook.registrations import REPLICA
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.interpreter import python_minor
from cliplab.lab.runs.keys import KIND, closure, device_type, digest
from cliplab.lab.runs.versions import ask_for, versions

PRESET = "fingerprint"


@dataclass
class Acceptance:
    """A pattern of names that a person vouches for, and why; ``matched``: in any notebook."""

    pattern: str
    why: str
    matched: bool = False


def attest(
    notebooks: Sequence[Path],
    records: Path,
    root: Path,
    acceptances: Sequence[Acceptance],
    say: Callable[[str], object],
) -> dict[str, str | ValueError]:
    """What each published record is now, by name, or why it is refused, one reason a line.

    ``ValueError``: the checkout has changes, or an acceptance matched nothing.
    """
    attesting = Attest(root, records, acceptances, say)
    outcomes: dict[str, str | ValueError] = {}
    for notebook in notebooks:
        for name in (notebook.stem, f"{notebook.stem}{REPLICA}"):
            if name != notebook.stem and not (records / f"{name}.json").exists():
                continue
            try:
                outcomes[name] = attesting.record(notebook, name)
            except ValueError as refused:
                outcomes[name] = refused
            lines = str(outcomes[name]).splitlines()
            say("\n  ".join([f"{name}: {lines[0]}", *lines[1:]]))
    if idle := [a.pattern for a in acceptances if not a.matched]:
        raise ValueError(f"--accept {', '.join(idle)}: nothing is called that")
    return outcomes


@dataclass
class Attest:
    """Attests records of one checkout; ``say`` is told what goes on."""

    root: Path
    records: Path
    acceptances: Sequence[Acceptance] = ()
    say: Callable[[str], object] = print
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        self.sha = git(self.root, "rev-parse", "HEAD")
        if files := uncommitted(self.root):
            raise ValueError(f"attest needs a clean checkout; not committed:\n{files}")

    def record(self, notebook: Path, name: str) -> str:
        """Carry a record of the notebook to today's code; what it is now, or ``ValueError``."""
        path = self.records / f"{name}.json"
        about = json.loads(path.read_text(encoding="utf-8"))
        code = closure(notebook, self.root / "cliplab")
        if about["code_key"] == code.key:
            return "current: measured with today's code"
        if about.get("carried", {}).get("code_key") == code.key:
            return f"current: carried from {about['provenance']['git_sha'][:12]}"
        accepted = _Accepted(self.acceptances)
        self._check_measured(about, code, accepted)
        with checked_out(self.root, about["provenance"]["git_sha"]) as tree:
            carried = self._compare(about, notebook, code, tree, accepted)
        about.pop("pending", None)
        about["carried"] = carried | {"accepted": accepted.written()}
        write_atomic(path, as_json(about))
        vouched = {name for entry in about["carried"]["accepted"] for name in entry["names"]}
        changed = f"{len(carried['changed'])} definitions changed, {len(vouched)} names accepted"
        return f"carried: {carried['n_rows']} rows equal, {changed}"

    def _check_measured(self, about: dict[str, Any], code: Closure, accepted: _Accepted) -> None:
        """The record can be measured again: a clean commit, and this device and versions."""
        measured = about["provenance"]
        if measured["git_dirty"] or not measured["git_sha"]:
            raise ValueError("not attestable: measured with code that was not committed")
        device = measured["hardware"]["device"]
        if device_type() != (device if device in ("cpu", "mps") else "cuda"):
            raise ValueError(f"not attestable: measured on {device}, this is {device_type()}")
        before = measured["versions"] | {
            "python": ".".join(measured["versions"]["python"].split(".")[:2])
        }
        now = {"python": python_minor(), **versions(code.outside)}
        other = [n for n in now if n in before and before[n] != now[n]]
        if refused := accepted.not_among([f"version:{name}" for name in other]):
            named = (f"{name.partition(':')[2]}" for name in refused)
            raise ValueError("\n".join(f"{n} {before[n]} measured, {now[n]} here" for n in named))

    def _compare(
        self,
        about: dict[str, Any],
        notebook: Path,
        code: Closure,
        tree: Path,
        accepted: _Accepted,
    ) -> dict[str, Any]:
        """What to write of the record's being carried; ``ValueError`` where it is not."""
        old_notebook = tree / notebook.relative_to(self.root)
        if not old_notebook.exists():
            raise ValueError(f"not attestable: no {old_notebook.name} at the measured commit")
        if own_key(tree, old_notebook) != about["code_key"]:
            raise ValueError("not attestable: the measured commit does not give the record's key")
        params = preset_params(notebook, PRESET)
        old_params = _for_measured(params, old_notebook, about["params"])
        ask_for(versions(code.outside))
        first, _ = self._run("measured code", tree, old_notebook, old_params)
        again, entered_before = self._run("again", tree, old_notebook, old_params, traced=True)
        if difference := first_difference(first, again):
            raise ValueError(f"not attestable: not deterministic: {difference}")
        now, entered = self._run("today's code", self.root, notebook, params, traced=True)

        old_code = closure(old_notebook, tree / "cliplab")
        new, gone = new_definitions(old_code, code), gone_definitions(old_code, code)
        dropped = {n for n in columns(first) if accepted.takes(f"column:{n}")}
        missing = columns(first) - columns(now) - dropped
        reasons = [f"{name} is not recorded any more" for name in sorted(missing)]
        if difference := first_difference(first, now, without=dropped | missing):
            reasons.append(f"not the same: {difference}")
        reasons += [
            f"the {PRESET} does not answer: {why}"
            for why in unanswered(
                now["rows"],
                notebook.stem,
                registered(notebook.parent),
                now["choices"].get("studies", {}),
            )
        ]
        reasons += accepted.not_entered(new, entered) + accepted.not_entered(gone, entered_before)
        if reasons:
            raise ValueError("\n".join(dict.fromkeys(reasons)))
        return {
            "code_key": code.key,
            "key": KIND,
            "from": about["provenance"]["git_sha"],
            "to": self.sha,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "updates": params.get("updates"),
            "preset_sha256": digest(params),
            "rows_sha256": digest(now["rows"]),
            "n_rows": len(now["rows"]),
            "changed": sorted({c.name for c in (*new, *gone) if c.definition.kind != "import"}),
            "new_columns": sorted(columns(now) - columns(first)),
            "versions": now.get("provenance", {}).get("versions"),
            "hardware": now.get("provenance", {}).get("hardware"),
        }

    def _run(
        self, what: str, tree: Path, notebook: Path, params: Mapping[str, Any], traced: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        started = time.perf_counter()
        try:
            found = rerun(tree, notebook, params, traced=traced)
        except ValueError as error:
            raise ValueError(f"the {PRESET} fails ({what}): {error}") from None
        self.say(f"{notebook.stem}: {what}, {time.perf_counter() - started:.1f} s")
        return found


def _for_measured(
    params: Mapping[str, Any], old_notebook: Path, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """The fingerprint for the notebook as it was; a parameter now gone has its measured value."""
    declared = read_parameters(old_notebook)
    if unknown := [name for name in params if name not in declared]:
        raise ValueError(f"the measured notebook has no parameter {', '.join(unknown)}")
    return {name: params.get(name, measured.get(name)) for name in declared}


class _Accepted:
    """What was accepted in one notebook."""

    def __init__(self, acceptances: Sequence[Acceptance]) -> None:
        self.names: list[tuple[Acceptance, set[str]]] = [(a, set()) for a in acceptances]

    def takes(self, name: str) -> bool:
        """Whether a pattern matches the name; all that do are written down.

        A column or version must be called that: ``*`` stands for definitions.
        """
        kind = re.match("(column|version):|", name)
        assert kind
        matching = [
            pair
            for pair in self.names
            if pair[0].pattern.startswith(kind[0]) and fnmatchcase(name, pair[0].pattern)
        ]
        for acceptance, names in matching:
            acceptance.matched = True
            names.add(name)
        return bool(matching)

    def not_among(self, names: Sequence[str]) -> list[str]:
        """The names that no pattern matches."""
        return [name for name in names if not self.takes(name)]

    def not_entered(self, changes: Sequence[Change], trace: Mapping[str, Any]) -> list[str]:
        """A line for each change that the run did not enter and that no pattern matches."""
        missed = dict.fromkeys(c.name for c in changes if not c.entered(trace))
        return [f"changed, but not entered: {name}" for name in self.not_among(list(missed))]

    def written(self) -> list[dict[str, Any]]:
        """The patterns that matched, with the names that each covers."""
        return [
            {"pattern": a.pattern, "why": a.why, "names": sorted(names)}
            for a, names in self.names
            if names
        ]
