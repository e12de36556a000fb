"""Where tissue lies on a synthetic slide, and which kind: maps of 32 canvas pixels (16 µm) a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.synthetic.noise import Field, coarsened, enlarged, fractal_noise
from wsicurate.synthetic.region import Region

#: Canvas pixels per map cell.
CELL_PX = 32


class Kind(IntEnum):
    """What a pixel of a synthetic slide shows. ``MUCIN`` is the rare kind."""

    BACKGROUND = 0
    STROMA = 1
    TUMOUR = 2
    GLANDS = 3
    FAT = 4
    NECROSIS = 5
    MUCIN = 6


#: Shares of the tissue's area, as far as the slide's size allows; stroma takes the rest.
DEFAULT_SHARES: Mapping[Kind, float] = {
    Kind.TUMOUR: 0.30,
    Kind.GLANDS: 0.08,
    Kind.FAT: 0.16,
    Kind.NECROSIS: 0.05,
    Kind.MUCIN: 0.005,
}


@dataclass(frozen=True)
class Layout:
    """The plan of a slide's tissue.

    Attributes:
        outline: float32, (h, w): positive inside the tissue, in cells from its border, roughly.
        scores: float32, (kinds, h, w): the kind of the highest score is there; indexed by `Kind`.
        thickness: float32, (h, w): how thick the section is, about 1.
    """

    outline: Field
    scores: Field
    thickness: Field

    def sample(self, field: Field, region: Region, pixel: int = 1) -> Field:
        """A map's values at the pixels of a region, interpolated bicubically, held at the border.

        ``pixel`` is the size of the region's pixels in canvas pixels.
        """
        factor = CELL_PX // pixel
        coarse = coarsened(region, factor)
        height, width = field.shape
        rows = np.clip(np.arange(coarse.y, coarse.y + coarse.height), 0, height - 1)
        columns = np.clip(np.arange(coarse.x, coarse.x + coarse.width), 0, width - 1)
        return enlarged(field[rows[:, None], columns], factor, coarse, region)


def make_layout(
    width_px: int,
    height_px: int,
    seed: int,
    *,
    shares: Mapping[Kind, float] = DEFAULT_SHARES,
    tissue: float = 0.45,
    holes: int = 0,
    pale: int = 0,
) -> Layout:
    """Lay out a slide.

    Tissue is one to three rounded pieces with ragged borders. Tumour grows in nests within the stroma, necrosis in
    the middle of large nests, fat along the rim, glands in groups; the rare kind in a few round pools.

    Args:
        width_px: canvas pixels.
        height_px: canvas pixels.
        seed: of everything.
        shares: of each kind in the tissue's area.
        tissue: share of the canvas that is tissue; 0 leaves the slide blank.
        holes: number of places where the tissue was torn out.
        pale: number of places where the section is so thin that it hardly took stain.
    """
    width, height = -(-width_px // CELL_PX), -(-height_px // CELL_PX)
    generator = np.random.default_rng([seed, 1])
    whole = Region(0, 0, width, height)
    outline = _outline(whole, seed, generator, tissue)
    for spot in spots(outline > 0, holes, 0.05, np.random.default_rng([seed, 6])):
        outline = np.minimum(outline, -4 * spot)
    inside = outline > 0
    scores = np.full((len(Kind), height, width), -9, dtype=np.float32)
    scores[Kind.STROMA] = 0
    if inside.any():
        rim = np.asarray(np.minimum(_distance(inside), 40) / 40, dtype=np.float32)
        feature = _power_of_two(min(width, height) / 5)
        nests = fractal_noise(whole, max(4, feature // 2), seed + 11, 4)
        glands = fractal_noise(whole, max(4, feature // 2), seed + 12, 3)
        fat = fractal_noise(whole, max(8, feature), seed + 13, 3) + np.float32(0.25) * (1 - rim)
        scores[Kind.FAT] = _share_of(fat, inside, shares.get(Kind.FAT, 0))
        left = inside & (scores[Kind.FAT] < 0)
        scores[Kind.TUMOUR] = _share_of(nests, left, _of_rest(shares, Kind.TUMOUR, left, inside))
        left &= scores[Kind.TUMOUR] < 0
        scores[Kind.GLANDS] = _share_of(glands, left, _of_rest(shares, Kind.GLANDS, left, inside))
        tumour = inside & (scores[Kind.TUMOUR] > 0)
        core = np.minimum(_distance(tumour), 30) / np.float32(30) + np.float32(0.4) * fractal_noise(
            whole, 16, seed + 14, 3
        )
        scores[Kind.NECROSIS] = 2 * _share_of(core, tumour, _of_rest(shares, Kind.NECROSIS, tumour, inside))
        scores[Kind.MUCIN] = 4 * _pools(inside, shares.get(Kind.MUCIN, 0), generator, whole, seed)
    thickness = 0.85 + 0.3 * fractal_noise(whole, _power_of_two(min(width, height) / 3), seed + 15, 4)
    for spot in spots(inside, pale, 0.09, np.random.default_rng([seed, 7])):
        thickness = thickness * (1 - 0.72 * np.clip(spot * 4, 0, 1))
    return Layout(outline, scores, thickness)


def _outline(whole: Region, seed: int, generator: np.random.Generator, tissue: float) -> Field:
    """Positive inside: a union of ellipses whose border is pushed in and out by noise, sized to the wanted share."""
    height, width = whole.height, whole.width
    if tissue <= 0:
        return np.full((height, width), -9, dtype=np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    field = np.full((height, width), -9, dtype=np.float32)
    pieces = int(generator.integers(1, 4))
    for piece in range(pieces):
        angle = generator.uniform(0, np.pi)
        x = width * (0.5 if pieces == 1 else (piece + 0.5) / pieces + generator.uniform(-0.04, 0.04))
        y = height * generator.uniform(0.42, 0.58)
        long, short = generator.uniform(0.8, 1.15), generator.uniform(0.55, 0.9)
        across = (columns - x) / (width / pieces * 0.5)
        down = (rows - y) / (height * 0.5)
        turned = (
            (across * np.cos(angle) + down * np.sin(angle)) / long,
            (down * np.cos(angle) - across * np.sin(angle)) / short,
        )
        field = np.maximum(field, 1 - np.sqrt(turned[0] ** 2 + turned[1] ** 2))
    ragged = fractal_noise(whole, _power_of_two(min(width, height) / 2), seed + 10, 4) - 0.5
    field = field + np.float32(0.9) * ragged
    edge = np.minimum.reduce([columns, rows, width - 1 - columns, height - 1 - rows]) / min(width, height)
    field = np.minimum(field, (edge - 0.03) * 8)
    cut = np.quantile(field, 1 - min(tissue, 0.85))
    gradient = 0.03 * max(min(width, height), 320)  # so that borders of small slides are not frayed to pieces
    return np.asarray((field - cut) * np.float32(gradient), dtype=np.float32)


def _share_of(field: Field, where: NDArray[np.bool_], share: float) -> Field:
    """The field, shifted so that the wanted share of ``where`` is positive, scaled to about -1 to 1."""
    if share <= 0 or not where.any():
        return np.full(field.shape, -9, dtype=np.float32)
    cut = np.quantile(field[where], 1 - min(share, 1))
    spread = float(field[where].std()) or 1.0
    return ((field - cut) / np.float32(spread)).astype(np.float32)


def _of_rest(shares: Mapping[Kind, float], kind: Kind, rest: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """A share of all tissue, as a share of what is left."""
    return shares.get(kind, 0) * float(inside.sum()) / max(1.0, float(rest.sum()))


def _pools(inside: NDArray[np.bool_], share: float, generator: np.random.Generator, whole: Region, seed: int) -> Field:
    """Round pools within the tissue that together cover ``share`` of it: positive inside."""
    field = np.full(inside.shape, -9, dtype=np.float32)
    deep = np.argwhere(_distance(inside) > 6)
    if share <= 0 or not len(deep):
        return field
    area = share * float(inside.sum())
    pools = max(1, min(6, round(area / 60)))
    radius = np.sqrt(area / pools / np.pi)
    rows, columns = np.mgrid[0 : whole.height, 0 : whole.width]
    wobble = 0.5 * (fractal_noise(whole, 8, seed + 16, 2) - 0.5)
    for row, column in deep[generator.choice(len(deep), pools, replace=len(deep) < pools)]:
        distance = np.hypot(rows - row, columns - column) / radius
        field = np.maximum(field, (1 - distance + wobble).astype(np.float32))
    return field


def spots(where: NDArray[np.bool_], count: int, size: float, generator: np.random.Generator) -> list[Field]:
    """Ellipses centred within ``where``: each 1 in its middle, 0 on its border.

    Their radius is about ``size`` times the map's shorter side.
    """
    candidates = np.argwhere(where)
    height, width = where.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    found = []
    for _ in range(count if len(candidates) else 0):
        row, column = candidates[generator.integers(len(candidates))]
        angle, radius = generator.uniform(0, np.pi), size * min(height, width) * generator.uniform(0.7, 1.3)
        along = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
        across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
        found.append((1 - np.hypot(along / radius, across / (radius * 0.6))).astype(np.float32))
    return found


def _distance(mask: NDArray[np.bool_]) -> Field:
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3), dtype=np.float32)


def _power_of_two(value: float) -> int:
    return max(4, 1 << int(np.log2(max(value, 4))))
