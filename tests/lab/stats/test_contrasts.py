import pytest

from cliplab.lab.stats.contrasts import contrasts
from cliplab.lab.stats.paired import paired

LOSSES = {"clipped": [1.0, 1.2, 0.9, 1.1, 1.0], "none": [1.3, 1.1, 1.2, 1.6, 1.4]}


def rows(**columns):
    return [
        {"arm": arm, "seed": seed, "loss": value}
        for arm, values in columns.items()
        for seed, value in enumerate(values)
    ]


def test_a_contrast_is_the_paired_estimate_with_the_sign_of_better():
    table = contrasts(rows(**LOSSES), "loss", {"gain": ("clipped", "none")})
    differences = [b - a for a, b in zip(LOSSES["clipped"], LOSSES["none"], strict=True)]
    expected = paired(differences)
    found = table.loc["gain"]
    assert (found.effect, found.low, found.high, found.n) == (
        expected.effect,
        expected.low,
        expected.high,
        5,
    )
    higher = contrasts(rows(**LOSSES), "loss", {"gain": ("clipped", "none")}, better="higher")
    assert higher.loc["gain"].effect == -expected.effect


@pytest.mark.parametrize(
    ("data", "pair", "better", "message"),
    [
        (rows(**LOSSES), ("clipped", "gone"), "lower", "no rows of arm 'gone'"),
        (rows(**LOSSES)[1:], ("clipped", "none"), "lower", r"seeds \[0\] are in one arm only"),
        (rows(**LOSSES) + rows(none=[1.0]), ("clipped", "none"), "lower", "has seed 0 twice"),
        (rows(a=[float("nan")], b=[1.0]), ("a", "b"), "lower", "expected finite numbers"),
        (rows(**LOSSES), ("clipped", "none"), "smaller", "better must be .* got 'smaller'"),
    ],
)
def test_contrasts_refuses(data, pair, better, message):
    with pytest.raises(ValueError, match=message):
        contrasts(data, "loss", {"gain": pair}, better=better)
