"""JPEG, encoded and decoded by libjpeg-turbo, with its warnings taken as errors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Subsampling = Literal["444", "422", "420"]


def encode_jpeg(image: NDArray[np.uint8], quality: int, subsampling: Subsampling = "444") -> bytes:
    """Compress an RGB image.

    Args:
        image: uint8, (h, w, 3), RGB.
        quality: 1 to 100, libjpeg's scale.
        subsampling: chroma subsampling; ``444`` keeps the full colour resolution.

    Returns:
        A baseline JFIF file. The same pixels give the same bytes: accurate integer DCT, no time stamps.
    """
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling=subsampling, fastdct=False
    )
    return data


def decode_jpeg(data: bytes | memoryview, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decompress to RGB.

    Args:
        data: a JPEG file.
        out: memory for the pixels, contiguous; None means new memory.

    Returns:
        uint8, (h, w, 3), RGB; in the memory of ``out``, whose shape it need not have.

    Raises:
        ValueError: if the data is not a JPEG, is cut short, is larger than ``out``, or makes the decoder warn: a
            warning means that pixels were guessed.
    """
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True, buffer=out
    )
    return pixels


def decode_jpeg_reduced(data: bytes | memoryview, height: int, width: int) -> NDArray[np.uint8]:
    """Decompress to RGB at the smallest of the decoder's own scales that still has ``height`` x ``width`` pixels.

    Returns:
        uint8, (h, w, 3), h at least ``height`` and w at least ``width`` where the JPEG has as many.

    Raises:
        ValueError: if the data is not a JPEG.
    """
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, min_height=height, min_width=width, min_factor=1)
    return pixels
