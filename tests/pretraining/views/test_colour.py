"""Colour changes beside torchvision's, which are of one number for a whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from wsicurate.pretraining.views import colour
from wsicurate.pretraining.views.blur import blur
from wsicurate.pretraining.views.crops import crop, crop_by_matrices, windows
from wsicurate.pretraining.views.hed import HED, densities, jitter_stains
from wsicurate.pretraining.views.symmetries import turn

CHANGES = [
    (colour.change_brightness, F.adjust_brightness, [0.6, 1.0, 1.2, 1.4]),
    (colour.change_contrast, F.adjust_contrast, [0.6, 1.0, 1.2, 1.4]),
    (colour.change_saturation, F.adjust_saturation, [0.0, 0.8, 1.2, 2.0]),
    (colour.change_hue, F.adjust_hue, [-0.5, -0.1, 0.07, 0.3]),
]


@pytest.mark.parametrize(("ours", "theirs", "numbers"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_each_patch_changes_as_torchvision_changes_it(
    patches: torch.Tensor, ours: Any, theirs: Any, numbers: list[float]
) -> None:
    pixels = patches.float() / 255
    expected = torch.stack([theirs(one, number) for one, number in zip(pixels, numbers, strict=True)])
    found = ours(pixels.clone(), torch.tensor(numbers)[:, None, None, None])
    assert (found - expected).abs().max() < 1 / 255


def test_jitter_keeps_the_order_of_each_patch(patches: torch.Tensor) -> None:
    pixels = patches.float() / 255
    order = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
    factors = np.array([[1.3, 0.7, 1.2, 0.05], [0.8, 1.4, 0.5, -0.1], [1, 1, 1, 0.2], [1.4, 1.4, 1, 0]])
    adjust = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    expected = []
    for one, steps, numbers in zip(pixels, order.tolist(), factors.tolist(), strict=True):
        for step in steps:
            one = adjust[step](one, numbers[step])
        expected.append(one)
    found = colour.jitter(pixels.clone(), order, factors)
    assert (found - torch.stack(expected)).abs().max() < 1 / 255


def test_blur_is_torchvisions(patches: torch.Tensor) -> None:
    pixels = patches.float() / 255
    sigmas = np.array([0.1, 0.5, 1.3, 2.0])
    expected = torch.stack(
        [F.gaussian_blur(one, [13, 13], [s, s]) for one, s in zip(pixels, sigmas.tolist(), strict=True)]
    )
    assert (blur(pixels, sigmas, 6) - expected).abs().max() < 1e-4


def test_crops_are_torchvisions_and_by_matrices_alike(patches: torch.Tensor) -> None:
    places = np.array([[0, 0, 96, 96], [10, 20, 50, 40], [3, 5, 20, 33], [60, 60, 36, 36]])
    cut = crop(patches, places, 48)
    for one, (top, left, high, wide), found in zip(patches, places.tolist(), cut, strict=True):
        expected = F.resized_crop(one, top, left, high, wide, [48, 48], F.InterpolationMode.BICUBIC, antialias=True)
        assert torch.equal(found, expected.float())
    assert (crop_by_matrices(patches, places, 48) - cut).abs().max() <= 1


def test_windows_keep_area_and_shape() -> None:
    numbers = np.random.default_rng(0).random((2_000, 22))
    top, left, high, wide = windows(numbers, 256, 200, (0.1, 0.4), (3 / 4, 4 / 3)).T
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= 256).all() and (left + wide <= 200).all()
    share = high * wide / (256 * 200)
    assert share.min() > 0.09 and share.max() < 0.41 and abs(share.mean() - 0.25) < 0.01
    assert (wide / high).min() > 0.73 and (wide / high).max() < 1.37


def test_the_eight_symmetries_are_all_and_different() -> None:
    square = torch.arange(9.0).reshape(1, 1, 3, 3)
    turned = turn(square.expand(8, 1, 3, 3).clone(), np.arange(8))
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8
    rotations = [torch.rot90(square[0, 0], k) for k in range(4)]
    mirrored = [rotation.flip(1) for rotation in rotations]
    for expected in rotations + mirrored:
        assert any(torch.equal(expected, one[0]) for one in turned)


def test_stain_jitter_changes_the_amounts_of_the_stains(patches: torch.Tensor) -> None:
    pixels = patches.float() / 255
    neutral = jitter_stains(pixels.clone(), np.ones((4, 3)), np.zeros((4, 3)))
    assert (neutral - pixels).abs().max() < 1e-4
    factors, offsets = np.full((4, 3), 1.1), np.tile([0.02, -0.01, 0.0], (4, 1))
    changed = jitter_stains(pixels.clone(), factors, offsets)
    inverse = np.linalg.inv(HED)
    before = np.einsum("nchw,cs->nshw", densities(pixels).double().numpy(), inverse)
    after = np.einsum("nchw,cs->nshw", densities(changed).double().numpy(), inverse)
    inside = ((changed > 0.02) & (changed < 0.98)).all(1).numpy()
    expected = before * 1.1 + offsets[0][:, None, None]
    assert inside.mean() > 0.5
    np.testing.assert_allclose(after.transpose(0, 2, 3, 1)[inside], expected.transpose(0, 2, 3, 1)[inside], atol=2e-3)
