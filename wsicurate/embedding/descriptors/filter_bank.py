"""`filter-bank`: the shapes in a patch, blind to its stain.

Of another nature than `stain-texture`, so that it can evaluate what the other selects: one channel, the total optical
density, standardised per patch, so that neither colour nor strength of the stain is left; then Gaussian derivatives of
first and second order at four scales, an oriented filter bank that is steerable (Freeman and Adelson, PAMI 1991,
891-906), so that pooling over all orientations is exact and costs no more than five filters:

- edge, the length of the gradient; line, the length of the second derivative's double-angle part, |(gxx - gyy, 2 gxy)|;
  blob, the Laplacian: quantiles of each;
- how well orientations agree within 9 pixels and over the patch, from the structure tensor (Bigün and Granlund,
  ICCV 1987);
- correlations of edge, line, blob and density at one scale, and between neighbouring scales (Portilla and Simoncelli,
  IJCV 2000);
- how unevenly edges and blobs are spread, at each coarser scale: the second layer of a scattering transform (Bruna and
  Mallat, PAMI 2013), with box filters.

The eight symmetries of a square patch give the same vector but for rounding. The features are then projected by
constants measured on real patches: see `calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.descriptors.features import grey_counts, halve, quantiles, working_image
from wsicurate.embedding.descriptors.projected import ProjectedDescriptor
from wsicurate.pixels.stain import optical_density

Plane = NDArray[np.float32]

#: Scales of the pyramid below the patch's own; filters run on all but the last, which only the spread is read from.
SCALES = 5
SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
#: Added to a patch's standard deviation of density before dividing by it, so that noise on blank background stays
#: small.
SMALLEST_DEVIATION = 0.02
#: Side of the window within which orientations are compared.
COHERENCE_PX = 9

_DENSITY = optical_density(np.arange(256, dtype=np.uint8))
_MEAN_OF_CHANNELS = np.full((1, 3), 1 / 3, dtype=np.float32)
# Binomial smoothing and its first and second difference: Gaussian derivatives of sigma 1.
_SMOOTH = np.array([1, 4, 6, 4, 1], dtype=np.float32) / np.float32(16)
_FIRST = np.array([-1, -2, 0, 2, 1], dtype=np.float32) / np.float32(8)
_SECOND = np.array([1, 0, -2, 0, 1], dtype=np.float32) / np.float32(4)


def _filter(plane: Plane, along_x: Plane, along_y: Plane) -> Plane:
    return np.asarray(cv2.sepFilter2D(plane, -1, along_x, along_y), dtype=np.float32)


def _length(x: Plane, y: Plane) -> Plane:
    # Not cv2.magnitude: its last bit depends on where in memory the arrays happen to lie.
    return np.sqrt(x * x + y * y)


def _product(first: Plane, second: Plane) -> Plane:
    return np.asarray(cv2.multiply(first, second), dtype=np.float32)


def _moments(plane: Plane) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])


def _mean(plane: Plane) -> float:
    return float(cv2.mean(plane)[0])


def _correlation(first: Plane, second: Plane) -> float:
    """Pearson's, drawn to 0 where one of the two hardly varies."""
    (mean_1, deviation_1), (mean_2, deviation_2) = _moments(first), _moments(second)
    return (_mean(_product(first, second)) - mean_1 * mean_2) / (deviation_1 * deviation_2 + 1e-3)


def _quantiles(plane: Plane, levels_per_unit: float, zero_level: float = 0.0) -> NDArray[np.float64]:
    """Quantiles by counting in 256 levels, in levels from ``zero_level``."""
    levels = np.asarray(cv2.convertScaleAbs(plane, alpha=levels_per_unit, beta=zero_level), dtype=np.uint8)
    return quantiles(grey_counts(levels), SHARES) - zero_level


def _logs(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(values, 0) + 2), dtype=np.float64)


def standardised_density(image: NDArray[np.uint8]) -> Plane:
    """Total optical density with the patch's mean taken off and its standard deviation divided out.

    Args:
        image: uint8, (h, w, 3), RGB.

    Returns:
        float32, (h, w).
    """
    density = np.asarray(cv2.transform(cv2.LUT(image, _DENSITY), _MEAN_OF_CHANNELS), dtype=np.float32)
    mean, deviation = _moments(density)
    return (density - np.float32(mean)) * np.float32(1 / (deviation + SMALLEST_DEVIATION))


@dataclass(frozen=True, kw_only=True)
class _Responses:
    """Rotation-invariant responses at one scale, and the gradient that two of them come from."""

    density: Plane
    gradient_x: Plane
    gradient_y: Plane
    edge: Plane
    line: Plane
    blob: Plane

    @staticmethod
    def of(density: Plane) -> _Responses:
        gradient_x, gradient_y = _filter(density, _FIRST, _SMOOTH), _filter(density, _SMOOTH, _FIRST)
        xx, yy = _filter(density, _SECOND, _SMOOTH), _filter(density, _SMOOTH, _SECOND)
        xy = _filter(density, _FIRST, _FIRST)
        return _Responses(
            density=density,
            gradient_x=gradient_x,
            gradient_y=gradient_y,
            edge=_length(gradient_x, gradient_y),
            line=_length(xx - yy, 2 * xy),
            blob=xx + yy,
        )


def _coherence(responses: _Responses) -> NDArray[np.float64]:
    """Length of the mean double-angle gradient over the mean squared gradient: within windows, and over all, (2,)."""
    x, y = responses.gradient_x, responses.gradient_y
    xx, yy = _product(x, x), _product(y, y)
    window = (COHERENCE_PX, COHERENCE_PX)
    real = np.asarray(cv2.boxFilter(xx - yy, -1, window), dtype=np.float32)
    imaginary = np.asarray(cv2.boxFilter(2 * _product(x, y), -1, window), dtype=np.float32)
    energy = _mean(xx + yy) + 1e-3
    return np.array([_mean(_length(real, imaginary)) / energy, np.hypot(_mean(real), _mean(imaginary)) / energy])


def _within_scale(responses: _Responses) -> NDArray[np.float64]:
    density, edge, line, blob = responses.density, responses.edge, responses.line, responses.blob
    pairs = ((edge, line), (edge, density), (line, density), (blob, density), (edge, blob), (line, blob))
    return np.array([_correlation(first, second) for first, second in pairs])


def _between_scales(finer: _Responses, coarser: _Responses) -> NDArray[np.float64]:
    edge, line, blob = halve(finer.edge), halve(finer.line), halve(finer.blob)
    pairs = (
        (edge, coarser.edge),
        (line, coarser.line),
        (blob, coarser.blob),
        (blob, coarser.edge),
        (edge, coarser.blob),
        (edge, coarser.density),
        (line, coarser.density),
    )
    return np.array([_correlation(first, second) for first, second in pairs])


def _spread(response: Plane, scales: int) -> NDArray[np.float64]:
    """Log of the relative deviation of a response's means over blocks that double, (scales,)."""
    mean, found = _mean(response), []
    for _ in range(scales):
        response = halve(response)
        found.append(_moments(response)[1] / (mean + 0.01))
    return np.log(np.array(found) + 0.02)


def filter_bank_features(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The raw features of one patch, before centring and projection.

    Args:
        patch: uint8, (h, w, 3), RGB, at least 32 px.

    Returns:
        float64, (149,), finite.
    """
    density = standardised_density(working_image(patch))
    pyramid = [density]
    for _ in range(SCALES):
        pyramid.append(halve(pyramid[-1]))
    features: list[NDArray[np.float64]] = [
        _quantiles(density, 40, 100) / 40,
        np.log([_moments(plane)[1] + 0.02 for plane in pyramid]),
    ]
    # At the finest scale Roberts' cross does: the filters would cost three times all the other scales together.
    cross = _length(density[1:, 1:] - density[:-1, :-1], density[1:, :-1] - density[:-1, 1:])
    features.append(_logs(_quantiles(cross, 60)))
    finer: _Responses | None = None
    for scale in range(1, SCALES):
        responses = _Responses.of(pyramid[scale])
        features.append(_logs(_quantiles(responses.edge, 100)))
        features.append(_logs(_quantiles(responses.line, 100)))
        signed = _quantiles(responses.blob, 40, 120) / 8
        features.append(np.sign(signed) * np.log1p(np.abs(signed)))
        features.append(_coherence(responses))
        features.append(_within_scale(responses))
        if finer is not None:
            features.append(_between_scales(finer, responses))
        features.append(_spread(responses.edge, SCALES - scale))
        features.append(_spread(np.maximum(responses.blob, 0), SCALES - scale))
        finer = responses
    return np.concatenate(features)


@dataclass(frozen=True, kw_only=True)
class FilterBank(ProjectedDescriptor):
    """`filter_bank_features`, projected."""

    name: str = field(default="filter-bank", init=False)

    def features(self, patch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `filter_bank_features`."""
        return filter_bank_features(patch)
