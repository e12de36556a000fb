"""`stain-texture`: what is stained how much, and how rough it is at each scale, whichever way it is turned.

No weights: colour deconvolution into haematoxylin, eosin and what they leave (Ruifrok and Johnston, Anal. Quant. Cytol.
Histol. 2001, 291-299), then, on these three and their mean optical density,

- quantiles of each channel, and the joint histogram of haematoxylin and eosin at half resolution;
- the standard deviation of each channel, and the correlation of each pair, at five scales, each half the one before;
- rotation-invariant uniform local binary patterns (Ojala et al., PAMI 2002) of density and haematoxylin at four scales,
  of eosin at two;
- quantiles of the morphological gradient of haematoxylin at four scales, and the granulometry of density and
  haematoxylin: what openings and closings of growing size take away, that is, how large nuclei and gaps are.

All of it is counted on 8-bit integers, so the eight symmetries of a square patch give the same bits where the sides are
multiples of 16. The features are then projected by constants measured on real patches: see `calibration`. What each
group of features is worth, and what the vectors achieve, `benchmarks/descriptors.py` and ADR 12 say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.descriptors.features import (
    grey_counts,
    halve,
    quantiles,
    uniform_patterns,
    working_image,
)
from wsicurate.embedding.descriptors.projected import ProjectedDescriptor
from wsicurate.pixels.stain import optical_density, separation_matrix

#: Grey levels per unit of optical density: 255 stands for 1.7, an intensity of 5.
LEVELS_PER_DENSITY = 150.0
_DENSITY_LEVELS = np.clip(
    np.round(LEVELS_PER_DENSITY * optical_density(np.arange(256, dtype=np.uint8))), 0, 255
).astype(np.uint8)

SCALES = 5
#: Scales of the local binary patterns of haematoxylin, eosin and density.
PATTERN_SCALES = {"density": 4, "haematoxylin": 4, "eosin": 2}
#: A neighbour counts if it is this many grey levels above the centre.
PATTERN_THRESHOLD = 1
SHARES = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
#: Sides of the squares that open and close the image at half resolution.
SQUARES = (3, 5, 7, 11, 15)
#: Grey levels that the joint histogram spans, in eight bins each.
JOINT_BINS = 8
JOINT_HAEMATOXYLIN = (30.0, 190.0)
JOINT_EOSIN = (30.0, 150.0)

CHANNELS = ("haematoxylin", "eosin", "residual", "density")


def _channel_matrix() -> NDArray[np.float32]:
    """Densities in grey levels, and 1 -> the four channels in grey levels, offset so that little falls below 0."""
    separation = separation_matrix()
    matrix = np.zeros((4, 4), dtype=np.float32)
    matrix[:3, :3] = separation
    matrix[2] *= 2  # the residual is small
    matrix[3, :3] = 1 / 3
    matrix[:, 3] = (40, 60, 128, 0)
    return matrix


_CHANNEL_MATRIX = _channel_matrix()

Channels = dict[str, NDArray[np.uint8]]


def _channels(image: NDArray[np.uint8]) -> Channels:
    stains = cv2.split(cv2.transform(cv2.LUT(image, _DENSITY_LEVELS), _CHANNEL_MATRIX))
    return {name: np.asarray(channel, dtype=np.uint8) for name, channel in zip(CHANNELS, stains, strict=True)}


def _deviation(channel: NDArray[np.uint8]) -> float:
    return float(cv2.meanStdDev(channel)[1][0, 0])


def _mean(channel: NDArray[np.uint8]) -> float:
    return float(cv2.mean(channel)[0])


def _correlations(channels: Channels) -> list[float]:
    """Correlation of each pair of stains, drawn to 0 where they hardly vary."""
    found = []
    for first, second in (("haematoxylin", "eosin"), ("haematoxylin", "residual"), ("eosin", "residual")):
        a, b = channels[first], channels[second]
        halved_difference = np.asarray(cv2.addWeighted(a, 0.5, b, -0.5, 128), dtype=np.uint8)
        of_a, of_b, of_difference = _deviation(a) ** 2, _deviation(b) ** 2, 4 * _deviation(halved_difference) ** 2
        found.append((of_a + of_b - of_difference) / 2 / np.sqrt((of_a + 4) * (of_b + 4)))
    return found


def _joint_histogram(channels: Channels) -> NDArray[np.float64]:
    haematoxylin, eosin = channels["haematoxylin"], channels["eosin"]
    counts = cv2.calcHist(
        [haematoxylin, eosin], [0, 1], None, [JOINT_BINS, JOINT_BINS], [*JOINT_HAEMATOXYLIN, *JOINT_EOSIN]
    )
    return np.sqrt(counts.ravel().astype(np.float64) / haematoxylin.size)


def _granulometry(channel: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Log of what each larger opening removes and each larger closing fills, (10,)."""
    mean = _mean(channel)
    found = []
    for operation, sign in ((cv2.MORPH_OPEN, -1), (cv2.MORPH_CLOSE, 1)):
        means = [mean]
        for side in SQUARES:
            square = np.ones((side, side), dtype=np.uint8)
            means.append(_mean(np.asarray(cv2.morphologyEx(channel, operation, square), dtype=np.uint8)))
        found.append(np.log(np.maximum(sign * np.diff(means), 0) + 0.5))
    return np.concatenate(found)


def stain_texture_features(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The raw features of one patch, before centring and projection.

    Args:
        patch: uint8, (h, w, 3), RGB, at least 32 px.

    Returns:
        float64, (275,), finite.
    """
    scales = [_channels(working_image(patch))]
    for _ in range(1, SCALES):
        scales.append({name: halve(channel) for name, channel in scales[-1].items()})
    features: list[NDArray[np.float64]] = []
    for name in CHANNELS:
        features.append(quantiles(grey_counts(scales[0][name]), SHARES) / 32)
        features.append(np.log([_deviation(channels[name]) + 1 for channels in scales]))
    features.extend(np.array(_correlations(channels)) for channels in scales)
    for name, count in PATTERN_SCALES.items():
        features.extend(np.sqrt(uniform_patterns(channels[name], PATTERN_THRESHOLD)) for channels in scales[:count])
    features.append(_joint_histogram(scales[1]))
    for channels in scales[: PATTERN_SCALES["haematoxylin"]]:
        gradient = cv2.morphologyEx(channels["haematoxylin"], cv2.MORPH_GRADIENT, np.ones((3, 3), dtype=np.uint8))
        counts = grey_counts(np.asarray(gradient, dtype=np.uint8))
        features.append(np.log(np.maximum(quantiles(counts, SHARES), 0) + 2))
    features.extend(_granulometry(scales[1][name]) for name in ("density", "haematoxylin"))
    return np.concatenate(features)


@dataclass(frozen=True, kw_only=True)
class StainTexture(ProjectedDescriptor):
    """`stain_texture_features`, projected."""

    name: str = field(default="stain-texture", init=False)

    def features(self, patch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `stain_texture_features`."""
        return stain_texture_features(patch)
