"""Gaussian blur of batches, each patch by its own standard deviation."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def blur(pixels: Tensor, sigmas: NDArray[np.float64], radius: int) -> Tensor:
    """Blur as `torchvision`'s ``gaussian_blur`` does with a kernel of ``2 * radius + 1``, edges mirrored.

    Rows and columns are each one matrix product, which is faster than a convolution for views of a few hundred pixels,
    and as fast for a batch of different kernels as for one.

    Args:
        pixels: float32, (n, channels, px, px).
        sigmas: (n,), positive, in pixels.
        radius: at which the kernel is cut off, in pixels; below px.

    Returns:
        float32, as ``pixels``.
    """
    kernels = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigmas[:, None]) ** 2)
    kernels /= kernels.sum(1, keepdims=True)
    px = pixels.shape[-1]
    values = torch.from_numpy(kernels).to(pixels.device, torch.float32)[:, None].expand(-1, px, -1)
    places = torch.from_numpy(_mirrored(px, radius)).to(pixels.device).expand(len(pixels), -1, -1)
    matrix = torch.zeros((len(pixels), px, px), device=pixels.device).scatter_add_(2, places, values)[:, None]
    return matrix @ pixels @ matrix.transpose(2, 3)


@functools.lru_cache(maxsize=32)
def _mirrored(px: int, radius: int) -> NDArray[np.int64]:
    """The pixels (px, 2 * radius + 1) around each one of a row, mirrored at its ends without repeating them."""
    around = np.arange(px)[:, None] + np.arange(-radius, radius + 1)
    return np.asarray((px - 1) - np.abs((px - 1) - np.abs(around)))
