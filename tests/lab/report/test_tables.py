"""Numbers and summaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.report.tables import across_models, noise_floor, number


def test_noise_floor_is_the_paired_difference_of_an_arm_with_itself() -> None:
    made = [
        {"arm": arm, "of": of, "seed": seed, "val_loss": loss + seed}
        for seed in range(12)
        for arm, of, loss in (("none", None, 1.0), ("A/A none", "none", 1.5))
    ]
    assert noise_floor(made, "val_loss") == [
        {"of": "none", "metric": "val_loss", "n": 12, "largest": 0.5,
         "difference": "0.500 [0.500, 0.500]"}
    ]  # fmt: skip
    assert noise_floor(made, None) == []


def test_across_models_leaves_out_what_is_not_there() -> None:
    made = [
        {"arm": "none", "seed": s, "solved": s == 0, "clip_fraction": None, "diverged": s == 1}
        for s in range(3)
    ]
    [line] = across_models(made, "solved")
    assert line == {
        "model": "", "task": "", "arm": "none", "n": 3, "diverged": "1 of 3",
        "norm": "–", "clipped": "–", "excess": "–", "metric": "1 of 3",
    }  # fmt: skip


@given(st.floats(-1e300, 1e300))
def test_number_keeps_three_significant_digits(x: float) -> None:
    text = number(x).replace("−", "-").replace(",", "")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    mantissa, _, exponent = text.partition("×10")
    back = float(f"{mantissa}e{exponent.translate(digits) or 0}")
    assert back == pytest.approx(x, rel=6e-3)
