"""Which reader takes which file."""

from __future__ import annotations

from pathlib import Path

from wsicurate.errors import SlideNotFoundError, UnreadableSlideError
from wsicurate.slides.base import Slide
from wsicurate.slides.discovery import IMAGE_SUFFIXES

#: TIFFs that OpenSlide refuses may be flat images.
FLAT_TIFF_SUFFIXES = frozenset({".tif", ".tiff"})


def open_slide(path: str | Path, *, plain_images: bool = True) -> Slide:
    """Open a slide with the reader that fits.

    OpenSlide reads what it can; any file of a DICOM series opens the whole series. Plain images (PNG, JPEG, flat
    TIFF, ...) open as slides of one level without a stated resolution.

    Args:
        path: the file.
        plain_images: whether a plain image is a slide.

    Returns:
        An open `Slide`; use it in a ``with`` block or call its ``close``.

    Raises:
        SlideNotFoundError: if there is no such file.
        UnreadableSlideError: if no reader opens it.
    """
    path = Path(path)
    if not path.exists():
        raise SlideNotFoundError(f"{path} does not exist")
    if path.is_dir():
        raise UnreadableSlideError(f"{path} is a folder; open one of its files, or tile the folder")
    from wsicurate.slides.image import ImageSlide
    from wsicurate.slides.openslide import OpenSlideSlide

    if path.suffix.lower() in IMAGE_SUFFIXES and plain_images:
        return ImageSlide(path)
    try:
        return OpenSlideSlide(path)
    except UnreadableSlideError:
        if plain_images and path.suffix.lower() in FLAT_TIFF_SUFFIXES:
            return ImageSlide(path)
        raise
