"""Stain jitter in HED space: amounts of haematoxylin, eosin and a residual, by colour deconvolution.

Tellez et al., IEEE Trans. Med. Imaging 2018, 37(9), 2126-2136, and Med. Image Anal. 2019, 58, 101544 (``HED-light`` is
a bound of 0.05, ``HED-strong`` of 0.2). Matrix: Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 2001, 291-299; the
third stain, DAB, takes what is neither of the two. `wsicurate.pixels.stain` has typical vectors of H&E slides instead;
those of the paper are taken here so that a bound means what it does there.

Jitter is linear in optical density, so that the way to the amounts and back is one 3x3 matrix for each patch. Densities
are natural logarithms of ``256 / (value + 1)``, finite for all uint8 values.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Absorption of one unit of haematoxylin, eosin and DAB (rows) in red, green and blue.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

Numbers = NDArray[np.float64]

_MOST = math.log(256)


def jitter_stains(pixels: Tensor, factors: Numbers, offsets: Numbers) -> Tensor:
    """Multiply the amounts of each stain, and add to them.

    Args:
        pixels: float32, (n, 3, h, w), RGB, 0 to 1; changed in place.
        factors, offsets: (n, 3), of haematoxylin, eosin and residual; 1 and 0 change nothing.

    Returns:
        The same tensor.
    """
    matrices = np.linalg.inv(HED) @ (factors[:, :, None] * HED)
    mixing = torch.from_numpy(matrices.swapaxes(1, 2)).to(pixels.device, torch.float32)
    adding = torch.from_numpy(offsets @ HED).to(pixels.device, torch.float32)
    return change_densities(pixels, mixing, adding)


def change_densities(pixels: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    """Put ``matrices @ density + offsets`` in place of the optical density of each pixel.

    Args:
        pixels: float32, (n, 3, h, w), RGB, 0 to 1; changed in place.
        matrices: float32, (n, 3, 3).
        offsets: float32, (n, 3).

    Returns:
        The same tensor, 0 to 1.
    """
    found = densities(pixels).flatten(2)
    changed = torch.baddbmm(offsets[:, :, None], matrices, found).neg_().exp_()
    return pixels.copy_(changed.mul_(256 / 255).sub_(1 / 255).clamp_(0, 1).view(pixels.shape))


def densities(pixels: Tensor) -> Tensor:
    """Optical density of each channel: 0 where all light passes, 5.5 where none does; a new tensor."""
    return (pixels * 255).add_(1).log_().neg_().add_(_MOST)
