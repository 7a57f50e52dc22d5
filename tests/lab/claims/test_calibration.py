from pathlib import Path

import pytest

from cliplab.lab.claims import load_ledger
from cliplab.lab.claims.calibration import KINDS, calibrate, kept_lines

CLAIMS = len(load_ledger(Path(__file__).parents[3]))


@pytest.fixture(scope="module")
def calibration():
    return calibrate(CLAIMS, simulations=35, seed=1)


def test_verdicts_are_rarely_false(calibration):
    assert calibration.false_verdict_ledger <= 0.05
    for kind in KINDS:
        assert calibration.false_verdict[kind] <= 0.02
        assert calibration.false_equivalent[kind] <= 0.09  # 5 % and chance
        assert calibration.wrong_sign[kind] == 0


def test_verdicts_find_what_is_there(calibration):
    assert calibration.power["gaussian"] > 0.95
    assert calibration.power["heavy-tailed"] > 0.9
    assert calibration.power["success share"] > 0.1
    assert calibration.power_equivalent["gaussian"] > 0.7


def test_calibration_is_seeded_and_reads_as_sentences(calibration):
    again = calibrate.__wrapped__(CLAIMS, simulations=35, seed=1)
    assert again == calibration
    assert calibration.lines()[0].startswith(f"Simulated ledgers of {CLAIMS} claims ")
    assert any("equivalent: gaussian" in line for line in calibration.lines())
    assert all(line.endswith(".") for line in calibration.lines())


def test_lines_are_kept_until_the_ledger_or_the_code_that_judges_changes(
    calibration, tmp_path, monkeypatch
):
    simulated = []
    monkeypatch.setattr(
        "cliplab.lab.claims.calibration.calibrate", lambda n: simulated.append(n) or calibration
    )
    path = tmp_path / "reports" / "calibration.json"
    assert kept_lines(path, CLAIMS) == calibration.lines()
    text = path.read_text().replace("Simulated", "Kept: simulated")
    path.write_text(text)
    assert kept_lines(path, CLAIMS)[0].startswith("Kept: simulated")
    assert simulated == [CLAIMS]
    assert kept_lines(path, CLAIMS + 1) == calibration.lines()
    assert simulated == [CLAIMS, CLAIMS + 1]
    path.write_text(text)
    monkeypatch.setattr("cliplab.lab.claims.calibration.versions", lambda _: {"numpy": "another"})
    assert kept_lines(path, CLAIMS) == calibration.lines()
    path.write_text(text[:99])
    assert kept_lines(path, CLAIMS) == calibration.lines()
