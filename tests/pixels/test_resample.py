from __future__ import annotations

import numpy as np
import pytest

from wsicurate.pixels.resample import enlarge, resample_area


def slow_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean over each target pixel's rectangle, pixel by pixel, borders by the share inside."""

    def weights(source: int, target: int) -> np.ndarray:
        step = source / target
        edges = np.arange(target + 1) * step
        overlap = np.minimum(edges[1:, None], np.arange(1, source + 1)) - np.maximum(
            edges[:-1, None], np.arange(source)
        )
        return np.clip(overlap, 0, None) / step

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ys,stc,xt->yxc", rows, image.astype(float), columns)


@pytest.mark.parametrize(("source", "target"), [((64, 96), (32, 48)), ((96, 96), (32, 32)), ((71, 90), (50, 64))])
def test_area_is_the_mean_of_what_a_pixel_covers(
    source: tuple[int, int], target: tuple[int, int], rng: np.random.Generator
) -> None:
    image = rng.integers(0, 256, (*source, 3), dtype=np.uint8)
    exact = slow_area(image, *target)
    assert np.abs(resample_area(image, *target) - exact).max() <= 0.51


def test_two_by_two_means_are_rounded_half_up(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    sums = image.reshape(64, 2, 64, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(resample_area(image, 64, 64), (sums + 2) // 4)


def test_the_right_size_is_returned_untouched(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert resample_area(image, 5, 7) is image


def test_shrinking_cannot_enlarge() -> None:
    with pytest.raises(ValueError, match="cannot shrink 4x4 pixels to 8x4"):
        resample_area(np.zeros((4, 4, 3), np.uint8), 4, 8)


def test_enlarging_keeps_a_flat_colour() -> None:
    assert (enlarge(np.full((4, 5, 3), 77, np.uint8), 9, 11) == 77).all()
