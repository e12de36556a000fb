from __future__ import annotations

import numpy as np
import pytest

from wsicurate.tiling.windows import cut_window, free_window, plan_windows, window_tissue


def test_shares_are_those_of_counting_pixels(rng: np.random.Generator) -> None:
    mask = rng.random((23, 31)) > 0.5
    xy = np.array([(x, y) for y in range(-40, 200, 7) for x in range(-40, 260, 11)])
    shares = window_tissue(mask, (8.0, 8.0), xy, 24)
    large = np.pad(np.kron(mask, np.ones((8, 8), bool)), 100)
    for (x, y), share in zip(xy.tolist(), shares, strict=True):
        expected = large[y + 100 : y + 124, x + 100 : x + 124].mean()
        assert share == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("downsamples", "source_px", "patch_px", "level", "reduction", "upsampled"),
    [
        ([1, 4, 16], 256, 256, 0, 1, False),
        ([1, 4, 16], 512, 256, 0, 2, False),
        ([1, 4.0003, 16.002], 1024, 256, 1, None, False),
        ([1, 4, 16], 1024, 256, 1, 1, False),
        ([1, 4, 16], 2048, 256, 1, 2, False),
        ([1, 2], 500, 256, 0, None, False),
        ([1, 2], 200, 256, 0, None, True),
    ],
)
def test_the_coarsest_level_that_has_enough_pixels(
    downsamples: list[float], source_px: int, patch_px: int, level: int, reduction: int | None, upsampled: bool
) -> None:
    plan = plan_windows(downsamples, 0.25, source_px, patch_px)
    assert (plan.level, plan.reduction, plan.upsampled) == (level, reduction, upsampled)
    assert plan.pitch == source_px
    assert plan.effective_mpp == pytest.approx(0.25 * source_px / patch_px)


def test_windows_are_of_one_size_and_averaged(rng: np.random.Generator) -> None:
    level = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    plan = plan_windows([1, 2], 0.5, 64, 16)

    def read(index: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        assert index == 1
        return level[y : y + height, x : x + width]

    for x, y in ((0, 0), (7, 13), (101, 55)):
        window = free_window(plan, x, y)
        assert (window.width, window.height) == (32, 32)
        pixels = level[window.y : window.y + 32, window.x : window.x + 32].astype(int)
        mean = (pixels.reshape(16, 2, 16, 2, 3).sum(axis=(1, 3)) + 2) // 4
        assert np.array_equal(cut_window(read, plan, x, y, 16), mean)
