"""Registration by symmetry and translation: the correlation of every overlap of two patches, by FFT.

The correlation is normalised over the overlap of each shift: sums and sums of squares over overlaps, which are corners
of the maps, come from summed-area tables, as Lewis (1995, "Fast normalized cross-correlation") does it for templates.
Of an image's eight symmetries the sums are the same numbers in another order. The coarse map (an eighth of a million
shifts and symmetries) finds the place; the fine map around it decides.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from wsicurate.curation.copies.structure import (
    agreement,
    correlation,
    evidence,
    fine_edge,
    haematoxylin_structure,
    structured,
)
from wsicurate.curation.copies.symmetry import turned, turned_stack, turning

#: The share of a patch that an overlap has at least, to be looked at. Half a patch in both directions leaves 0.25.
LEAST_OVERLAP = 0.2

#: Peaks of the coarse correlation that are tried on the fine map, and how far apart they are, coarse pixels.
_PEAKS, _APART = 2, 3

#: How far around the coarse place the fine map is searched, fine pixels.
_SEARCH = 3

#: Coarse correlation times root of overlap below which the fine map is not asked. Chance: 0.10, rarely 0.25.
_COARSE_LEAST = 0.15

_NOISE = 0.004


@dataclass(frozen=True)
class Shift:
    """Where a patch lies on another one.

    Attributes:
        symmetry: that it is turned by first; see `wsicurate.curation.copies.symmetry`.
        dx, dy: then shifted right and down, as shares of the patch's edge.
        correlation: normalised correlation of haematoxylin over the overlap, fine map.
        overlap: share of the patch that both show.
        structured: share of the patch that both show and that holds structure in both.
        agreement: share of that where the two agree locally.
    """

    symmetry: int
    dx: float
    dy: float
    correlation: float
    overlap: float
    structured: float
    agreement: float

    @property
    def score(self) -> float:
        """How far it is from chance: see `wsicurate.curation.copies.structure.evidence`."""
        return evidence(self.correlation, self.structured)

    def matrix(self, edge: int) -> NDArray[np.float64]:
        """(2, 3): takes pixel (x, y, 1) of the second patch, ``edge`` pixels wide, to (x, y) of the first."""
        matrix = turning(self.symmetry, edge)
        matrix[:, 2] += (self.dx * edge, self.dy * edge)
        return matrix


class Prepared:
    """What registration needs of a patch, computed once for all its pairs.

    Args:
        patch: uint8, (s, s, 3), RGB.

    Attributes:
        fine: float32, (f, f): structure of haematoxylin.
        mask: bool, (f, f): where it holds any.
    """

    def __init__(self, patch: NDArray[np.uint8]) -> None:
        edge = fine_edge(patch.shape[0])
        self.patch = patch
        self.patch_px = patch.shape[0]
        self.fine = haematoxylin_structure(patch, edge)
        self.mask = structured(self.fine)

    @functools.cached_property
    def coarse(self) -> NDArray[np.float32]:
        """float32, (f / 2, f / 2), zero on average."""
        edge = self.fine.shape[0] // 2
        small = cv2.resize(self.fine, (edge, edge), interpolation=cv2.INTER_AREA)
        return np.asarray(small - small.mean(), dtype=np.float32)

    @functools.cached_property
    def spectrum(self) -> NDArray[np.complex64]:
        """Of the coarse map, padded to twice its size."""
        return _spectrum(self.coarse)

    @functools.cached_property
    def turned_spectra(self) -> NDArray[np.complex64]:
        """Conjugate spectra of the coarse map's eight turns."""
        return np.conj(_spectrum(turned_stack(self.coarse).astype(np.float32)))

    @functools.cached_property
    def corners(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the part of the coarse map that each shift of another one covers, what a correlation needs.

        The sum over the root of the area, and the inverse root of the sum of squares about the mean.
        """
        edge = self.coarse.shape[0]
        _, area, _ = _shifts(edge)
        scaled = np.asarray(_corner_sums(self.coarse) / np.sqrt(area), dtype=np.float32)
        variance = _corner_sums(self.coarse * self.coarse) - scaled * scaled
        inverse = 1 / np.sqrt(np.maximum(variance, area * np.float32(_NOISE**2)))
        return scaled, np.asarray(inverse, dtype=np.float32)

    @property
    def turned_corners(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same, (8, ...), of the turned map when it is the one that is shifted."""
        scaled, inverse = self.corners
        return turned_stack(scaled[::-1, ::-1]), turned_stack(inverse[::-1, ::-1])


def register_shift(first: Prepared, second: Prepared) -> Shift:
    """The symmetry and translation under which two patches agree best.

    Args:
        first: a patch.
        second: another of the same size; it is turned and shifted onto the first.

    Returns:
        The place with the largest `Shift.score`; its correlation is 0 where nothing stands out.

    Raises:
        ValueError: if the patches differ in size.
    """
    if first.fine.shape != second.fine.shape or first.patch_px != second.patch_px:
        raise ValueError(f"patches of {first.patch_px} and {second.patch_px} px cannot be compared; cut them alike")
    best = Shift(0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    if not (first.mask.any() and second.mask.any()):
        return best
    for symmetry, dy, dx in _coarse_peaks(first, second):
        found = _refined(first, second, symmetry, 2 * dy, 2 * dx)
        if found.score > best.score:
            best = found
    return best


def _coarse_peaks(first: Prepared, second: Prepared) -> list[tuple[int, int, int]]:
    """Symmetry and shift (down, right; coarse pixels) of the best places, best first."""
    edge = first.coarse.shape[0]
    reach, area, wrapped = _shifts(edge)
    cross = scipy.fft.irfft2(first.spectrum * second.turned_spectra, (2 * edge, 2 * edge), overwrite_x=True)
    cross = cross[:, wrapped[:, None], wrapped]
    (scaled_a, inverse_a), (scaled_b, inverse_b) = first.corners, second.turned_corners
    score = cross - scaled_a * scaled_b
    score *= inverse_a * (np.sqrt(area) / edge)
    score *= inverse_b
    score[:, area < LEAST_OVERLAP * edge * edge] = -1
    peaks = []
    for _ in range(_PEAKS):
        symmetry, row, column = (int(value) for value in np.unravel_index(int(score.argmax()), score.shape))
        if score[symmetry, row, column] < _COARSE_LEAST:
            break
        peaks.append((symmetry, row - reach, column - reach))
        around = slice(max(0, row - _APART), row + _APART + 1), slice(max(0, column - _APART), column + _APART + 1)
        score[symmetry][around] = -1
    return peaks


def _refined(first: Prepared, second: Prepared, symmetry: int, dy: int, dx: int) -> Shift:
    """The best place within `_SEARCH` fine pixels, its shift to a fraction of a pixel."""
    edge = first.fine.shape[0]
    rows, columns = _range(edge, dy), _range(edge, dx)
    window = first.fine[rows[0] : rows[1], columns[0] : columns[1]]
    other = turned(second.fine, symmetry)[rows[0] - dy : rows[1] - dy, columns[0] - dx : columns[1] - dx]
    template = other[_SEARCH:-_SEARCH, _SEARCH:-_SEARCH]
    if min(window.std(), template.std()) < _NOISE:
        return Shift(symmetry, dx / edge, dy / edge, 0.0, window.size / edge**2, 0.0, 0.0)
    surface = cv2.matchTemplate(
        np.ascontiguousarray(window), np.ascontiguousarray(template, dtype=np.float32), cv2.TM_CCOEFF_NORMED
    )
    row, column = (int(value) for value in np.unravel_index(int(surface.argmax()), surface.shape))
    dy += row - _SEARCH
    dx += column - _SEARCH
    overlap = (edge - abs(dy)) * (edge - abs(dx)) / edge**2
    rows, columns = _range(edge, dy), _range(edge, dx)
    here = slice(*rows), slice(*columns)
    there = slice(rows[0] - dy, rows[1] - dy), slice(columns[0] - dx, columns[1] - dx)
    both = first.mask[here] & turned(second.mask, symmetry)[there]
    # The surface says where; its numbers differ with the processor in the last digits, and do not decide.
    seen = slice(row, row + template.shape[0]), slice(column, column + template.shape[1])
    return Shift(
        symmetry,
        (dx + _vertex(np.asarray(surface[row], np.float32), column)) / edge,
        (dy + _vertex(np.asarray(surface[:, column], np.float32), row)) / edge,
        correlation(window[seen], template),
        overlap,
        float(np.count_nonzero(both)) / edge**2,
        agreement(first.fine[here], turned(second.fine, symmetry)[there], both),
    )


def _vertex(values: NDArray[np.floating[Any]], peak: int) -> float:
    """Where between its neighbours a parabola through the peak has its top, -0.5 to 0.5."""
    if peak in (0, len(values) - 1):
        return 0.0
    before, at, after = (float(value) for value in values[peak - 1 : peak + 2])
    bend = before - 2 * at + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0


def _range(edge: int, shift: int) -> tuple[int, int]:
    return max(0, shift), min(edge, edge + shift)


def _spectrum(maps: NDArray[np.float32]) -> NDArray[np.complex64]:
    edge = maps.shape[-1]
    return np.asarray(scipy.fft.rfft2(maps, (2 * edge, 2 * edge)), dtype=np.complex64)


@functools.lru_cache(maxsize=4)
def _shifts(edge: int) -> tuple[int, NDArray[np.float32], NDArray[np.intp]]:
    """The farthest shift, the overlap's area at each, and where an FFT of twice the size puts them."""
    reach = int(edge * (1 - LEAST_OVERLAP))
    shifts = np.arange(-reach, reach + 1)
    left = (edge - np.abs(shifts)).astype(np.float32)
    return reach, left[:, None] * left, (shifts % (2 * edge)).astype(np.intp)


def _corner_sums(values: NDArray[np.float32]) -> NDArray[np.float32]:
    edge = len(values)
    table = np.zeros((edge + 1, edge + 1))
    table[1:, 1:] = values.cumsum(0, dtype=np.float64).cumsum(1)
    reach = _shifts(edge)[0]
    shifts = np.arange(-reach, reach + 1)
    begin, end = np.maximum(0, shifts), np.minimum(edge, edge + shifts)
    rows = table[end] - table[begin]
    return np.asarray(rows[:, end] - rows[:, begin], dtype=np.float32)
