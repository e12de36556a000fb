"""From what similarity on is a pair worth looking at: measured on the store itself.

Two distributions. *Copies*: a sample of patches is changed as copies are changed (shifted by up to half a patch, turned
by the eight symmetries, compressed again, stained 5% more or less, scanned again) and embedded anew; similarity
to the original. *Negatives*: the largest similarity of a patch to any patch of another patient, at the store's size.
Pairwise rates mean nothing as stores grow (on six H&E slides, 5.6% false matches at 100 candidates were 12.8% at full
size); the rate here is per patch.

Two thresholds follow: ``strict``, which the stated share of patches exceeds by chance, and ``generous``, which the
stated share of copies reaches. Where pixels decide afterwards, a chance candidate costs a few milliseconds and a missed
copy is missed for good, so the lower of the two is taken. Where similarity alone decides, ``strict`` is the only
defensible one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.copies.symmetry import SYMMETRIES, turned
from wsicurate.curation.neighbours.blocks import Vectors, exact_dots, exact_where, rounding, unit_blocks, unit_rows
from wsicurate.errors import ConfigError, CurationError, VectorError

#: Embeds patches: uint8 (b, s, s, 3) -> float32 (b, d).
Embed = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]

#: Where neither copies nor negatives can be measured.
PRESET_THRESHOLD = 0.9

#: Ways in which copies differ from originals; ``together`` is all of them on one patch.
CHANGES = ("shift", "symmetry", "compression", "stain", "rescan", "together")

_BINS = 80
_BATCH = 64

#: Rows of queries and of the base that are compared at once.
_QUERY_ROWS, _BLOCK_ROWS = 1_024, 16_384

#: Thresholds are multiples of 1 / this: what embeds the changed patches computes the last digits otherwise elsewhere.
_THRESHOLD_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The candidate threshold and what it was read from.

    Attributes:
        threshold: pairs at least this similar are candidates.
        strict: similarity to another patient's patch that the stated share of patches exceeds; None if uncalibrated.
        generous: similarity that the stated share of the sample's changed copies reaches; None if uncalibrated.
        false_rate: share of sampled patches that are as similar as ``threshold`` to another patient's; None likewise.
        recall: share of changed copies at least as similar as ``threshold`` to their original, by change.
        copies: histogram of their similarities, by change; ``_BINS`` bins from -1 to 1.
        negatives: histogram of the largest similarities to other patients.
        note: ``calibrated``, or ``uncalibrated`` and why.
    """

    threshold: float
    strict: float | None
    generous: float | None
    false_rate: float | None
    recall: Mapping[str, float]
    copies: Mapping[str, tuple[int, ...]]
    negatives: tuple[int, ...]
    note: str

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The calibration whose fields were written down as JSON."""
        copies = {name: tuple(counts) for name, counts in facts["copies"].items()}
        return cls(**{**facts, "copies": copies, "negatives": tuple(facts["negatives"])})

    def as_json(self) -> dict[str, Any]:
        """For ``run.json``."""
        edges = [round(float(edge), 4) for edge in np.linspace(-1, 1, _BINS + 1)]
        return {
            **{name: getattr(self, name) for name in ("threshold", "strict", "generous", "false_rate", "note")},
            "recall": dict(self.recall),
            "histogram_edges": edges,
            "copies": {name: list(counts) for name, counts in self.copies.items()},
            "negatives": list(self.negatives),
        }


def calibrate(
    originals: NDArray[np.uint8],
    embed: Embed,
    negatives: NDArray[np.float32] | None,
    *,
    mosaics: NDArray[np.uint8] | None = None,
    rate: float = 0.001,
    recall: float | None = 0.98,
    preset: float = PRESET_THRESHOLD,
    seed: int = 0,
) -> Calibration:
    """Calibrate the candidate threshold.

    Args:
        originals: uint8, (m, s, s, 3): a sample of the store's patches.
        embed: embeds patches as the store's were embedded.
        negatives: float32: largest similarity to another patient of a sample of patches, as `largest_to_others` returns
            it; None where there are fewer than two patients.
        mosaics: uint8, (m', 2s, 2s, 3): patches with their right and lower neighbours, put together, for shifts. Where
            there are none, as with imported patches that have no grid, two windows of two thirds of a patch are cut
            from one patch and enlarged alike: nothing is reflected or made up, but the zoom is not the store's.
        rate: share of patches that may have a candidate by chance, for ``strict``.
        recall: share of copies changed in all ways at once that ``generous`` admits; None takes ``strict`` alone.
        preset: the threshold with fewer than two patients.
        seed: of the changes.

    Returns:
        The calibration; ``uncalibrated``, with the preset's threshold, with fewer than two patients.

    Raises:
        ConfigError: if a rate, recall or threshold is out of range.
        CurationError: if there is no sample.
        VectorError: if a vector is zero or not finite.
    """
    if not 0 < rate < 1 or (recall is not None and not 0 < recall < 1):
        raise ConfigError(f"rate is {rate!r} and recall {recall!r}; give shares above 0 and below 1")
    if not -1 <= preset <= 1:
        raise ConfigError(f"the preset's threshold is {preset!r}; give a cosine from -1 to 1")
    if not len(originals):
        raise CurationError("there is no patch to calibrate the threshold on")
    similarities = _copies(originals, mosaics, embed, seed)
    strict = generous = false_rate = None
    threshold, note = preset, "uncalibrated: fewer than two patients, so the preset's threshold"
    if negatives is not None and len(negatives):
        if not np.isfinite(negatives).all():
            raise VectorError("similarities to other patients are not finite; embed these patches again")
        ranked = np.sort(negatives)[::-1]
        exceeded = float(ranked[min(int(rate * len(ranked)), len(ranked) - 1)])
        strict = (math.floor(exceeded * _THRESHOLD_STEPS) + 1) / _THRESHOLD_STEPS
        threshold, note = strict, "calibrated"
        if recall is not None:
            ordered = np.sort(similarities["together"])
            reached = float(ordered[int((1 - recall) * len(ordered))])
            generous = math.floor(reached * _THRESHOLD_STEPS) / _THRESHOLD_STEPS
            threshold = min(strict, generous)
        false_rate = float((negatives >= threshold).mean())
    return Calibration(
        threshold=threshold,
        strict=strict,
        generous=generous,
        false_rate=false_rate,
        recall={name: float((values >= threshold).mean()) for name, values in similarities.items()},
        copies={name: _histogram(values) for name, values in similarities.items()},
        negatives=_histogram(negatives) if negatives is not None else (0,) * _BINS,
        note=note,
    )


def largest_to_others(
    vectors: Vectors, rows: NDArray[np.int64], patients: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """The largest similarity of some patches to a patch of another patient, among all.

    Args:
        vectors: (n, d).
        rows: int64, (m,): the sample.
        patients: int, (n,): a number for each patch's patient.

    Returns:
        float32, (m,): cosines; -inf where there is no other patient.

    Raises:
        VectorError: if a vector is zero or not finite, or there are not as many patients as vectors.
    """
    if len(patients) != len(vectors):
        raise VectorError(f"{len(patients):,} patients are named for {len(vectors):,} vectors; give one for each")
    queries = unit_rows(vectors, rows)
    slack = 2 * rounding(vectors.shape[1])
    largest = np.full(len(rows), -np.inf)
    for start, block in unit_blocks(vectors, _BLOCK_ROWS):
        of_block = patients[start : start + len(block)]
        for first in range(0, len(rows), _QUERY_ROWS):
            here = slice(first, first + _QUERY_ROWS)
            scores = queries[here] @ block.T
            scores[patients[rows[here], None] == of_block] = -np.inf
            least = np.maximum(scores.max(axis=1), largest[here]) - slack
            close = (scores >= least[:, None]) & np.isfinite(scores)
            query, _, exact = exact_where(queries[here], block, close)
            np.maximum.at(largest, first + query, exact)
    return np.clip(largest, -1, 1, out=largest, where=np.isfinite(largest)).astype(np.float32)


def changed(patch: NDArray[np.uint8], change: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A patch as a copy of it would look; shifts are not made here.

    Args:
        patch: uint8, (s, s, 3), RGB.
        change: one of `CHANGES` but ``shift``; ``together`` is all the others at once.
        rng: decides how much.

    Returns:
        uint8, (s, s, 3).
    """
    if change in ("stain", "together"):
        # ±5% of each channel's density: Beer-Lambert with more or less of each stain.
        factors = rng.uniform(0.95, 1.05, size=3)
        patch = np.stack([_table(255 * (np.arange(256) / 255) ** factors[c])[patch[..., c]] for c in range(3)], axis=-1)
    if change in ("rescan", "together"):
        blurred = cv2.GaussianBlur(patch, (0, 0), float(rng.uniform(0.3, 1.2)), borderType=cv2.BORDER_REFLECT)
        patch = _table(255 * (np.arange(256) / 255) ** rng.uniform(0.9, 1.1))[blurred]
    if change in ("symmetry", "together"):
        patch = np.ascontiguousarray(turned(patch, int(rng.integers(1, SYMMETRIES))))
    if change in ("compression", "together"):
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))]
        data = cv2.imencode(".jpg", patch[..., ::-1], quality)[1]
        patch = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1])
    return patch


def shifted(mosaic: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A window of a mosaic (2s, 2s, 3), moved by up to half a patch from its upper left one: uint8, (s, s, 3)."""
    edge = mosaic.shape[0] // 2
    dy, dx = rng.integers(0, edge // 2 + 1, size=2)
    return np.ascontiguousarray(mosaic[dy : dy + edge, dx : dx + edge])


def _copies(
    originals: NDArray[np.uint8], mosaics: NDArray[np.uint8] | None, embed: Embed, seed: int
) -> dict[str, NDArray[np.float32]]:
    """Similarity of changed copies to their originals, by change."""
    rng = np.random.default_rng(seed)
    found = {}
    edge = originals.shape[1]
    plain = unit_rows(_embedded(originals, embed), slice(None))
    if mosaics is not None and len(mosaics):
        unshifted = unit_rows(_embedded(np.ascontiguousarray(mosaics[:, :edge, :edge]), embed), slice(None))
        windows = [shifted(mosaic, rng) for mosaic in mosaics]
    else:
        pairs = [_two_windows(patch, rng) for patch in originals]
        unshifted = unit_rows(_embedded(np.stack([first for first, _ in pairs]), embed), slice(None))
        windows = [second for _, second in pairs]
    for change in CHANGES:
        if change in ("shift", "together"):
            copies = windows if change == "shift" else [changed(window, change, rng) for window in windows]
            base = unshifted
        else:
            copies, base = [changed(patch, change, rng) for patch in originals], plain
        vectors = unit_rows(_embedded(np.stack(copies), embed), slice(None))
        found[change] = exact_dots(vectors, base).astype(np.float32)
    return found


def _two_windows(patch: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two windows of two thirds of a patch, up to half a window apart, enlarged to the patch's size."""
    edge = patch.shape[0]
    side = edge * 2 // 3
    moves = rng.integers(0, edge - side + 1, size=2)
    cuts = patch[:side, :side], patch[moves[0] : moves[0] + side, moves[1] : moves[1] + side]
    first, second = (np.asarray(cv2.resize(cut, (edge, edge), interpolation=cv2.INTER_LINEAR)) for cut in cuts)
    return first.astype(np.uint8), second.astype(np.uint8)


def _embedded(patches: NDArray[np.uint8], embed: Embed) -> NDArray[np.float32]:
    parts = [np.asarray(embed(patches[i : i + _BATCH]), dtype=np.float32) for i in range(0, len(patches), _BATCH)]
    return np.concatenate(parts)


def _histogram(values: NDArray[np.float32]) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(values, -1, 1), bins=_BINS, range=(-1, 1))
    return tuple(int(count) for count in counts)


def _table(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def quartets(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of four patches that touch.

    Args:
        cells: int64, (n, 2), column and row of each patch on its slide's grid, n at least 1; each cell once.

    Returns:
        int64, (q, 4): rows of a cell, its right, its lower and its lower right neighbour, of all cells that have these,
        in the order of the cells.
    """
    width = int(cells[:, 0].max()) + 3
    keys = cells[:, 1] * width + cells[:, 0]
    order = np.argsort(keys, kind="stable")
    parts = [np.arange(len(cells))]
    complete = np.ones(len(cells), dtype=bool)
    for step in (1, width, width + 1):
        place = np.minimum(np.searchsorted(keys[order], keys + step), len(keys) - 1)
        complete &= keys[order][place] == keys + step
        parts.append(order[place])
    return np.stack(parts, axis=1)[complete]
