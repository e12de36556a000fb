"""Patch tokens as colours, under the patches: the figures of DINOv2 (Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.plots.axes import panels, require_patches, show_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from wsicurate.embedding.networks.vision_transformers import Encoder


def token_colours(encoder: Encoder, patches: NDArray[np.uint8], *, foreground: float | None = 0.5) -> Figure:
    """Draw patches, and below them the first three principal components of their tokens as red, green and blue.

    The components are those of all patches together: like colours are alike to the encoder, in other patches as well.

    Args:
        encoder: a vision transformer: from `wsicurate.load_encoder`, or a network of timm.
        patches: uint8, (n, h, w, 3), RGB; a handful.
        foreground: tokens whose first component over all tokens, from 0 to 1, is below this are background, and
            black; the colours are components of the others. None colours all, as for patches that are all tissue.

    Raises:
        ConfigError: if the patches are something else, or matplotlib is missing.
        EncoderError: if the encoder is something else, or nearly all tokens are background.
    """
    from wsicurate.embedding.networks.token_colours import pca_rgb

    pixels = require_patches(patches)
    colours = pca_rgb(encoder, pixels, foreground=foreground)
    figure, axes = panels(2, len(pixels), 1.8, 1.8)
    for column, (patch, coloured) in enumerate(zip(pixels, colours, strict=True)):
        show_pixels(axes[0, column], patch)
        axes[1, column].imshow(coloured, interpolation="nearest")
        axes[1, column].set_axis_off()
    return figure
