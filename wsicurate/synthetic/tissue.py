"""Paints H&E: layout -> stain amounts -> colours, one region at a time, the same whatever the cut into regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.stain import EOSIN, HAEMATOXYLIN, from_stains
from wsicurate.synthetic.layout import Kind, Layout
from wsicurate.synthetic.noise import Field, coarsened, enlarged, fractal_noise, hash_unit, value_noise
from wsicurate.synthetic.region import Region

#: How far around a region things are drawn that reach into it (adipocytes are the largest), and how far blurs reach.
_MARGIN_PX = 160
_BLUR_MARGIN_PX = 8

#: Pixels between candidate positions of nuclei, glands and adipocytes.
_NUCLEUS_GRID_PX = 11
_GLAND_GRID_PX = 150
_FAT_GRID_PX = 84

#: Nuclei: share of grid positions that hold one, mean radii in pixels, darkness. By kind.
_NUCLEI = {
    Kind.STROMA: (0.16, 5.6, 1.8, 0.62),
    Kind.TUMOUR: (0.66, 5.6, 4.3, 0.58),
    Kind.GLANDS: (0.16, 4.6, 2.2, 0.55),
    Kind.FAT: (0.012, 4.5, 1.7, 0.55),
    Kind.NECROSIS: (0.16, 1.9, 1.5, 0.65),
    Kind.MUCIN: (0.0, 5.0, 4.0, 0.6),
}


@dataclass(frozen=True)
class Stain:
    """The look of one slide: its laboratory's dyes and its scanner's light.

    Attributes:
        haematoxylin, eosin: absorption of a unit of stain, (3,).
        strength: (haematoxylin, eosin) factors on the amounts; about 0.35 is a pale slide.
        background: RGB of clear background, (3,).
        noise: standard deviation of the camera's noise, grey levels.
    """

    haematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    strength: tuple[float, float]
    background: NDArray[np.float32]
    noise: float

    @classmethod
    def of(cls, site_seed: int, slide_seed: int, *, strength: float = 1.0) -> Stain:
        """A stain that varies a lot between sites and a little between slides of one."""
        site = np.random.default_rng([site_seed, 2])
        slide = np.random.default_rng([slide_seed, 3])
        dyes = [
            _unit(dye + site.normal(0, 0.05, 3).astype(np.float32) + slide.normal(0, 0.008, 3).astype(np.float32))
            for dye in (HAEMATOXYLIN, EOSIN)
        ]
        return cls(
            haematoxylin=dyes[0],
            eosin=dyes[1],
            strength=(
                strength * site.uniform(0.85, 1.15) * slide.uniform(0.94, 1.06),
                strength * site.uniform(0.8, 1.2) * slide.uniform(0.92, 1.08),
            ),
            background=np.array(site.uniform(238, 246) + site.normal(0, 1.2, 3), dtype=np.float32),
            noise=float(site.uniform(1.0, 2.2)),
        )


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    positive = np.maximum(vector, 0.03)
    return np.asarray(positive / np.linalg.norm(positive), dtype=np.float32)


@dataclass(frozen=True)
class Painting:
    """A painted region.

    Attributes:
        pixels: float32, (h, w, 3), RGB, 0 to 255, without artefacts and noise.
        kinds: uint8, (h, w): the `Kind` of each pixel.
    """

    pixels: Field
    kinds: NDArray[np.uint8]


def paint(layout: Layout, stain: Stain, region: Region, seed: int) -> Painting:
    """Paint a region.

    Args:
        layout: where everything is.
        stain: colours.
        region: canvas pixels (20x).
        seed: of the texture.
    """
    wide, near = region.grown(_MARGIN_PX), region.grown(_BLUR_MARGIN_PX)
    wide_kinds = _kinds(layout, wide, seed)
    kinds = _cropped(wide_kinds, _MARGIN_PX - _BLUR_MARGIN_PX)
    if not kinds.any():
        height, width = region.height, region.width
        background = np.broadcast_to(stain.background, (height, width, 3)).astype(np.float32)
        return Painting(background, np.zeros((height, width), dtype=np.uint8))
    haematoxylin, eosin = _ground(kinds, near, seed)
    _paint_glands(haematoxylin, eosin, wide_kinds, wide, seed)
    _paint_nuclei(haematoxylin, wide_kinds, wide, seed)
    _paint_clusters(haematoxylin, eosin, wide_kinds, wide, seed)
    thickness = layout.sample(layout.thickness, near)
    thickness *= cv2.GaussianBlur((kinds != Kind.BACKGROUND).astype(np.float32), (0, 0), 1.0)
    haematoxylin *= thickness * np.float32(stain.strength[0])
    eosin *= thickness * np.float32(stain.strength[1])
    pixels = from_stains(
        _cropped(haematoxylin, _BLUR_MARGIN_PX),
        _cropped(eosin, _BLUR_MARGIN_PX),
        haematoxylin_vector=stain.haematoxylin,
        eosin_vector=stain.eosin,
        background=stain.background,
    )
    return Painting(pixels, _cropped(kinds, _BLUR_MARGIN_PX))


def _cropped(values: NDArray[Any], margin: int) -> NDArray[Any]:
    return values[margin:-margin, margin:-margin]


def _drawn(canvas: NDArray[np.uint8], sigma: float) -> Field:
    """A drawing on the wide canvas, cut to the near one and softened; 1 where it was drawn with shade 1."""
    near = np.ascontiguousarray(_cropped(canvas, _MARGIN_PX - _BLUR_MARGIN_PX))
    return cv2.GaussianBlur(near, (0, 0), sigma).astype(np.float32) * np.float32(1 / 200)


def _kinds(layout: Layout, region: Region, seed: int) -> NDArray[np.uint8]:
    """The kind of each pixel: the layout's, with borders frayed by noise. Decided for squares of 2 x 2 pixels."""
    half = coarsened(region, 2)
    frayed = fractal_noise(half, 32, seed + 21, 4) - 0.5
    inside = layout.sample(layout.outline, half, 2) + np.float32(1.6) * frayed > 0
    best = np.zeros(inside.shape, dtype=np.float32)
    kinds = np.full(inside.shape, Kind.STROMA, dtype=np.uint8)
    for kind in (Kind.FAT, Kind.TUMOUR, Kind.GLANDS, Kind.NECROSIS, Kind.MUCIN):
        score = layout.sample(layout.scores[kind], half, 2)
        if score.max() < -1:
            continue
        score = score + np.float32(0.9) * (fractal_noise(half, 16, seed + 30 + kind, 3) - 0.5)
        wins = score > best
        kinds[wins] = kind
        best[wins] = score[wins]
    kinds[~inside] = Kind.BACKGROUND
    return enlarged(kinds, 2, half, region, cv2.INTER_NEAREST)


def _ground(kinds: NDArray[np.uint8], region: Region, seed: int) -> tuple[Field, Field]:
    """What lies between the nuclei: fibres, cytoplasm, fat cells, debris, mucus. (haematoxylin, eosin)"""
    counts = np.bincount(kinds.ravel(), minlength=len(Kind))
    present = [kind for kind in Kind if counts[kind] and kind != Kind.BACKGROUND]
    haematoxylin = np.zeros(kinds.shape, dtype=np.float32)
    eosin = np.zeros(kinds.shape, dtype=np.float32)
    grain = value_noise(region, 2, seed + 41)
    cloud = fractal_noise(region, 64, seed + 42, 4)
    fibrous = {Kind.STROMA, Kind.GLANDS, Kind.MUCIN} & set(present)
    fibres, gaps = _fibres(region, seed) if fibrous else (cloud, cloud)
    for kind in present:
        share = cv2.GaussianBlur((kinds == kind).astype(np.float32), (0, 0), 2.0)
        if kind == Kind.STROMA:
            amounts = 0.02 + 0.03 * cloud, (0.12 + 0.26 * fibres + 0.12 * (cloud - 0.5)) * gaps
        elif kind == Kind.TUMOUR:
            amounts = 0.07 + 0.08 * cloud, 0.10 + 0.16 * cloud + 0.06 * (grain - 0.5)
        elif kind == Kind.GLANDS:
            amounts = 0.03 + 0.02 * cloud, (0.10 + 0.22 * fibres) * gaps
        elif kind == Kind.FAT:
            walls = _cropped(_fat_walls(region.grown(_MARGIN_PX), seed), _MARGIN_PX)
            amounts = 0.03 * walls, 0.20 * walls * (0.5 + cloud)
        elif kind == Kind.NECROSIS:
            clumps = fractal_noise(region, 8, seed + 43, 3)
            amounts = 0.03 + 0.08 * clumps, 0.24 + 0.25 * (clumps - 0.4) + 0.08 * (grain - 0.5)
        else:
            amounts = 0.05 + 0.11 * fibres * cloud, 0.01 + 0.03 * fibres
        haematoxylin += share * amounts[0]
        eosin += share * amounts[1]
    return haematoxylin, np.maximum(eosin, 0)


def _fibres(region: Region, seed: int) -> tuple[Field, Field]:
    """Wavy collagen: noise stretched along a direction that turns slowly, and the white gaps between bundles."""
    rows = np.arange(region.y, region.y + region.height, dtype=np.float32)[:, None]
    columns = np.arange(region.x, region.x + region.width, dtype=np.float32)[None, :]
    bend = fractal_noise(region, 512, seed + 51, 3) - 0.5
    wave = fractal_noise(region, 128, seed + 52, 2) - 0.5
    direction = float(np.random.default_rng([seed, 4]).uniform(0, np.pi))
    cosine, sine = np.float32(np.cos(direction)), np.float32(np.sin(direction))
    across = rows * cosine - columns * sine + 420 * bend + 60 * wave
    along = columns * cosine + rows * sine + 300 * wave
    texture = _streak_texture(seed)
    fine, coarse, bundles = (
        _wrapped(texture, along / np.float32(stretch), across / np.float32(width))
        for stretch, width in ((14.0, 2.6), (28.0, 6.0), (70.0, 16.0))
    )
    gaps = np.clip((bundles - 0.10) * 6, 0.04, 1)
    return np.float32(0.4) * fine + np.float32(0.6) * coarse, gaps


def _wrapped(texture: Field, x: Field, y: Field) -> Field:
    """A periodic texture at any coordinates, moved near its origin first: OpenCV keeps them in 16 bits."""
    period = np.float32(len(texture))
    x -= period * np.floor(x.min() / period)
    y -= period * np.floor(y.min() / period)
    return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=np.float32)


def _streak_texture(seed: int) -> Field:
    """A periodic noise image, cut by bent coordinates into fibres that never repeat side by side."""
    side = 512
    values = np.random.default_rng([seed, 5]).random((side, side), dtype=np.float32)
    wrapped = np.pad(values, 8, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), 0.9)[8:-8, 8:-8]
    low, high = np.percentile(smooth, (2, 98))
    return np.asarray(np.clip((smooth - low) / (high - low), 0, 1), dtype=np.float32)


def _grid(region: Region, spacing: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Jittered grid positions in and around a region: x, y relative to it, and the grid's own column and row."""
    across, down = np.meshgrid(
        np.arange((region.x - spacing) // spacing, (region.x + region.width) // spacing + 2),
        np.arange((region.y - spacing) // spacing, (region.y + region.height) // spacing + 2),
    )
    columns, rows = across.ravel(), down.ravel()
    x = (columns + 0.5 + 0.9 * (hash_unit(columns, rows, seed) - 0.5)) * spacing - region.x
    y = (rows + 0.5 + 0.9 * (hash_unit(columns, rows, seed + 1) - 0.5)) * spacing - region.y
    return x.astype(np.int64), y.astype(np.int64), columns, rows


def _fat_walls(region: Region, seed: int) -> Field:
    """The thin walls between fat cells: borders of the Voronoi cells of a jittered grid."""
    x, y, _, _ = _grid(region, _FAT_GRID_PX, seed + 61)
    seeds = np.full((region.height, region.width), 255, dtype=np.uint8)
    known = (x >= 0) & (y >= 0) & (x < region.width) & (y < region.height)
    seeds[y[known], x[known]] = 0
    if not known.any():
        return np.zeros(seeds.shape, dtype=np.float32)
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    labels = np.asarray(labels)
    walls = np.zeros(seeds.shape, dtype=np.uint8)
    walls[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    walls[1:] |= labels[1:] != labels[:-1]
    blurred = cv2.GaussianBlur(walls.astype(np.float32), (0, 0), 1.5)
    return np.asarray(np.clip(blurred * np.float32(3.2), 0, 1))


def _paint_nuclei(haematoxylin: Field, kinds: NDArray[np.uint8], region: Region, seed: int) -> None:
    """Draw nuclei where the kind under them wants one. ``kinds`` and ``region`` are wide, ``haematoxylin`` near."""
    x, y, columns, rows = _grid(region, _NUCLEUS_GRID_PX, seed + 71)
    known = (x >= 0) & (y >= 0) & (x < region.width) & (y < region.height)
    x, y, columns, rows = (part[known] for part in (x, y, columns, rows))
    kind = kinds[y, x]
    table = np.zeros((len(Kind), 4), dtype=np.float32)
    for key, values in _NUCLEI.items():
        table[key] = values
    chance, long, short, dark = table[kind].T
    chosen = hash_unit(columns, rows, seed + 72) < chance
    size = 0.6 + 0.75 * hash_unit(columns, rows, seed + 73) ** 1.5
    slim = 0.75 + 0.4 * hash_unit(columns, rows, seed + 77)
    angle = 180 * hash_unit(columns, rows, seed + 74)
    shade = dark * (0.55 + 0.8 * hash_unit(columns, rows, seed + 75))
    canvas = np.zeros(kinds.shape, dtype=np.uint8)
    for index in np.flatnonzero(chosen).tolist():
        _ellipse(
            canvas,
            x[index],
            y[index],
            long[index] * size[index],
            short[index] * size[index] * slim[index],
            angle[index],
            shade[index],
        )
    _add_nuclei(haematoxylin, canvas, region, seed)


def _add_nuclei(haematoxylin: Field, canvas: NDArray[np.uint8], region: Region, seed: int) -> None:
    """Lay drawn nuclei over the ground; chromatin is grain within. ``region`` is that of the wide canvas."""
    chromatin = value_noise(region.grown(_BLUR_MARGIN_PX - _MARGIN_PX), 2, seed + 76)
    haematoxylin += _drawn(canvas, 0.7) * (0.55 + 0.8 * chromatin)


def _ellipse(
    canvas: NDArray[np.uint8], x: float, y: float, long: float, short: float, angle: float, shade: float
) -> None:
    """Draw one soft-edged nucleus; ``shade`` 1 is 200 of 255."""
    centre = (int(x * 16), int(y * 16))
    axes = (max(8, int(long * 16)), max(8, int(short * 16)))
    cv2.ellipse(canvas, centre, axes, float(angle), 0, 360, min(255, int(shade * 200)), -1, cv2.LINE_AA, 4)


def _paint_glands(haematoxylin: Field, eosin: Field, kinds: NDArray[np.uint8], region: Region, seed: int) -> None:
    """Rings of nuclei around a white lumen."""
    if not (kinds == Kind.GLANDS).any():
        return
    x, y, columns, rows = _grid(region, _GLAND_GRID_PX, seed + 81)
    canvas = np.zeros(kinds.shape, dtype=np.uint8)
    body = np.zeros_like(canvas)
    lumen = np.zeros_like(canvas)
    numbers = [hash_unit(columns, rows, seed + 82 + number) for number in range(5)]
    for index in range(len(x)):
        cx, cy = int(x[index]), int(y[index])
        if not (0 <= cx < region.width and 0 <= cy < region.height) or kinds[cy, cx] != Kind.GLANDS:
            continue
        size, stretch, angle, hollow, shade = (float(number[index]) for number in numbers)
        long = 26 + 36 * size
        short = long * (0.55 + 0.4 * stretch)
        turn = np.pi * angle
        _ellipse(body, cx, cy, long + 5, short + 5, np.degrees(turn), 1.0)
        _ellipse(lumen, cx, cy, long * (0.25 + 0.4 * hollow), short * (0.25 + 0.4 * hollow), np.degrees(turn), 1.0)
        phase = float(columns[index] * 7 + rows[index])
        count = int((long + short) * np.pi / 7.5)
        for step in range(count):
            around = 2 * np.pi * (step + 0.3 * np.sin(12.9 * step + phase)) / count
            reach = 0.86 + 0.07 * np.sin(78.2 * step + phase)
            across, down = long * reach * np.cos(around), short * reach * np.sin(around)
            nx, ny = cx + across * np.cos(turn) - down * np.sin(turn), cy + across * np.sin(turn) + down * np.cos(turn)
            facing = np.degrees(np.arctan2(ny - cy, nx - cx))
            _ellipse(canvas, nx, ny, 5.0, 2.9, facing, 0.65 + 0.25 * shade)
    flesh, hole = _drawn(body, 1.5), _drawn(lumen, 1.2)
    eosin *= 1 - flesh
    eosin += flesh * 0.30 * (1 - hole)
    haematoxylin *= 1 - flesh
    haematoxylin += 0.12 * flesh * (1 - hole)
    _add_nuclei(haematoxylin, canvas, region, seed)


def _paint_clusters(haematoxylin: Field, eosin: Field, kinds: NDArray[np.uint8], region: Region, seed: int) -> None:
    """Small groups of cells that float in mucus."""
    if not (kinds == Kind.MUCIN).any():
        return
    x, y, columns, rows = _grid(region, 90, seed + 91)
    canvas = np.zeros(kinds.shape, dtype=np.uint8)
    body = np.zeros_like(canvas)
    size = hash_unit(columns, rows, seed + 92)
    for index in range(len(x)):
        cx, cy = int(x[index]), int(y[index])
        if not (0 <= cx < region.width and 0 <= cy < region.height) or kinds[cy, cx] != Kind.MUCIN:
            continue
        radius = 8 + 16 * float(size[index])
        _ellipse(body, cx, cy, radius, radius * 0.8, 57 * float(columns[index]), 1.0)
        for step in range(int(radius * radius / 26)):
            around, reach = 2.4 * step, radius * 0.8 * np.sqrt((step + 0.5) / (radius * radius / 26))
            _ellipse(canvas, cx + reach * np.cos(around), cy + 0.8 * reach * np.sin(around), 4.4, 3.6, 37 * step, 0.8)
    flesh = _drawn(body, 1.2)
    eosin += 0.22 * flesh
    haematoxylin += 0.08 * flesh
    _add_nuclei(haematoxylin, canvas, region, seed)
