"""Cut windows out of patches, and resize them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

#: Windows that are drawn before one from the middle is taken, as in `torchvision`.
ATTEMPTS = 10

#: Random numbers that drawing a window takes.
WINDOW_NUMBERS = 2 * ATTEMPTS + 2

#: Sharpness of the cubic kernel, as in Pillow and in PyTorch where it is antialiased.
_SHARPNESS = -0.5


def windows(
    numbers: NDArray[np.float64], height: int, width: int, scale: Sequence[float], ratio: Sequence[float]
) -> NDArray[np.int64]:
    """Windows of random area, shape and place within patches (height, width): `torchvision`'s ``RandomResizedCrop``.

    Args:
        numbers: (n, `WINDOW_NUMBERS`), uniform, 0 to 1.
        height, width: of the patches, in pixels.
        scale: least and most area, as a share of the patch's.
        ratio: least and most width by height, drawn by its logarithm.

    Returns:
        (n, 4): top, left, height, width, in pixels. Where none of ten fits into the patch, the largest window from
        the middle whose shape is within ``ratio``.
    """
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[:, :ATTEMPTS])
    lowest, highest = np.log(ratio)
    shapes = np.exp(lowest + (highest - lowest) * numbers[:, ATTEMPTS : 2 * ATTEMPTS])
    wide, high = np.rint(np.sqrt(areas * shapes)), np.rint(np.sqrt(areas / shapes))
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.argmax(1)[:, None]
    found = fits.any(1)
    shape = min(max(width / height, ratio[0]), ratio[1])
    middle_width, middle_height = min(width, round(height * shape)), min(height, round(width / shape))
    high = np.where(found, np.take_along_axis(high, first, 1)[:, 0], middle_height).astype(np.int64)
    wide = np.where(found, np.take_along_axis(wide, first, 1)[:, 0], middle_width).astype(np.int64)
    room_above, room_left = height - high, width - wide
    top = np.where(found, numbers[:, -2] * (room_above + 1), room_above // 2).astype(np.int64)
    left = np.where(found, numbers[:, -1] * (room_left + 1), room_left // 2).astype(np.int64)
    return np.stack([top, left, high, wide], axis=1)


def crop(patches: Tensor, windows: NDArray[np.int64], size: int) -> Tensor:
    """Cut a window out of each patch and resize it, antialiased bicubic.

    On the CPU by PyTorch's fast resampling of uint8, patch by patch. On a GPU for all at once, as two batched matrix
    products, which come within one grey value of it.

    Args:
        patches: uint8, (n, 3, h, w).
        windows: (n, 4), from `windows`.
        size: edge of the result, in pixels.

    Returns:
        float32, (n, 3, size, size), whole numbers from 0 to 255.
    """
    if patches.device.type != "cpu":
        return crop_by_matrices(patches, windows, size)
    resized = torch.empty((len(patches), 3, size, size))
    for patch, window, place in zip(patches, windows.tolist(), resized, strict=True):
        place.copy_(F.resized_crop(patch, *window, [size, size], InterpolationMode.BICUBIC, antialias=True))
    return resized


def crop_by_matrices(patches: Tensor, windows: NDArray[np.int64], size: int) -> Tensor:
    """As `crop`, for a whole batch on its device: rows by one matrix for each patch, columns by another."""
    top, left, high, wide = torch.from_numpy(windows).to(patches.device, torch.float32).unbind(1)
    rows = _resampling(top, high, size, patches.shape[2])
    columns = _resampling(left, wide, size, patches.shape[3])
    resized = rows[:, None] @ patches.float() @ columns.transpose(1, 2)[:, None]
    return resized.round_().clamp_(0, 255)


def _resampling(begin: Tensor, length: Tensor, size: int, pixels: int) -> Tensor:
    """Weights (n, size, pixels) of pixels in resized ones; nothing outside begin (n,) to begin + length counts."""
    begin, length = begin[:, None, None], length[:, None, None]
    step = length / size
    centre = begin + (torch.arange(size, device=begin.device)[:, None] + 0.5) * step
    pixel = torch.arange(pixels, device=begin.device) + 0.5
    weights = _cubic((pixel - centre) / step.clamp(min=1))
    weights *= (pixel > begin) & (pixel < begin + length)
    return weights / weights.sum(2, keepdim=True)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic kernel, 0 from a distance of 2 on."""
    x, a = distance.abs(), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
