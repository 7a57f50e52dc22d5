"""Register a notebook's comparisons before its verdict run: what, how, with which chances."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplab.lab.claims.calibration import Calibration, calibrate, mean_noise, noise_of
from cliplab.lab.claims.judge import judge_all
from cliplab.lab.claims.ledger import STUDIED, Ledger, registered
from cliplab.lab.claims.studied import ways_of
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.notebook.registrations import registration_path, sealed
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import code_key
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.study.size import size_named

__all__ = ["planned", "register"]

PILOT = "pilot"


def planned(notebook: Path, pilot: RunRecord, studies: int = 500) -> dict[str, Calibration]:
    """What the verdict's rule would find of each comparison, at its own size and pilot's noise.

    Of a comparison over folds, of one fold of their mean noise: the mean over folds is surer.
    """
    ledger = registered(notebook.parent)
    size = size_named(preset_params(notebook, "verdict").get("size", ""))
    abouts = pilot.choices.get("studies", {})
    found = {}
    for claim in ledger.of_notebook(notebook.stem):
        if claim.kind == "comparison":
            folds = ways_of(claim, pilot.rows, abouts).values()
            noise = mean_noise([noise_of(w.first, w.rival, claim.margin) for w in folds])
            found[claim.id] = calibrate(size, noise, ledger.family, studies)
    return found


def register(notebook: Path, pilots: Sequence[RunRecord]) -> Path:
    """Write the registration of a notebook; its pilots, the newest last, say what noise to expect.

    ``ValueError``: no comparisons, no pilot of today's code, an earlier registration, or chances
    below what evidence needs (see ``docs/study.md``).
    """
    ledger = registered(notebook.parent)
    claims = {claim.id: claim.registered() for claim in ledger.studied(notebook.stem)}
    if not claims:
        raise ValueError(f"{notebook.stem}: claims.toml has no comparison of it to register")
    pilots = [pilot for pilot in pilots if pilot.preset == PILOT and pilot.choices.get("studies")]
    if not pilots:
        raise ValueError(
            f"{notebook.stem}: no pilot with studies: `cliplab run {notebook.stem} --preset pilot`"
        )
    code = code_key(notebook)
    if pilots[-1].code_key != code:
        raise ValueError(
            f"{notebook.stem}: its newest pilot is of other code, so neither its noise nor its "
            f"studies are those of the verdict: `cliplab run {notebook.stem} --preset pilot`"
        )
    path = registration_path(notebook)
    if path.exists():  # another registration has other seeds: nobody draws twice in silence
        raise ValueError(
            f"{path} is there: to register again, say in DEVIATIONS.md beside it why, and what was "
            "seen by then, and remove it"
        )
    power = planned(notebook, pilots[-1])
    if refusals := [f"{name}: {why}" for name, one in power.items() for why in one.refusals()]:
        raise ValueError("not to be registered: " + "; ".join(refusals))
    params = preset_params(notebook, "verdict")
    content = {
        "notebook": notebook.stem,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "claims": claims,
        "family": ledger.family,
        "studies": pilots[-1].choices["studies"],
        "params": {name: value for name, value in params.items() if name != "first_seed"},
        "code_key": code,
        "power": {name: one.row() for name, one in power.items()},
        "pilots": [_shown(pilot, notebook.stem, ledger) for pilot in pilots],
    }
    text = json.dumps(sealed(content), indent=1, ensure_ascii=False)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, text + "\n")
    return path


def _shown(pilot: RunRecord, notebook: str, ledger: Ledger) -> dict[str, Any]:
    """A pilot, and what it had shown before anything was registered."""
    studies = {notebook: pilot.choices["studies"]}
    verdicts = judge_all({notebook: pilot.rows}, PILOT, ledger, studies)
    return {
        "finished": str(pilot.provenance.get("finished", ""))[:16],
        "cpu_s": round(pilot.provenance.get("cpu_s") or 0, 1),
        "code_key": pilot.code_key,
        "params": pilot.params,
        "showed": {v.id: v.measured() for v in verdicts if v.kind in STUDIED},
    }
