"""Optical density: how much light the stains took away.

By Beer-Lambert, stains add in optical density, not in RGB: ``od = -log10(I / I0)``. An H&E pixel is, to a good
approximation, ``od = h * HAEMATOXYLIN + e * EOSIN`` with stain amounts h and e.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Unit absorption vectors (R, G, B) of a typical H&E slide, as estimated by Macenko et al. (ISBI 2009, 1107-1110).
HAEMATOXYLIN = np.array([0.563, 0.720, 0.406], dtype=np.float32)
EOSIN = np.array([0.216, 0.801, 0.558], dtype=np.float32)


def optical_density(image: NDArray[np.uint8], background: float = 255.0) -> NDArray[np.float32]:
    """Optical density of each channel.

    Args:
        image: uint8, (..., 3), RGB.
        background: intensity of clear background, I0. Darker than 1 counts as 1, so that black stays finite.

    Returns:
        float32, same shape, 0 where the light passes, about 2.4 where nothing does.
    """
    intensity = np.maximum(image.astype(np.float32), 1.0)
    density: NDArray[np.float32] = np.log10(np.float32(background) / intensity)
    return np.maximum(density, 0.0)


def separation_matrix(
    haematoxylin_vector: NDArray[np.float32] = HAEMATOXYLIN, eosin_vector: NDArray[np.float32] = EOSIN
) -> NDArray[np.float64]:
    """The matrix that takes the optical density of a pixel apart: ``stains = matrix @ od``.

    Colour deconvolution by Ruifrok and Johnston (Anal. Quant. Cytol. Histol. 2001, 291-299): the inverse of the matrix
    whose columns are the absorption vectors of haematoxylin, eosin and a residual at right angles to both, each of
    length 1.

    Args:
        haematoxylin_vector: absorption of one unit, (3,), R, G, B.
        eosin_vector: likewise, in another direction.

    Returns:
        float64, (3, 3): rows give haematoxylin, eosin and residual. Noise and other colours make amounts negative.
    """
    columns = [haematoxylin_vector, eosin_vector, np.cross(haematoxylin_vector, eosin_vector)]
    absorption = np.stack([np.asarray(v, np.float64) / np.linalg.norm(v) for v in columns], axis=1)
    return np.asarray(np.linalg.inv(absorption), dtype=np.float64)


def from_stains(
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    *,
    haematoxylin_vector: NDArray[np.float32] = HAEMATOXYLIN,
    eosin_vector: NDArray[np.float32] = EOSIN,
    background: NDArray[np.float32] | float = 255.0,
) -> NDArray[np.float32]:
    """The RGB intensities of given stain amounts: Beer-Lambert read forwards.

    Args:
        haematoxylin: amounts, (h, w), 0 for none; about 1 is a dark nucleus.
        eosin: amounts, (h, w); about 0.4 is collagen.
        haematoxylin_vector: absorption of one unit, (3,), R, G, B.
        eosin_vector: likewise.
        background: intensity of clear background, one value or (3,).

    Returns:
        float32, (h, w, 3), 0 to ``background``.
    """
    background = np.broadcast_to(np.asarray(background, np.float32), (3,))
    intensities = np.empty((*haematoxylin.shape, 3), dtype=np.float32)
    for channel in range(3):
        density = haematoxylin * haematoxylin_vector[channel] + eosin * eosin_vector[channel]
        intensities[..., channel] = background[channel] * np.exp(density * np.float32(-np.log(10)))
    return intensities
