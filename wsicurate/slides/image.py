"""Plain images with a stated resolution: a PNG, JPEG or TIFF that the slide table names."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsicurate.errors import NotBrightfieldError, UnreadableSlideError, in_words
from wsicurate.slides.base import Level, SlideBase, SlideMetadata
from wsicurate.slides.openslide import over_white
from wsicurate.slides.stated import mpp_of_tags

#: Larger images are refused: they are decoded whole, by each worker, and Pillow needs seven bytes a pixel.
MAX_PIXELS = 180_000_000


class ImageSlide(SlideBase):
    """A plain image as a slide of one level. It is decoded whole on the first read, then kept.

    Densities of PNG and JPEG (72 or 96 dpi) mean nothing, so their metadata states no resolution; a TIFF's tags may. An
    orientation that the file states is followed: the whole image is turned. What is transparent lies on white.
    """

    reader = "image"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._pixels: NDArray[np.uint8] | None = None
        try:
            with _opened(path) as image:
                width, height = image.size
                vendor, mode = (image.format or "image").lower(), image.mode
                properties = _tiff_properties(image)
                # A TIFF is turned by Pillow; a PNG would be decoded to look for what stands behind its pixels.
                knows = vendor != "tiff" and (vendor != "png" or "exif" in image.info)
                self._orientation = int(image.getexif().get(_ORIENTATION, 1)) if knows else 1
        except Exception as error:  # Pillow raises many kinds on broken files
            raise UnreadableSlideError(f"{path} cannot be opened as an image: {in_words(error)}") from error
        if mode.startswith(("I", "F")):
            raise NotBrightfieldError(
                f"not brightfield: the pixels of {path} have one channel of more than 8 bits, as in fluorescence; only "
                "stained sections in transmitted light, three channels of 8 bits, are tiled"
            )
        if width * height > MAX_PIXELS:
            raise UnreadableSlideError(
                f"{path} has {width}x{height} pixels; plain images are decoded whole, so at most {MAX_PIXELS} "
                "pixels are read: convert it to a tiled pyramid (vips im_vips2tiff, bfconvert)"
            )
        if self._orientation in _TRANSPOSED:
            width, height = height, width
        self.levels = (Level(width, height, 1.0),)
        self.metadata = SlideMetadata(mpp_of_tags(properties), None, vendor, properties)

    def decode_window(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool
    ) -> NDArray[np.uint8]:
        """See `SlideBase.decode_window`."""
        if self._pixels is None:
            self._pixels = self._decode()
        return np.ascontiguousarray(self._pixels[y : y + height, x : x + width])

    def _decode(self) -> NDArray[np.uint8]:
        try:
            with _opened(self._path) as image:
                turn = _TURNS.get(self._orientation)
                turned = image if turn is None else image.transpose(turn)
                if turned.has_transparency_data:
                    return over_white(np.asarray(turned.convert("RGBA")))
                return np.asarray(turned.convert("RGB"))
        except Exception as error:
            raise UnreadableSlideError(f"{self.name} cannot be decoded: {in_words(error)}") from error

    def close(self) -> None:
        """See `Slide.close`."""
        self._pixels = None


def _tiff_properties(image: Image.Image) -> dict[str, str]:
    """Description and resolution tags of a TIFF, named as OpenSlide names them; of other images, nothing."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    properties = {}
    for name, tag in (("ImageDescription", 270), ("XResolution", 282), ("YResolution", 283)):
        if tag in tags:
            properties[f"tiff.{name}"] = str(tags[tag]) if tag == 270 else f"{float(tags[tag]):.17g}"
    if tags:
        properties["tiff.ResolutionUnit"] = {1: "none", 2: "inch", 3: "centimeter"}.get(tags.get(296, 2), "unknown")
    return properties


#: EXIF's orientation tag, what turns an image upright, and the values that exchange width and height.
_ORIENTATION = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSED = (5, 6, 7, 8)

_opening = threading.Lock()


def _opened(path: Path) -> Image.Image:
    """Open ``path`` with Pillow's bomb check moved to our own limit, which is above its default.

    The limit is Pillow's global; it is lifted for the time of opening alone, by one thread at a time.
    """
    with _opening:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
