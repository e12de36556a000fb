"""Registration by arbitrary turn, scale, mirror and translation: local features propose, pixels verify.

SIFT (Lowe 2004) on summed optical density, as RootSIFT (Arandjelovic and Zisserman 2012). A mirrored image's
descriptors are the same numbers in another order, so features are found once. One match of two features, with their
scales and directions, is a whole similarity transform: every match is tried as a hypothesis against all others, which
needs no random sampling and so no seed. The best ones are fitted to their supporters and refined on the fine map of
haematoxylin by enhanced correlation (Evangelidis and Psarakis 2008); the correlation over the overlap decides.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.copies.shift import LEAST_OVERLAP, Prepared
from wsicurate.curation.copies.structure import agreement, correlation, evidence
from wsicurate.curation.neighbours.blocks import exact_products, on_grid

#: Scales that count as the same tissue at the same magnification, cut and resized.
SCALE_RANGE = (0.6, 1.67)

#: Edge to which larger patches are reduced before features are looked for, pixels.
_FEATURE_PX = 192
_FEATURES = 400
_CONTRAST = 0.02

#: Best matches that become hypotheses, hypotheses that are refined, and the least support of one, itself included.
_MATCHES, _HYPOTHESES, _SUPPORT = 250, 3, 3

#: How far a supporter may lie from where a hypothesis puts it, shares of the patch's edge.
_TOLERANCE = 0.03

_ECC = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
_DENSITY = np.array([round(-math.log10(max(value, 8) / 255) * 56, 3) for value in range(256)], dtype=np.float32)
_MIRRORED_BINS = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class Placement:
    """Where a patch lies on another one, turned and scaled.

    Attributes:
        matrix: float64, (2, 3): takes (x, y, 1) of the second patch to (x, y) of the first, shares of the edge.
        correlation: normalised correlation of haematoxylin over the overlap, fine map.
        overlap: share of the first patch that both show.
        structured: share of the first patch that both show and that holds structure in both.
        agreement: share of that where the two agree locally.
        support: matches that agree with it.
    """

    matrix: NDArray[np.float64]
    correlation: float
    overlap: float
    structured: float
    agreement: float
    support: int

    @property
    def score(self) -> float:
        """How far it is from chance: see `wsicurate.curation.copies.structure.evidence`."""
        return evidence(self.correlation, self.structured)


@dataclass(frozen=True)
class Features:
    """Local features of a patch.

    Attributes:
        frames: float64, (n, 2, 3): each feature's frame in shares of the patch's edge: scale times turn, and place.
        descriptors: float32, (n, 128), of length 1.
    """

    frames: NDArray[np.float64]
    descriptors: NDArray[np.float32]

    @classmethod
    def of(cls, patch: NDArray[np.uint8]) -> Features:
        """Find them.

        Args:
            patch: uint8, (s, s, 3), RGB.
        """
        edge = patch.shape[0]
        if edge != _FEATURE_PX:
            way = cv2.INTER_AREA if edge > _FEATURE_PX else cv2.INTER_CUBIC
            patch = np.asarray(cv2.resize(patch, (_FEATURE_PX, _FEATURE_PX), interpolation=way), dtype=np.uint8)
        density = np.minimum(_DENSITY[patch].sum(axis=2), 255).astype(np.uint8)
        points, descriptors = _detector.sift.detectAndCompute(density, None)
        if descriptors is None or not len(points):
            return cls(np.empty((0, 2, 3)), np.empty((0, 128), dtype=np.float32))
        place = np.array([point.pt for point in points], dtype=np.float64)
        angle = np.deg2rad([point.angle for point in points])
        size = np.array([point.size for point in points], dtype=np.float64)
        frames = np.empty((len(points), 2, 3))
        frames[:, 0, 0] = frames[:, 1, 1] = size * np.cos(angle)
        frames[:, 1, 0] = size * np.sin(angle)
        frames[:, 0, 1] = -frames[:, 1, 0]
        frames[:, :, 2] = place + 0.5
        total = descriptors.sum(axis=1, keepdims=True)
        return cls(frames / _FEATURE_PX, np.sqrt(descriptors / np.maximum(total, 1e-6)).astype(np.float32))

    def mirrored(self) -> Features:
        """Those of the patch mirrored left to right."""
        frames = self.frames.copy()
        frames[:, 0] = -frames[:, 0]
        frames[:, 0, 2] += 1.0
        frames[:, :, 1] = -frames[:, :, 1]
        return Features(frames, self.descriptors[:, _MIRRORED_BINS])


def register_features(
    first: Prepared, second: Prepared, first_features: Features, second_features: Features
) -> Placement:
    """The turn, scale, mirror and translation under which two patches agree best.

    Args:
        first, second: patches; they may differ in size.
        first_features, second_features: of them.

    Returns:
        The placement with the largest score; its correlation is 0 where nothing stands out.
    """
    best = Placement(np.eye(2, 3), 0.0, 1.0, 0.0, 0.0, 0)
    if not (first.mask.any() and second.mask.any()):
        return best
    for mirror in (False, True):
        features = second_features.mirrored() if mirror else second_features
        for matrix, support in _hypotheses(first_features, features):
            if mirror:
                matrix = matrix @ np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            placed = _verified(first, second, matrix, support)
            if placed.score > best.score:
                best = placed
    return best


def _hypotheses(first: Features, second: Features) -> list[tuple[NDArray[np.float64], int]]:
    """Transforms (2, 3) that at least `_SUPPORT` matches agree with, most supported first."""
    ours, theirs = _matches(first, second)
    if len(ours) < _SUPPORT:
        return []
    # Frame a = M · frame b, column by column: M's linear part is A · B^-1, a similarity as both are.
    frames_a, frames_b = first.frames[ours], second.frames[theirs]
    linear = frames_a[:, :, :2] @ np.linalg.inv(frames_b[:, :, :2])
    shift = frames_a[:, :, 2] - np.einsum("nij,nj->ni", linear, frames_b[:, :, 2])
    scale = np.sqrt(np.abs(np.linalg.det(linear)))
    inside = (scale > SCALE_RANGE[0]) & (scale < SCALE_RANGE[1])
    places_a, places_b = frames_a[:, :, 2], frames_b[:, :, 2]
    agree = _agreement(linear, shift, places_a, places_b, 2 * _TOLERANCE)
    agree[~inside] = False
    found = []
    for _ in range(_HYPOTHESES):
        counts = _distinct(agree, places_a)
        leader = int(counts.argmax())
        if counts[leader] < _SUPPORT:
            break
        supporters = agree[leader]
        matrix = np.column_stack([linear[leader], shift[leader]])
        for _ in range(2):
            fitted = _similarity(places_b[supporters], places_a[supporters])
            again = _agreement(fitted[None, :, :2], fitted[None, :, 2], places_a, places_b, _TOLERANCE)[0]
            if np.count_nonzero(again) < _SUPPORT:
                break
            matrix, supporters = fitted, again
        size = abs(float(np.linalg.det(matrix[:, :2]))) ** 0.5
        if SCALE_RANGE[0] < size < SCALE_RANGE[1]:
            found.append((matrix, int(np.count_nonzero(supporters))))
        agree[supporters | agree[leader]] = False
    return found


def _matches(first: Features, second: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of features that are each other's nearest, best first."""
    if len(first.frames) < 2 or len(second.frames) < 2:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    similarity = exact_products(on_grid(first.descriptors), on_grid(second.descriptors))
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(nearest))
    mutual = similarity.argmax(axis=0)[nearest] == rows
    best = similarity[rows, nearest]
    order = np.lexsort((rows, -best))
    order = order[mutual[order]][:_MATCHES]
    return order, nearest[order]


def _agreement(
    linear: NDArray[np.float64],
    shift: NDArray[np.float64],
    places_a: NDArray[np.float64],
    places_b: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.bool_]:
    """bool, (hypotheses, matches): whether a hypothesis puts a match's place where it is."""
    put = np.einsum("hij,nj->hni", linear, places_b) + shift[:, None]
    return np.asarray(((put - places_a) ** 2).sum(axis=2) < tolerance**2)


def _distinct(agree: NDArray[np.bool_], places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Supporters of each hypothesis; those in one place (one feature in several directions) count once."""
    _, spot = np.unique(np.floor(places / 0.01).astype(np.int64), axis=0, return_inverse=True)
    counts = np.zeros((len(agree), int(spot.max()) + 1), dtype=bool)
    for match, where in enumerate(spot.ravel()):
        counts[:, where] |= agree[:, match]
    return np.asarray(counts.sum(axis=1), dtype=np.int64)


def _similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity transform, (2, 3), that takes points to points by least squares (Umeyama 1991, no mirror)."""
    centre_s, centre_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - centre_s, target - centre_t
    power = max(float((s * s).sum()), 1e-12)
    cosine, sine = float((s * t).sum()) / power, float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / power
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, centre_t - linear @ centre_s])


def _verified(first: Prepared, second: Prepared, matrix: NDArray[np.float64], support: int) -> Placement:
    """The hypothesis refined on the fine maps, with what the pixels say of it."""
    edge = first.fine.shape[0]
    best = _measured(first, second, matrix, support)
    if best.overlap < LEAST_OVERLAP or best.correlation <= 0.05:
        return best if best.overlap >= LEAST_OVERLAP else Placement(matrix, 0.0, best.overlap, 0.0, 0.0, support)
    inverse = np.linalg.inv(np.vstack([_to_pixels(matrix, edge, second.fine.shape[0]), [0, 0, 1]]))[:2]
    try:
        _, refined = cv2.findTransformECC(first.fine, second.fine, inverse.astype(np.float32), cv2.MOTION_AFFINE, _ECC)
    except cv2.error:  # it did not converge: the hypothesis stands as it is
        return best
    forward = np.linalg.inv(np.vstack([refined, [0, 0, 1]]).astype(np.float64))[:2]
    stretch = np.linalg.svd(forward[:, :2], compute_uv=False) * second.fine.shape[0] / edge
    if not (SCALE_RANGE[0] < stretch[1] and stretch[0] < SCALE_RANGE[1] and stretch[0] < 1.2 * stretch[1]):
        return best
    better = _measured(first, second, _to_shares(forward, edge, second.fine.shape[0]), support)
    return better if better.overlap >= LEAST_OVERLAP and better.score > best.score else best


def _measured(first: Prepared, second: Prepared, matrix: NDArray[np.float64], support: int) -> Placement:
    """Correlation and overlap of the second patch put onto the first."""
    edge = first.fine.shape[0]
    pixels = _to_pixels(matrix, edge, second.fine.shape[0])
    put = cv2.warpAffine(second.fine, pixels, (edge, edge), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.full(second.fine.shape, 255, np.uint8), pixels, (edge, edge), flags=cv2.INTER_LINEAR)
    both = inside == 255
    overlap = float(np.count_nonzero(both)) / edge**2
    if not both.any():
        return Placement(matrix, 0.0, 0.0, 0.0, 0.0, support)
    mask = cv2.warpAffine(second.mask.astype(np.uint8), pixels, (edge, edge), flags=cv2.INTER_NEAREST)
    holds = both & first.mask & (mask > 0)
    return Placement(
        matrix=matrix,
        correlation=correlation(first.fine[both], put[both]),
        overlap=overlap,
        structured=float(np.count_nonzero(holds)) / edge**2,
        agreement=agreement(first.fine, np.asarray(put, dtype=np.float32), holds),
        support=support,
    )


def _to_pixels(matrix: NDArray[np.float64], edge: int, other: int) -> NDArray[np.float64]:
    """A transform in shares of the edge as one of pixel centres, from a map of ``other`` to one of ``edge`` pixels."""
    linear = matrix[:, :2] * edge / other
    return np.column_stack([linear, matrix[:, 2] * edge + linear @ (0.5, 0.5) - 0.5])


def _to_shares(pixels: NDArray[np.float64], edge: int, other: int) -> NDArray[np.float64]:
    linear = pixels[:, :2] * other / edge
    return np.column_stack([linear, (pixels[:, 2] + 0.5 - pixels[:, :2] @ (0.5, 0.5)) / edge])


class _Detector(threading.local):
    """One for each thread: OpenCV does not say that several may share one."""

    def __init__(self) -> None:
        self.sift = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=_CONTRAST)


_detector = _Detector()
