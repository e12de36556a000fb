"""Patches as image files: the store's own JPEG bytes where it has them, else encoded here."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from wsicurate.cores import usable_cores
from wsicurate.pixels.jpeg import encode_jpeg
from wsicurate.store.codecs import verify_checksum
from wsicurate.store.slide_patches import SlidePatches

#: Patches that are decoded and encoded together.
_BLOCK = 64


def encoded_images(
    slide: SlidePatches, rows: NDArray[np.int32], file_format: str, quality: int | None
) -> Iterator[bytes]:
    """Image files of patches of a slide, in few long reads.

    Args:
        slide: whose.
        rows: (k,), ascending.
        file_format: ``jpeg`` or ``png``.
        quality: of JPEGs; None passes the store's own through, their checksums compared.

    Raises:
        CorruptStoreError: if a patch is damaged or gone.
        SlideError: if the pixels are not in the store, and the slide cannot be read.
    """
    if file_format == "jpeg" and quality is None:
        assert slide.images is not None
        for data in slide.images.encoded_items(rows):
            yield verify_checksum(data)
        return
    with ThreadPoolExecutor(usable_cores()) as threads:
        for begin in range(0, len(rows), _BLOCK):
            patches = slide.read(rows[begin : begin + _BLOCK].astype(np.intp))
            yield from threads.map(lambda pixels: encode(pixels, quality), patches)


def encode(pixels: NDArray[np.uint8], quality: int | None) -> bytes:
    """An image file of RGB pixels, (h, w, 3): a JPEG of that quality, or a PNG."""
    if quality is not None:
        return encode_jpeg(pixels, quality)
    import cv2

    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data)
