"""The pieces of the descriptors, each against a slow oracle."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import feature

from wsicurate.embedding.descriptors.features import (
    RING,
    UNIFORM_CODES,
    check_patches,
    grey_counts,
    halve,
    quantiles,
    uniform_patterns,
    working_image,
)
from wsicurate.embedding.descriptors.projection import CLIP, Calibration


def slow_patterns(channel: NDArray[np.uint8], threshold: int) -> NDArray[np.float64]:
    counts = np.zeros(10)
    for y in range(1, channel.shape[0] - 1):
        for x in range(1, channel.shape[1] - 1):
            least = min(int(channel[y, x]) + threshold, 255)
            higher = [int(channel[y + down, x + right]) >= least for down, right in RING]
            changes = sum(higher[i] != higher[i - 1] for i in range(8))
            counts[sum(higher) if changes <= 2 else 9] += 1
    return counts / counts.sum()


@pytest.mark.parametrize("threshold", [0, 1, 5])
def test_patterns_are_those_counted_pixel_by_pixel(rng: np.random.Generator, threshold: int) -> None:
    channel = rng.integers(0, 256, (19, 23), dtype=np.uint8)
    channel[:6] = 255
    np.testing.assert_allclose(uniform_patterns(channel, threshold), slow_patterns(channel, threshold), atol=1e-7)


def test_codes_of_patterns_are_those_of_scikit_image(rng: np.random.Generator) -> None:
    # Its neighbours lie on a circle and ours on a square, so images cannot be compared; what becomes of a pattern can.
    image = rng.integers(0, 256, (128, 128), dtype=np.uint8)
    patterns = feature.local_binary_pattern(image, 8, 1, "default").astype(np.uint8)
    assert len(np.unique(patterns)) == 256
    assert np.array_equal(UNIFORM_CODES[patterns], feature.local_binary_pattern(image, 8, 1, "uniform"))


def test_quantiles_are_those_of_pixels_spread_within_their_level(rng: np.random.Generator) -> None:
    channel = rng.normal(120, 30, (200, 200)).clip(0, 255).astype(np.uint8)
    shares = np.array([0.02, 0.25, 0.5, 0.98])
    spread = channel.ravel() + rng.uniform(-0.5, 0.5, channel.size)
    np.testing.assert_allclose(quantiles(grey_counts(channel), shares), np.quantile(spread, shares), atol=0.5)


@pytest.mark.parametrize("level", [0, 17, 255])
def test_quantiles_of_one_level_lie_within_it(level: int) -> None:
    found = quantiles(grey_counts(np.full((8, 8), level, np.uint8)), np.array([0.02, 0.5, 0.98]))
    np.testing.assert_allclose(found, level + np.array([-0.48, 0.0, 0.48]))


@pytest.mark.parametrize("shape", [(2, 2), (7, 10), (64, 64)])
def test_halving_takes_means_of_four(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    channel = rng.random(shape, dtype=np.float32)
    height, width = shape[0] // 2, shape[1] // 2
    # Each pixel in as many equal parts as the target has: every target pixel is then a mean of whole parts.
    parts = channel.repeat(height, axis=0).repeat(width, axis=1)
    slow = parts.reshape(height, shape[0], width, shape[1]).mean(axis=(1, 3))
    np.testing.assert_allclose(halve(channel), slow, rtol=1e-5)


def test_large_patches_are_reduced_by_a_whole_number(rng: np.random.Generator) -> None:
    patch = rng.integers(0, 256, (1026, 1040, 3), dtype=np.uint8)
    inner = patch.reshape(513, 2, 520, 2, 3).mean(axis=(1, 3))
    reduced = working_image(patch)
    assert reduced.shape == (513, 520, 3)
    assert np.abs(reduced - inner).max() <= 0.5
    assert working_image(np.zeros((1600, 1537, 3), np.uint8)).shape == (533, 512, 3)
    small = patch[:1023, :1023]
    assert np.array_equal(working_image(small), small)


def test_projection_is_the_written_formula_and_never_zero(rng: np.random.Generator) -> None:
    calibration = Calibration(
        centre=rng.normal(size=5), spread=rng.uniform(0.5, 2, 5), directions=rng.normal(size=(5, 3))
    )
    features = np.array([1.0, -2.0, 300.0, 0.1, -500.0])
    slow = np.clip((features - calibration.centre) / calibration.spread, -CLIP, CLIP) @ calibration.directions
    np.testing.assert_allclose(calibration.project(features), slow / np.linalg.norm(slow), rtol=1e-6)
    assert np.linalg.norm(calibration.project(calibration.centre)) == 1


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (np.zeros((2, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((64, 64, 3), np.uint8), r"\(b, h, w, 3\)"),
        (np.zeros((1, 64, 64, 4), np.uint8), r"\(b, h, w, 3\)"),
        (np.zeros((1, 64, 31, 3), np.uint8), "31x64"),
    ],
)
def test_what_is_no_batch_of_patches_is_refused(patches: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_patches(patches)
