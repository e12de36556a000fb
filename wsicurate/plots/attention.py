"""Where the class token of a vision transformer looks: the pictures of Chen and Krishnan 2022 (arXiv 2203.00585).

Colours go from 0, dark, to the number in each title, bright. The unit is the attention that each token of a patch had
if all had the same: an untrained network stays near 1 everywhere, and where a head looks it is several times that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.plots.axes import axes_or_new, panels, require_patches, show_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wsicurate.embedding.networks.vision_transformers import Encoder

#: Attention is drawn from dark to bright in a colour map that any colour vision reads.
_COLOUR_MAP = "inferno"

#: Its brightest colour is this quantile of a map, so that one token does not darken all others.
_BRIGHTEST = 0.995

#: Grey of red, green and blue (ITU-R BT.601).
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def attention_map(
    encoder: Encoder,
    pixels: NDArray[np.uint8],
    *,
    head: int | None = None,
    layer: int = -1,
    tile_px: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw attention of the class token over a patch or a region.

    Args:
        encoder: a vision transformer with a class token: from `wsicurate.load_encoder`, or a network of timm.
        pixels: uint8, (h, w, 3), RGB.
        head: which; the mean of all by default.
        layer: which block; the last by default.
        tile_px: edge of the tiles that a region is cut into; by default the pixels are one patch.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if there is no such head, the tiles do not fill the region, or matplotlib is missing.
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    maps = _maps(encoder, require_patches(pixels, 3), layer, tile_px, overlapping=False)
    if head is not None and not 0 <= head < len(maps):
        raise ConfigError(f"head is {head}; the block has heads 0 to {len(maps) - 1}")
    ax = axes_or_new(ax, 4.0, 4.2)
    if head is None:
        _show(ax, pixels, maps.mean(axis=0), f"mean of {len(maps)} heads")
    else:
        _show(ax, pixels, maps[head], f"head {head}")
    return ax


def attention_heads(encoder: Encoder, patch: NDArray[np.uint8], *, layer: int = -1, columns: int = 4) -> Figure:
    """Draw a patch, and over it the attention of the class token, head by head.

    Args:
        encoder, layer: as for `attention_map`.
        patch: uint8, (h, w, 3), RGB.
        columns: panels in a row.

    Raises:
        ConfigError: if an argument is wrong, or matplotlib is missing.
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    pixels = require_patches(patch, 3)
    return _panels(pixels, _maps(encoder, pixels, layer, None, overlapping=False), "patch", columns, 2.2)


def attention_region(
    encoder: Encoder,
    region: NDArray[np.uint8],
    *,
    tile_px: int = 256,
    layer: int = -1,
    overlapping: bool = False,
    columns: int = 4,
) -> Figure:
    """Draw a region of many patches, and over it the attention of the class tokens, head by head.

    The region is cut into tiles that the encoder sees one by one, as in Chen and Krishnan's figures: attention is
    shared out within a tile, and a tile of background has as much of it as one of tumour.

    Args:
        encoder, layer: as for `attention_map`.
        region: uint8, (h, w, 3), RGB: of a slide, or `stitched_region` of a store; sides are multiples of ``tile_px``.
        tile_px: edge of the tiles, pixels.
        overlapping: average with tiles shifted by half a tile, which softens the borders; four times the work.
        columns: panels in a row.

    Raises:
        ConfigError: if the tiles do not fill the region, an argument is wrong, or matplotlib is missing.
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    pixels = require_patches(region, 3)
    return _panels(pixels, _maps(encoder, pixels, layer, tile_px, overlapping), "region", columns, 3.2)


def _maps(
    encoder: Encoder, pixels: NDArray[np.uint8], layer: int, tile_px: int | None, overlapping: bool
) -> NDArray[np.float32]:
    """Attention by head, (heads, rows, columns), in units of what each token had if all had the same."""
    from wsicurate.embedding.networks.attention import attention_maps, region_attention

    if tile_px is None:
        maps, tiles = attention_maps(encoder, pixels, layer=layer), 1
    else:
        maps = region_attention(encoder, pixels, tile_px=tile_px, layer=layer, overlapping=overlapping)
        tiles = (pixels.shape[0] // tile_px) * (pixels.shape[1] // tile_px)
    return np.asarray(maps * (maps[0].size // tiles), dtype=np.float32)


def _panels(pixels: NDArray[np.uint8], maps: NDArray[np.float32], name: str, columns: int, inches: float) -> Figure:
    if columns < 1:
        raise ConfigError(f"columns is {columns}; give at least 1")
    columns = min(columns, len(maps) + 1)
    figure, axes = panels(-(-(len(maps) + 1) // columns), columns, inches, inches * pixels.shape[0] / pixels.shape[1])
    show_pixels(axes.flat[0], pixels)
    axes.flat[0].set_title(name, fontsize="small")
    for ax, (head, found) in zip(axes.flat[1:], enumerate(maps), strict=False):
        _show(ax, pixels, found, f"head {head}")
    for ax in axes.flat[len(maps) + 1 :]:
        ax.set_axis_off()
    return figure


def _show(ax: Axes, pixels: NDArray[np.uint8], found: NDArray[np.float32], title: str) -> None:
    """The pixels in grey, and a map over them, from 0 to nearly its largest, which the title says."""
    ax.imshow(pixels @ _LUMINANCE, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    height, width = pixels.shape[:2]
    largest = max(float(np.quantile(found, _BRIGHTEST)), 1e-12)
    ax.imshow(
        found,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        cmap=_COLOUR_MAP,
        vmin=0,
        vmax=largest,
        alpha=0.6,
        interpolation="bilinear",
    )
    ax.set_title(f"{title}, 0 to {largest:.2g}", fontsize="small")
