"""Sheets of pairs of patches, each with a caption: what was confirmed, what was refused, and by what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_INK, _GAP_PX, _CAPTION_PX = (40, 40, 40), 8, 20


@dataclass(frozen=True)
class PatchPair:
    """Two patches, uint8 (s, s, 3) RGB, and what is to be said of them in a few words."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    caption: str


def pair_sheet(pairs: Sequence[PatchPair], path: Path, *, columns: int = 5, patch_px: int = 128) -> int:
    """Write a PNG of pairs, each side by side above its caption.

    Args:
        pairs: what to show, row by row.
        path: the PNG.
        columns: pairs in a row.
        patch_px: edge of a patch on the sheet.

    Returns:
        Number of pairs on the sheet.

    Raises:
        ValueError: if there is no pair.
    """
    if not pairs:
        raise ValueError(f"{path}: there is no pair to show")
    columns = max(1, min(columns, len(pairs)))
    width, height = 2 * patch_px + _GAP_PX, patch_px + _CAPTION_PX + _GAP_PX
    sheet = np.full((-(-len(pairs) // columns) * height, columns * width, 3), 255, dtype=np.uint8)
    for place, pair in enumerate(pairs):
        top, left = place // columns * height, place % columns * width
        for side, patch in enumerate((pair.first, pair.second)):
            small = cv2.resize(patch, (patch_px, patch_px), interpolation=cv2.INTER_AREA)
            sheet[top : top + patch_px, left + side * patch_px : left + (side + 1) * patch_px] = small
        where = (left + 2, top + patch_px + _CAPTION_PX - 6)
        cv2.putText(sheet, pair.caption, where, cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
    if not encoded:
        raise ValueError(f"{path}: a sheet of {sheet.shape[1]}x{sheet.shape[0]} pixels does not encode as PNG")
    path.write_bytes(data.tobytes())
    return len(pairs)
