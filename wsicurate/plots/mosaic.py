"""Patches side by side."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.pixels.resample import enlarge, resample_area
from wsicurate.plots.axes import OTHERS, add_legend, as_texts, axes_or_new, colours_of, require_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: White between patches, and the width of a frame, as shares of a patch's edge.
_GAP, _FRAME = 16, 14


def mosaic(
    patches: NDArray[np.uint8],
    *,
    columns: int = 8,
    by: object = None,
    patch_px: int = 128,
    ax: Axes | None = None,
) -> Axes:
    """Draw patches row by row, each with a frame in the colour of its group where groups are given.

    Args:
        patches: uint8, (n, h, w, 3), RGB, such as ``store[:40]``.
        columns: patches in a row.
        by: a text for each patch: a list, an array or a column of a manifest, such as its decisions.
        patch_px: edge of each in the picture, pixels.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if an argument is wrong, or matplotlib is missing.
    """
    pixels = require_patches(patches)
    if columns < 1 or patch_px < 8:
        raise ConfigError(f"columns is {columns} and patch_px is {patch_px}; give at least 1 column and 8 px")
    columns = min(columns, len(pixels))
    texts = None if by is None else as_texts(by, len(pixels))
    colours = {} if texts is None else colours_of(texts)
    gap, frame = max(1, patch_px // _GAP), max(2, patch_px // _FRAME)
    pitch = patch_px + gap + (2 * frame if colours else 0)
    rows = -(-len(pixels) // columns)
    sheet = np.full((rows * pitch - gap, columns * pitch - gap, 3), 255, dtype=np.uint8)
    for place, patch in enumerate(pixels):
        cell = sheet[place // columns * pitch :, place % columns * pitch :][: pitch - gap, : pitch - gap]
        if texts is not None:
            cell[:] = _rgb(colours.get(texts[place], colours.get(OTHERS, "#ffffff")))
            cell = cell[frame:-frame, frame:-frame]
        cell[:] = _scaled(patch, patch_px)
    ax = axes_or_new(ax, min(12.0, 1.1 * columns + (2.2 if colours else 0)), 1.1 * rows)
    ax.imshow(sheet, interpolation="antialiased")
    ax.set_axis_off()
    if texts is not None:
        add_legend(ax, colours, Counter(text if text in colours else OTHERS for text in texts))
    return ax


def _scaled(patch: NDArray[np.uint8], edge: int) -> NDArray[np.uint8]:
    return resample_area(patch, edge, edge) if min(patch.shape[:2]) >= edge else enlarge(patch, edge, edge)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
