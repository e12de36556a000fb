"""Where the class token of a vision transformer looks, in a patch and in a region of many patches.

The pictures of Caron et al. 2021 (arXiv 2104.14294) and of Chen and Krishnan 2022 (arXiv 2203.00585).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.networks.vision_transformers import (
    Encoder,
    as_encoder,
    attention_of_block,
    enlarged,
    grid_of,
    has_class_token,
)
from wsicurate.errors import ConfigError, EncoderError


def attention_maps(
    encoder: Encoder, patch: NDArray[np.uint8], *, layer: int = -1, size: int | None = None
) -> NDArray[np.float32]:
    """Where the class token looks: its attention to each patch token, for each head.

    Args:
        encoder: a vision transformer with a class token: from `load_encoder`, or a network of timm.
        patch: uint8, (h, w, 3), RGB; resized to what the encoder takes.
        layer: which block; the last by default.
        size: edge of the maps in pixels, interpolated bilinearly; None for one value per token.

    Returns:
        float32, (heads, rows, columns). Each map sums to the attention that goes to patch tokens, at most 1; what
        remains goes to the class token and the registers. Interpolated maps do not keep their sums.

    Raises:
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    found = as_encoder(encoder)
    rows, columns = grid_of(found)
    if not has_class_token(found):
        raise EncoderError(f"{found.preset.name} has no class token whose attention could be shown")
    weights = attention_of_block(found, patch, layer)
    maps = weights[:, 0, weights.shape[-1] - rows * columns :].reshape(-1, rows, columns)
    return maps if size is None else enlarged(maps, size)


def region_attention(
    encoder: Encoder, region: NDArray[np.uint8], *, tile_px: int = 256, layer: int = -1, overlapping: bool = False
) -> NDArray[np.float32]:
    """`attention_maps` of every tile of a region, side by side.

    Attention is shared out within a tile: values are compared within it, and between tiles with care.

    Args:
        encoder: as for `attention_maps`.
        region: uint8, (h, w, 3), RGB; both sides are multiples of ``tile_px``.
        tile_px: edge of the tiles, pixels of the region: what the encoder sees at once.
        layer: which block; the last by default.
        overlapping: average with the tiles shifted by half a tile right, down and both, which softens the borders
            of tiles, as Chen and Krishnan's figures do; four times the work.

    Returns:
        float32, (heads, h / tile_px * rows, w / tile_px * columns): one value per token.

    Raises:
        ConfigError: if the tiles do not fill the region.
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    found = as_encoder(encoder)
    height, width = region.shape[:2]
    if tile_px < 1 or not height or not width or height % tile_px or width % tile_px:
        raise ConfigError(
            f"a region of {width}x{height} px is not filled by tiles of tile_px={tile_px}; cut it to a multiple of that"
        )
    rows, columns = grid_of(found)
    half_rows, half_columns = rows // 2, columns // 2
    shifts = [(0, 0)]
    if overlapping:
        shifts += [(half_rows, 0), (0, half_columns), (half_rows, half_columns)]
    total: NDArray[np.float64] | None = None
    count = np.zeros((height // tile_px * rows, width // tile_px * columns))
    for down, right in shifts:
        for top in range(down, count.shape[0] - rows + 1, rows):
            for left in range(right, count.shape[1] - columns + 1, columns):
                y, x = round(top * tile_px / rows), round(left * tile_px / columns)
                maps = attention_maps(found, region[y : y + tile_px, x : x + tile_px], layer=layer)
                total = np.zeros((len(maps), *count.shape)) if total is None else total
                total[:, top : top + rows, left : left + columns] += maps
                count[top : top + rows, left : left + columns] += 1
    assert total is not None  # a region has at least one tile
    return np.asarray(total / count, dtype=np.float32)
