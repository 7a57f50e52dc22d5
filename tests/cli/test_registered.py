"""From a pilot to a replication: a tiny notebook through the real runner."""

import json
import re

import pytest
from studying import as_toml, comparison

from cliplab.cli.main import main
from cliplab.lab.claims import registering
from cliplab.lab.runs.record import MIME

pytestmark = pytest.mark.slow

CELL = f"""
import math
import numpy as np
from IPython.display import display
from cliplab.lab.study import Log, Space, Study

def train(configurations, seeds):
    rows = []
    for c, seed in zip(configurations, seeds):
        noise = np.random.default_rng([seed, *c["way"].encode()]).normal()
        loss = 2 + (math.log10(c["lr"]) + 0.5) ** 2 + 0.05 * noise - gain * (c["way"] == "norm")
        row = dict(val_loss=loss, test_loss=loss, diverged=False)
        rows.append(row | dict(early_val_loss=loss + 0.2, early_test_loss=loss + 0.2))
    return rows

study = Study("toy", train, space=Space(lr=Log(0.01, 10.0), threshold=Log(0.1, 10.0)),
              ways=dict(none=["lr"], norm=["lr", "threshold"]), versus=[("norm", "none")],
              handicaps={{"none, early": "none"}}, chance=4.0)
rows = study.run(size, first_seed)
payload = dict(rows=rows, curves=[], choices=dict(studies=dict(toy=study.about())), provenance={{}})
display({{"{MIME}": payload, "text/plain": "recorded"}}, raw=True)
"""
PARAMETERS = "gain: float = 0.3\nsize: str = 'small'  # of the study"
PRESETS = "[01_toy.pilot]\nfirst_seed = 0\n[01_toy.verdict]\nsize = 'full'\nn_seeds = 1\n"
README = "".join(f"<!-- {n}:begin -->\n<!-- {n}:end -->\n" for n in ("answers", "computing"))
LEDGER = as_toml(comparison(), family=25)


@pytest.fixture
def project(tmp_path, make_notebook, monkeypatch):
    notebook = make_notebook(tmp_path / "notebooks" / "01_toy.ipynb", CELL, parameters=PARAMETERS)
    notebook.with_name("presets.toml").write_text(PRESETS)
    notebook.with_name("claims.toml").write_text(LEDGER)
    (tmp_path / "README.md").write_text(README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    calibrate = registering.calibrate
    monkeypatch.setattr(
        registering, "calibrate", lambda size, noise, family, _: calibrate(size, noise, family, 10)
    )
    return tmp_path


def done(command, capsys):
    status = main(command.split())
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def refused(command, capsys):
    assert main(command.split()) != 0
    return capsys.readouterr().err


def test_a_study_is_piloted_registered_measured_published_and_replicated(project, capsys):
    records = project / "records"
    assert "01_toy cannot be replicated, as it is not registered" in refused(
        "run 01 --preset verdict --replicate", capsys
    )
    assert "--replicate: only --preset verdict is registered" in refused(
        "run 01 --replicate", capsys
    )
    out = done("run 01 --preset pilot --kernel stock", capsys)
    assert "no verdict (pilot, small)" in out

    assert main(["run", "01", "--preset", "verdict", "--kernel", "stock"]) == 0
    out, err = capsys.readouterr()
    assert "not registered: `cliplab register 01_toy`" in out
    before, _, _ = err.partition("0 done, 1 to run")
    assert "decides nothing, as it is not registered: `cliplab register 01_toy`" in before
    assert "not registered" in refused("report --preset verdict --publish", capsys)
    assert not records.exists()

    done("register 01", capsys)
    registration = json.loads((records / "01_toy.registration.json").read_text())
    assert "no current records" in refused("report --preset replica", capsys)
    out = done("run 01 --preset verdict --kernel stock", capsys)
    [line] = [line for line in out.splitlines() if line.startswith("toy_norm ")]
    assert re.match(r"toy_norm +helps +\+0\.[23]\d+ \[\+0\.\d+, \+0\.\d+\] nats +0\.0 \[−7", line)
    assert "registered" not in line
    assert "Differences above 0 speak for the first-named way." in out
    done("report --preset verdict --publish", capsys)
    about = json.loads((records / "01_toy.json").read_text())  # of two runs that of its seed
    assert about["params"]["first_seed"] == registration["first_seed"]
    assert about["registration"] == registration["hash"]
    assert "| **helps** | – |" in (project / "RESULTS.md").read_text()

    done("run 01 --preset verdict --replicate --kernel stock", capsys)
    done("report --preset replica --publish", capsys)
    again = json.loads((records / "01_toy.replica.json").read_text())
    assert again["params"]["first_seed"] == registration["replica_seed"]
    assert again["registration"] == registration["hash"]
    results = (project / "RESULTS.md").read_text()
    assert "| **helps** | holds |" in results
    assert "Replicated on other draws and seeds: holds; loss +0." in results
    assert {path.name for path in records.iterdir()} == {
        f"01_toy{end}" for end in (".csv", ".json", ".replica.csv", ".replica.json",
                                   ".registration.json")
    }  # fmt: skip

    assert main(["diff", "records", "records"]) == 0
    assert "is no published record" not in capsys.readouterr().err
    assert main(["diff", "records", "results", "01"]) in (0, 1)
    assert capsys.readouterr().err == ""

    changed = LEDGER.replace("\nmargin = 0.1", "\nmargin = 0.2")
    (project / "notebooks" / "claims.toml").write_text(changed)
    assert "claims toy_norm margin: 0.1 registered, 0.2 found" in refused(
        "report --preset verdict --publish", capsys
    )
    done("report --preset verdict", capsys)
    [claim] = json.loads((project / "reports" / "claims.json").read_text())
    assert "margin: 0.1 registered, 0.2 found" in claim["note"]
