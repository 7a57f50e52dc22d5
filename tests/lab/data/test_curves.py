import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplab.lab.data.curves import curves, render

coordinates = st.integers(100, 900).map(lambda thousandths: thousandths / 1000)
points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(4, 30), st.integers(0, 2**40))
def test_curves_are_images_that_the_generator_alone_decides(
    count: int, size: int, seed: int
) -> None:
    images = curves(count, size, seeded(seed))
    assert images.shape == (count, size * size)
    assert images.dtype == torch.float32
    assert ((images >= 0) & (images <= 1)).all()
    assert torch.equal(images, curves(count, size, seeded(seed)))


@settings(deadline=None, max_examples=40)
@given(points)
def test_a_curve_passes_through_its_three_points(three: list[tuple[float, float]]) -> None:
    image = render(torch.tensor([three]), 28).view(28, 28)
    for x, y in three:  # the pixel's centre is at most half a diagonal, 1/28 / sqrt 2, away
        assert image[int(y * 28), int(x * 28)] > torch.exp(torch.tensor(-0.25)) - 1e-3


@settings(deadline=None, max_examples=40)
@given(points)
def test_a_curve_has_no_direction_and_mirrors_with_its_points(
    three: list[tuple[float, float]],
) -> None:
    forward = torch.tensor([three])
    mirrored = torch.stack([1 - forward[..., 0], forward[..., 1]], dim=-1)
    image = render(forward, 16)
    torch.testing.assert_close(render(forward.flip(1), 16), image, atol=1e-4, rtol=0)
    flipped = render(mirrored, 16).view(1, 16, 16).flip(2).flatten(1)
    torch.testing.assert_close(flipped, image, atol=1e-4, rtol=0)


def test_a_straight_line_by_the_distance_to_it() -> None:
    image = render(torch.tensor([[[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]]), 14).view(14, 14)
    rows = (torch.arange(14) + 0.5) / 14
    expected = torch.exp(-((rows - 0.5) ** 2) * 28**2 / 2)
    torch.testing.assert_close(image[:, 7], expected, atol=0.02, rtol=0)
    assert image[7, 0] < 0.5  # beyond the end of the line


def test_more_images_than_are_rendered_at_a_time() -> None:
    many = curves(600, 8, seeded(3))
    torch.testing.assert_close(many[:20], curves(600, 8, seeded(3))[:20])
    assert many.var(dim=0).mean() > 0.01  # no image is like the next


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="count must be at least 1: 0"):
        curves(0, 16, seeded(0))
    with pytest.raises(ValueError, match="size must be at least 4 pixels: 3"):
        curves(1, 3, seeded(0))
    with pytest.raises(ValueError, match=r"points must be \[N, 3, 2\], got \[3, 2\]"):
        render(torch.zeros(3, 2), 16)
