"""Colour changes of batches, each patch by its own number.

`torchvision` has the same of one number for a whole batch; its functions are the reference in the tests. All of them
work in place on float32 (n, 3, h, w), RGB, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def change_some(pixels: Tensor, which: NDArray[np.bool_], change: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """Change some patches of a batch in place.

    Args:
        pixels: (n, 3, h, w).
        which: (n,).
        change: called with those patches, and with the index that takes their numbers from an array (n, ...).

    Returns:
        The batch.
    """
    places = np.flatnonzero(which)
    if len(places) == len(pixels):
        return change(pixels, slice(None)) if len(places) else pixels
    if len(places):
        index = torch.from_numpy(places).to(pixels.device)
        pixels[index] = change(pixels[index], places)
    return pixels


def jitter(pixels: Tensor, order: NDArray[np.int64], factors: NDArray[np.float64]) -> Tensor:
    """Brightness, contrast, saturation and hue of each patch in an order of its own.

    Args:
        pixels: (n, 3, h, w).
        order: (n, 4), a permutation of 0 to 3 for each.
        factors: (n, 4), of brightness, contrast and saturation, and the turn of hue; neutral ones cost nothing.
    """
    neutral = factors == (1, 1, 1, 0)
    for step in range(4):
        for number, change in enumerate((change_brightness, change_contrast, change_saturation, change_hue)):
            which = (order[:, step] == number) & ~neutral[:, number]

            def by_factors(some: Tensor, index: Any, number: int = number, change: Any = change) -> Tensor:
                factor = torch.from_numpy(factors[index, number]).to(some.device, some.dtype)
                changed: Tensor = change(some, factor[:, None, None, None])
                return changed

            pixels = change_some(pixels, which, by_factors)
    return pixels


def change_brightness(pixels: Tensor, factors: Tensor) -> Tensor:
    """Multiply by factors (n, 1, 1, 1)."""
    return pixels.mul_(factors).clamp_(0, 1)


def change_contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Stretch about the mean grey of each patch by factors (n, 1, 1, 1)."""
    mean = grey(pixels).mean((1, 2, 3), keepdim=True)
    return pixels.mul_(factors).add_(mean * (1 - factors)).clamp_(0, 1)


def change_saturation(pixels: Tensor, factors: Tensor) -> Tensor:
    """Stretch about the grey of each pixel by factors (n, 1, 1, 1)."""
    greys = grey(pixels).mul_(1 - factors)
    return pixels.mul_(factors).add_(greys).clamp_(0, 1)


def change_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Turn hues by parts (n, 1, 1, 1) of the colour circle; lightness and chroma stay.

    Hue is found by sorting the channels, and each channel is then a trapezoid of the hue, so that nothing branches.
    """
    red, green, blue = pixels.unbind(1)
    blue_leads = torch.lt(green, blue, out=torch.empty_like(green))
    high, low = torch.maximum(green, blue), torch.minimum(green, blue)
    other_leads = torch.lt(red, high, out=torch.empty_like(red))
    middle = torch.minimum(red, high)
    most = torch.maximum(red, high)
    chroma = most - torch.minimum(middle, low)
    base = (2 * blue_leads).sub_(1 / 3).mul_(other_leads).sub_(blue_leads)
    hue = middle.sub_(low).div_((6 * chroma).add_(1e-12)).add_(base).abs_().add_(turns[:, 0])
    for channel, offset in enumerate((5 / 6, 3 / 6, 1 / 6)):
        place = hue + offset
        place.sub_(place.floor()).mul_(6)
        place = torch.minimum(place, 4 - place).clamp_(0, 1)
        pixels[:, channel] = most - place.mul_(chroma)
    return pixels


def grey(pixels: Tensor) -> Tensor:
    """The grey (n, 1, h, w) of RGB, by ITU-R BT.601."""
    found: Tensor = F.rgb_to_grayscale(pixels)
    return found


def lose_colour(pixels: Tensor) -> Tensor:
    """Put its grey in place of each colour."""
    return pixels.copy_(grey(pixels).expand_as(pixels))


def solarise(pixels: Tensor) -> Tensor:
    """Invert all values from one half on."""
    inverted: Tensor = F.solarize(pixels, 0.5)
    return inverted
