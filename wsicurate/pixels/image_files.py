"""Image files of any kind -> RGB pixels as they are meant to be seen, or the reason why not."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import SlideNotFoundError, in_words
from wsicurate.files import NotAFileError, open_file
from wsicurate.pixels.jpeg import decode_jpeg

#: Why an image cannot become a patch.
UNREADABLE = "unreadable_image"
OTHER_SIZE = "other_size"

#: Larger files are no patches: one of 4,096 pixels a side has 50 MB of pixels.
MAX_FILE_BYTES = 2**28

#: What Pillow is asked for: some of the others run programs.
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")

_MODES = ("RGB", "RGBA", "L", "P", "1", "CMYK")
_ORIENTATION = 0x0112


class UnusableImageError(Exception):
    """An image that cannot become a patch; ``reason`` is the word on record."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_image_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        SlideNotFoundError: if it is not there.
        UnusableImageError: if it may not be read, is no file, is too large for a patch, or a link that leads nowhere.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnusableImageError(UNREADABLE, f"{path} has {size:,} bytes, too many for a patch")
            return file.read()
    except OSError as error:
        reason = in_words(error)
        if isinstance(error, PermissionError | NotAFileError) or path.is_symlink():
            raise UnusableImageError(UNREADABLE, f"{path} cannot be read: {reason}") from error
        raise SlideNotFoundError(f"{path} cannot be read: {reason}; put it back and run again") from error


def decode_image(data: bytes, path: Path, patch_px: int) -> NDArray[np.uint8]:
    """Decode an image file of any kind that holds one picture of 8-bit grey or colour, as it is meant to be seen.

    Args:
        data: the file.
        path: for messages.
        patch_px: edge that the image must have, pixels; nothing of another is decoded.

    Returns:
        uint8, (patch_px, patch_px, 3), RGB.

    Raises:
        UnusableImageError: if it does not decode as a whole, or holds something else; nothing is made up.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.size != (patch_px, patch_px):
                raise UnusableImageError(
                    OTHER_SIZE, f"{path} has {image.width}x{image.height} pixels, not {patch_px}x{patch_px}"
                )
            if image.mode not in _MODES:
                raise UnusableImageError(
                    UNREADABLE, f"{path} has pixels of mode {image.mode}; convert it to 8-bit RGB to import it"
                )
            if _bits(image, data) > 8:
                raise UnusableImageError(
                    UNREADABLE, f"{path} has {_bits(image, data)} bits a channel; convert it to 8-bit RGB to import it"
                )
            if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
                raise UnusableImageError(
                    UNREADABLE, f"{path} is in four inks and does not say how they are meant; convert it to RGB"
                )
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise UnusableImageError(UNREADABLE, f"{path} holds several images; save each as a file")
            if image.format == "PNG":
                with Image.open(io.BytesIO(data), formats=["PNG"]) as checked:
                    checked.verify()  # its checksums, which decoding passes over
            image.load()
            upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
            if upright.mode == "RGB" and "transparency" not in upright.info:
                return np.asarray(upright)
            if upright.mode == "RGBA" or "transparency" in upright.info:
                alpha = np.asarray(upright.convert("RGBA"))[..., 3]
                if alpha.min() < 255:
                    raise UnusableImageError(UNREADABLE, f"{path} is transparent in part; what is behind is not known")
            return np.asarray(upright.convert("RGB"))
    except UnusableImageError:
        raise
    except Exception as error:  # Pillow raises many kinds on broken files
        words = in_words(error) if data else "it is empty"
        raise UnusableImageError(UNREADABLE, f"{path} cannot be decoded: {words}") from error


def _bits(image: Any, data: bytes) -> int:
    """Bits of a channel in the file: Pillow halves 16 in silence."""
    if image.format == "PNG":
        return data[24]
    return max(image.tag_v2.get(258, (8,))) if image.format == "TIFF" else 8


def is_jpeg_of(data: bytes, pixels: NDArray[np.uint8], path: Path) -> bool:
    """Whether an image file is a JPEG that libjpeg-turbo decodes to the pixels that it is meant to show.

    Args:
        data: the file.
        pixels: uint8, (h, w, 3): what `decode_image` made of it.
        path: for messages.

    Raises:
        UnusableImageError: if it is a JPEG that does not decode without a warning.
    """
    if data[:2] != b"\xff\xd8":
        return False
    try:
        ours = decode_jpeg(data)
    except ValueError as error:
        if "Unsupported color conversion" in str(error):  # four inks
            return False
        raise UnusableImageError(UNREADABLE, f"{path} does not decode: {in_words(error)}") from error
    return np.array_equal(ours, pixels)
