"""Fingerprints hold every arm that a claim names."""

from cliplab.lab.claims.fingerprints import missing_arms
from cliplab.lab.claims.rule import Claim


def claim(name, contrast, control=None, notebook="01"):
    return Claim(
        id=name,
        statement="one is better",
        notebook=notebook,
        kind="statistical",
        test="paired",
        metric="loss",
        better="lower",
        contrast=contrast,
        margin=0.1,
        margin_reason="a round number",
        unit="nats",
        n=2,
        source="a paper",
        counter="another",
        expected="supported",
        baseline=None if control is None else 3.0,
        control=control,
    )


def test_arms_of_contrasts_and_controls_are_missed_once_and_in_the_ledgers_order():
    ledger = {
        "A": claim("A", {"norm": 1, "none": -1}, {"norm": 1, "norm / 100": -1}),
        "B": claim("B", {"none": 1, "value": -1}),
        "C": claim("C", {"other": 1, "none": -1}, notebook="02"),
    }
    rows = [{"arm": arm, "seed": seed} for arm in ("norm", "value") for seed in range(2)]
    assert missing_arms(ledger, "01", rows) == ["none", "norm / 100"]
    assert missing_arms(ledger, "01", [*rows, {"arm": "none"}, {"arm": "norm / 100"}]) == []
    assert missing_arms(ledger, "02", []) == ["other", "none"]
    assert missing_arms(ledger, "03", []) == []
