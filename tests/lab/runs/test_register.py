"""Where a run is not as it was registered."""

import pytest
from studying import comparison, study

from cliplab.lab.runs.register import deviations, differences

CLAIMS = {"toy_norm": comparison().registered()}
REGISTERED = {
    "claims": CLAIMS,
    "studies": {"toy": study().about()},
    "params": {"size": "full", "n_seeds": 3, "updates": 200},
    "code_key": "c" * 64,
    "first_seed": 1234567,
    "replica_seed": 7654321,
}
MEASURED = {
    "preset": "verdict",
    "params": {**REGISTERED["params"], "first_seed": 1234567},
    "choices": {"studies": REGISTERED["studies"], "clip": {"lr": 0.1}},
    "code_key": "c" * 64,
}


def test_a_run_as_it_was_registered_deviates_in_nothing():
    assert deviations(REGISTERED, CLAIMS, MEASURED) == []
    again = {**MEASURED, "preset": "replica"}
    again["params"] = {**MEASURED["params"], "first_seed": 7654321}
    assert deviations(REGISTERED, CLAIMS, again) == []


def claims(**changes):
    return {"toy_norm": comparison(**changes).registered()}


def changed(where, **values):
    return {**MEASURED, where: {**MEASURED[where], **values}}


@pytest.mark.parametrize(
    ("claims", "measured", "expected"),
    [
        (claims(margin=0.2), MEASURED, "claims toy_norm margin: 0.1 registered, 0.2 found"),
        (claims(bet="helps"), MEASURED, "claims toy_norm bet:  registered, helps found"),
        ({}, MEASURED, "claims toy_norm: {'kind': 'comparison'"),
        (CLAIMS | {"new": {"a": 1}}, MEASURED, "claims new: nothing registered, {'a': 1} found"),
        (CLAIMS, changed("params", updates=300), "params updates: 200 registered, 300 found"),
        (CLAIMS, changed("params", first_seed=100), "first_seed: 1234567 registered, 100 found"),
        (CLAIMS, {**MEASURED, "preset": "replica"}, "first_seed: 7654321 registered, 1234567"),
        (CLAIMS, {**MEASURED, "choices": {}}, "studies toy: {'space'"),
        (
            CLAIMS,
            changed("choices", studies={"toy": study(lost=3.0).about()}),
            "studies toy lost: nothing registered, 3.0 found",
        ),
    ],
)
def test_each_deviation_is_said_word_for_word(claims, measured, expected):
    [found] = deviations(REGISTERED, claims, measured)
    assert found.startswith(expected)


def test_a_study_of_nothing_registered_is_none_and_one_more_fold_is_a_deviation():
    def found(name):
        studies = {**REGISTERED["studies"], name: study().about()}
        return deviations(REGISTERED, CLAIMS, changed("choices", studies=studies))

    assert found("side: batch 16") == []  # it tuned a demonstration
    [said] = found("toy: 2019")  # it would answer the claim on the study toy
    assert said.startswith("studies toy: 2019: nothing registered, {'space'")


def test_other_code_is_a_deviation():
    [found] = deviations(REGISTERED, CLAIMS, {**MEASURED, "code_key": "d" * 64})
    assert found.startswith("code_key: cccc")


def test_long_texts_are_cut_where_they_differ():
    same = "a question of more than sixty letters, which two texts have in common, and "
    [found] = differences(f"{same}this", f"{same}that")
    assert "and that found" in found
    assert "this registered" in found
    assert same not in found
