"""What goes wrong with real slides: pen, folds, places out of focus; maps of 16 canvas pixels (8 µm) a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.synthetic.layout import CELL_PX, Layout, spots
from wsicurate.synthetic.noise import Field, coarsened, enlarged
from wsicurate.synthetic.region import Region

#: Canvas pixels per cell of the artefact maps and of the ground truth.
TRUTH_PX = 16

#: Colours of marker pens, RGB.
INKS = {"green": (20, 105, 85), "blue": (45, 70, 165), "red": (205, 35, 50), "black": (38, 38, 44)}

#: Standard deviation of the blur of a place out of focus, canvas pixels.
_BLUR_SIGMA = 3.5


@dataclass(frozen=True)
class Artefacts:
    """Where artefacts lie; float32 (h, w) maps, 0 to 1.

    Attributes:
        pens: ink and opacity of each stroke.
        folds: how much the section lies double.
        blur: how far out of focus it is.
    """

    pens: tuple[tuple[tuple[int, int, int], Field], ...]
    folds: Field
    blur: Field

    def apply(self, pixels: Field, region: Region) -> Field:
        """The painted pixels of a region (float32, (h, w, 3)) with the artefacts on them."""
        folds = _sampled(self.folds, region)
        if folds.max() > 0.01:
            doubled = pixels * pixels * np.float32(0.9 / 250)
            pixels = np.asarray(pixels + (doubled - pixels) * folds[..., None], dtype=np.float32)
        blur = _sampled(self.blur, region)
        if blur.max() > 0.01:
            soft = cv2.GaussianBlur(pixels, (0, 0), _BLUR_SIGMA)
            pixels = np.asarray(pixels + (soft - pixels) * blur[..., None], dtype=np.float32)
        for ink, opacity in self.pens:
            cover = _sampled(opacity, region)
            if cover.max() > 0.01:
                passed = np.array(ink, dtype=np.float32) / 255
                pixels = np.asarray(pixels * (1 - cover[..., None] * (1 - passed)), dtype=np.float32)
        return pixels

    def pen_mask(self) -> NDArray[np.bool_]:
        """bool, (h, w): under visible ink."""
        mask = np.zeros(self.folds.shape, dtype=bool)
        for _, opacity in self.pens:
            mask |= opacity > 0.5
        return mask


def make_artefacts(
    layout: Layout,
    width_px: int,
    height_px: int,
    seed: int,
    *,
    pens: Sequence[str] = (),
    folds: int = 0,
    blurred: int = 0,
) -> Artefacts:
    """Place artefacts on a slide.

    Args:
        layout: of its tissue.
        width_px: canvas pixels.
        height_px: canvas pixels.
        seed: of the places.
        pens: inks, see `INKS`; each draws one stroke along the tissue's border.
        folds: number of folds.
        blurred: number of places out of focus.
    """
    shape = (-(-height_px // TRUTH_PX), -(-width_px // TRUTH_PX))
    generator = np.random.default_rng([seed, 8])
    inside = np.repeat(np.repeat(layout.outline > 0, CELL_PX // TRUTH_PX, axis=0), CELL_PX // TRUTH_PX, axis=1)
    inside = inside[: shape[0], : shape[1]]
    strokes = tuple((INKS[ink], _stroke(inside, generator)) for ink in pens)
    fold_map = np.zeros(shape, dtype=np.float32)
    for _ in range(folds):
        fold_map = np.maximum(fold_map, _fold(inside, generator))
    blur_map = np.zeros(shape, dtype=np.float32)
    for spot in spots(inside, blurred, 0.10, generator):
        blur_map = np.maximum(blur_map, np.clip(spot * 5, 0, 1))
    return Artefacts(strokes, fold_map, blur_map)


def _stroke(inside: NDArray[np.bool_], generator: np.random.Generator) -> Field:
    """Opacity of a pen stroke that follows part of the tissue's border by hand."""
    canvas = np.zeros(inside.shape, dtype=np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return canvas.astype(np.float32)
    border = np.asarray(max(contours, key=len))[:, 0, :].astype(np.float64)
    start, length = generator.integers(len(border)), int(len(border) * generator.uniform(0.2, 0.45))
    path = np.roll(border, -start, axis=0)[:: max(1, len(border) // 60)][: max(4, 60 * length // len(border))]
    for _ in range(4):  # a hand does not follow every bump
        path[1:-1] = (path[:-2] + path[1:-1] + path[2:]) / 3
    away = path - border.mean(axis=0)
    path = path + 0.06 * away + generator.normal(0, 1.5, path.shape)
    thickness = max(2, int(min(inside.shape) * generator.uniform(0.03, 0.05)))
    cv2.polylines(canvas, [np.rint(path).astype(np.int32).reshape(-1, 1, 2)], False, 255, thickness, cv2.LINE_AA)
    uneven = cv2.GaussianBlur(generator.random(inside.shape, dtype=np.float32), (0, 0), 4)
    uneven = (uneven - uneven.min()) / max(float(np.ptp(uneven)), 1e-6)
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.8).astype(np.float32) / 255
    return np.asarray(soft * (0.72 + 0.24 * uneven), dtype=np.float32)


def _fold(inside: NDArray[np.bool_], generator: np.random.Generator) -> Field:
    """A narrow, slightly bent band across the tissue."""
    canvas = np.zeros(inside.shape, dtype=np.uint8)
    candidates = np.argwhere(inside)
    if not len(candidates):
        return canvas.astype(np.float32)
    row, column = candidates[generator.integers(len(candidates))]
    angle, bend = generator.uniform(0, np.pi), generator.normal(0, 0.25)
    steps = np.linspace(-1, 1, 24) * min(inside.shape) * generator.uniform(0.12, 0.25)
    turned = angle + bend * steps / max(1.0, np.abs(steps).max())
    path = np.stack([column + steps * np.cos(turned), row + steps * np.sin(turned)], axis=1)
    cv2.polylines(
        canvas,
        [np.rint(path).astype(np.int32).reshape(-1, 1, 2)],
        False,
        255,
        int(generator.integers(4, 8)),
        cv2.LINE_AA,
    )
    canvas[~inside] = 0
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.6).astype(np.float32) / 255, dtype=np.float32)


def _sampled(field: Field, region: Region) -> Field:
    """A map's values at the pixels of a region."""
    coarse = coarsened(region, TRUTH_PX)
    height, width = field.shape
    rows = np.clip(np.arange(coarse.y, coarse.y + coarse.height), 0, height - 1)
    columns = np.clip(np.arange(coarse.x, coarse.x + coarse.width), 0, width - 1)
    part = field[rows[:, None], columns]
    if part.max() <= 0.01:
        return np.zeros((region.height, region.width), dtype=np.float32)
    return np.asarray(np.clip(enlarged(part, TRUTH_PX, coarse, region), 0, 1))
