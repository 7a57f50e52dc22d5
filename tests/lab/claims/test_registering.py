"""What a registration holds, what it refuses, and which chances it plans."""

import json
from dataclasses import replace

import pytest
from studying import as_toml, comparison, study, surface

from cliplab.lab.claims import registering
from cliplab.lab.claims.calibration import Calibration
from cliplab.lab.claims.registering import planned, register
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.notebook.registrations import read_registration, registration_path
from cliplab.lab.runs.keys import code_key
from cliplab.lab.runs.record import RunRecord

CLAIM = comparison()
STUDIES = {"toy": study().about()}
PRESETS = "[01_toy.pilot]\nfirst_seed = 0\n[01_toy.verdict]\nsize = 'full'\nn_seeds = 1\n"


@pytest.fixture
def notebook(tmp_path, make_notebook):
    path = make_notebook(
        tmp_path / "notebooks" / "01_toy.ipynb", "x = 1", parameters='size: str = "small"'
    )
    path.with_name("presets.toml").write_text(PRESETS)
    path.with_name("claims.toml").write_text(as_toml(CLAIM, family=25))
    return path


def pilot(notebook, gain=0.05, sd=0.05, **changes):
    rows = study(surface(gain=gain, sd=sd)).run("small", 0)
    params = preset_params(notebook, "pilot")
    record = RunRecord(
        "01_toy", "pilot", params, "k", code_key(notebook), rows, [], {"studies": STUDIES},
        {"finished": "2030-01-02T03:04:05Z", "cpu_s": 61.23}, notebook.parent,
    )  # fmt: skip
    return replace(record, **changes)


@pytest.fixture
def fast(monkeypatch):
    """Twenty studies a truth: enough to tell a surface that is hopeless from one that is not."""
    calibrate = registering.calibrate
    monkeypatch.setattr(
        registering, "calibrate", lambda size, noise, family, _: calibrate(size, noise, family, 20)
    )


def test_a_registration_holds_all_that_the_verdict_goes_by(notebook, fast):
    older = pilot(notebook, gain=0.5, code_key="older")
    path = register(notebook, [older, pilot(notebook)])
    assert path == registration_path(notebook)
    assert path == notebook.parent.parent / "records" / "01_toy.registration.json"
    found = read_registration(notebook)
    assert found["claims"] == {"toy_norm": CLAIM.registered()}
    assert found["studies"] == STUDIES
    assert found["params"] == {"size": "full", "n_seeds": 1}
    assert found["code_key"] == code_key(notebook)
    assert found["family"] == 25
    assert found["notebook"] == "01_toy"
    assert list(found["power"]) == ["toy_norm"]
    assert all(0 <= chance <= 1 for chance in found["power"]["toy_norm"].values())
    before, last = found["pilots"]  # what was seen before it was registered, all of it
    assert before["code_key"] == "older"
    assert before["cpu_s"] == 61.2
    assert "loss +0.5" in before["showed"]["toy_norm"]
    assert last["params"]["first_seed"] == 0


def test_the_plan_is_that_of_the_verdicts_size_and_the_pilots_noise(notebook, monkeypatch):
    asked = []

    def calibrate(size, noise, family, studies):
        asked.append((size.configurations, family, studies, round(noise.sd, 2)))
        return None

    monkeypatch.setattr(registering, "calibrate", calibrate)
    for sd in (0.05, 0.5):
        planned(notebook, pilot(notebook, sd=sd), 7)
    assert [one[:3] for one in asked] == [(48, 25, 7)] * 2
    assert asked[0][3] == pytest.approx(0.5, abs=0.2)  # sd over margin
    assert asked[1][3] == pytest.approx(5, abs=2)


def test_a_comparison_that_is_too_noisy_to_be_answered_is_not_registered(notebook, fast):
    with pytest.raises(ValueError, match=r"not to be registered: toy_norm: equal ways would be"):
        register(notebook, [pilot(notebook, sd=0.5)])
    assert read_registration(notebook) is None


@pytest.mark.parametrize(
    ("pilots", "complaint"),
    [
        (lambda n: [], "01_toy: no pilot with studies: `cliplab run 01_toy --preset pilot`"),
        (lambda n: [pilot(n, preset="quick")], "no pilot with studies"),
        (lambda n: [pilot(n, choices={})], "no pilot with studies"),
        (lambda n: [pilot(n), pilot(n, code_key="older")], "its newest pilot is of other code"),
        (lambda n: [pilot(n, rows=pilot(n).rows[:-1])], "toy: norm, finalists"),
        (lambda n: [pilot(n, rows=[])], "no rows of 'norm', 'none'"),
    ],
)
def test_without_a_pilot_of_todays_code_nothing_is_registered(notebook, pilots, complaint):
    with pytest.raises(ValueError, match=complaint):
        register(notebook, pilots(notebook))
    assert read_registration(notebook) is None


def test_a_notebook_without_comparisons_or_sizes_has_nothing_to_register(notebook):
    notebook.with_name("presets.toml").write_text(PRESETS.replace("'full'", "'huge'"))
    with pytest.raises(ValueError, match="size = 'huge', expected one of full"):
        register(notebook, [pilot(notebook)])
    notebook.with_name("claims.toml").write_text("")
    with pytest.raises(ValueError, match=r"01_toy: claims\.toml has no comparison of it"):
        register(notebook, [pilot(notebook)])


def test_nobody_registers_twice_in_silence(notebook, fast):
    path = register(notebook, [pilot(notebook)])
    before = path.read_text()
    with pytest.raises(ValueError, match=r"registration\.json is there: to register again, say in"):
        register(notebook, [pilot(notebook, gain=0.06)])
    assert path.read_text() == before
    path.unlink()
    register(notebook, [pilot(notebook, gain=0.06)])
    assert json.loads(path.read_text())["first_seed"] != json.loads(before)["first_seed"]


def test_the_command_registers_from_the_results_folder_and_tells_seed_and_chances(
    notebook, fast, capsys, monkeypatch
):
    from cliplab.cli.main import main

    monkeypatch.chdir(notebook.parent.parent)
    assert main(["register", "01"]) == 2
    assert "no pilot with studies" in capsys.readouterr().err
    folder = notebook.parent.parent / "results" / "01_toy" / "pilot" / ("a" * 16)
    folder.mkdir(parents=True)
    pilot(notebook).write(folder / "record.json")
    assert main(["register", "01"]) == 0
    out = capsys.readouterr().out
    assert f"first seed {read_registration(notebook)['first_seed']}; commit it before" in out
    assert "  toy_norm: equal: no matter " in out
    assert main(["calibrate", "01", "--studies", "3"]) == 0
    assert capsys.readouterr().out.startswith("toy_norm: equal: no matter ")


def test_chances_are_told_as_the_shares_of_the_right_word():
    words = {"helps": 0.0, "harms": 0.7, "no matter": 0.2, "unclear": 0.1}
    truths = ["equal", "half a margin", "one margin", "two margins", "15 % more failures"]
    of = dict.fromkeys(truths, words)
    one = Calibration(None, None, 25, 9, of, of, {}, {})
    assert one.row() == {"equal: no matter": 0.2} | {f"{t}: harms": 0.7 for t in truths[1:]}
