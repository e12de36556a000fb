"""A slide's overview with the outline of its tissue, and its patches in the colours of what became of them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import COLOURS
from wsicurate.report.pictures import Pixels
from wsicurate.store.slide_patches import SlidePatches


def slide_map(slide: SlidePatches, decisions: NDArray[np.object_] | None, edge: int = 420) -> Pixels:
    """A picture of a slide, its longer side ``edge`` pixels.

    Args:
        slide: whose.
        decisions: of each patch, (n,), texts; None where nothing was decided.
        edge: of the picture.
    """
    overview = slide.overview
    width, height = slide.record.reading["width"], slide.record.reading["height"]
    scale = edge / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(
        overview, size, interpolation=cv2.INTER_AREA if overview.shape[1] > size[0] else cv2.INTER_CUBIC
    )
    veil = picture.copy()
    pitch = float(slide.record.reading["pitch"])
    names = np.full(len(slide), "stored", dtype=object) if decisions is None else decisions
    for name in [name for name in COLOURS if name in set(names.tolist())]:
        for x, y in slide.xy[names == name].tolist():
            first = round(x * scale), round(y * scale)
            last = round((x + pitch) * scale) - 1, round((y + pitch) * scale) - 1
            cv2.rectangle(veil, first, (max(last[0], first[0]), max(last[1], first[1])), COLOURS[name], -1)
    picture = cv2.addWeighted(veil, 0.5, picture, 0.5, 0)
    tissue = cv2.resize(slide.tissue.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(tissue, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outlines, -1, (30, 30, 30), 1, cv2.LINE_AA)
    return np.asarray(picture, dtype=np.uint8)
