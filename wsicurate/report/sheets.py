"""Contact sheets: slides with what was taken from them, and a sample of the patches."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store

_KEPT, _DROPPED, _INK = (0, 130, 60), (220, 40, 40), (40, 40, 40)
_CAPTION_PX = 22


def patch_sheet(
    store: Store,
    path: Path,
    *,
    columns: int = 16,
    rows: int = 8,
    patch_px: int = 96,
    seed: int = 0,
    among: NDArray[np.bool_] | None = None,
) -> int:
    """Write a PNG of patches drawn at random from the whole store.

    Args:
        store: an open store.
        path: the PNG.
        columns, rows: of the sheet.
        patch_px: edge of a patch on the sheet.
        seed: of the draw.
        among: bool, (n,): the patches to draw from; all by default.

    Returns:
        Number of patches on the sheet.
    """
    pool = np.arange(len(store)) if among is None else np.flatnonzero(among)
    count = min(len(pool), columns * rows)
    chosen = np.sort(np.random.default_rng(seed).permutation(pool)[:count])
    sheet = np.full((max(1, -(-count // columns)) * patch_px, columns * patch_px, 3), 255, dtype=np.uint8)
    for place, patch in enumerate(store[chosen]):
        top, left = place // columns * patch_px, place % columns * patch_px
        small = cv2.resize(patch, (patch_px, patch_px), interpolation=cv2.INTER_AREA)
        sheet[top : top + patch_px, left : left + patch_px] = small
    _write(path, sheet)
    return count


def slide_sheet(store: Store, path: Path, *, columns: int = 4, cell_px: int = 360, slides: int = 24) -> int:
    """Write a PNG of the slides' overviews: stored patches framed in green, dropped ones in red.

    Args:
        store: an open store.
        path: the PNG.
        columns: slides in a row.
        cell_px: edge of a slide's cell on the sheet.
        slides: how many at most.

    Returns:
        Number of slides on the sheet.
    """
    shown = list(store.slides.values())[:slides]
    columns = max(1, min(columns, len(shown)))
    height = cell_px + _CAPTION_PX
    sheet = np.full((max(1, -(-len(shown) // columns)) * height, columns * cell_px, 3), 255, dtype=np.uint8)
    for place, slide in enumerate(shown):
        top, left = place // columns * height, place % columns * cell_px
        picture = _framed(slide, cell_px - 8)
        sheet[top + 4 : top + 4 + picture.shape[0], left + 4 : left + 4 + picture.shape[1]] = picture
        caption = f"{slide.record.name.rpartition('/')[2][:26]}  {len(slide):,}"
        cv2.putText(sheet, caption, (left + 4, top + height - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    _write(path, sheet)
    return len(shown)


def _framed(slide: SlidePatches, side: int) -> NDArray[np.uint8]:
    """The slide's overview within ``side`` x ``side`` pixels, its windows framed."""
    overview = slide.overview
    scale = side / max(overview.shape[:2])
    size = (max(1, int(overview.shape[1] * scale)), max(1, int(overview.shape[0] * scale)))
    picture = np.asarray(cv2.resize(overview, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    per_pixel = slide.record.reading["width"] / size[0], slide.record.reading["height"] / size[1]
    pitch = slide.record.reading["pitch"]
    for corners, colour in ((slide.xy, _KEPT), (slide.dropped_xy, _DROPPED)):
        for x, y in corners.tolist():
            first = (int(x / per_pixel[0]), int(y / per_pixel[1]))
            last = (int((x + pitch) / per_pixel[0]) - 1, int((y + pitch) / per_pixel[1]) - 1)
            cv2.rectangle(picture, first, last, colour, 1)
    return picture


def _write(path: Path, sheet: NDArray[np.uint8]) -> None:
    encoded, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise ValueError(f"{path}: the sheet of {sheet.shape[1]}x{sheet.shape[0]} pixels does not encode as PNG")
    path.write_bytes(data.tobytes())
