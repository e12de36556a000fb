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

    Tiled TIFF and SVS are read directly where that surely gives OpenSlide's pixels, which is many times faster.
    OpenSlide reads what else it can; any file of a DICOM series opens the whole series. What it refuses, TIAToolbox is
    asked for where that is installed: OME-TIFF, JP2, the folder of an NGFF. Plain images (PNG, JPEG, flat TIFF, ...)
    open as slides of one level without a stated resolution.

    Args:
        path: the file.
        plain_images: whether a plain image is a slide.

    Returns:
        An open `Slide`; use it in a ``with`` block or call its ``close``.

    Raises:
        SlideNotFoundError: if there is no such file.
        UnreadableSlideError: if no reader opens it.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
    """
    path = Path(path)
    if not path.exists():
        raise SlideNotFoundError(f"{path} does not exist")
    from wsicurate.slides.tiatoolbox import TiatoolboxSlide, is_for_tiatoolbox, tiatoolbox_is_installed

    if path.is_dir():
        if (path / ".zattrs").is_file():  # NGFF
            return TiatoolboxSlide(path)
        raise UnreadableSlideError(f"{path} is a folder; open one of its files, or tile the folder")
    from wsicurate.slides.image import ImageSlide
    from wsicurate.slides.openslide import OpenSlideSlide

    if path.suffix.lower() in IMAGE_SUFFIXES and plain_images:
        return ImageSlide(path)
    if _begins_as_tiff(path):
        direct = _open_directly(path)
        if direct is not None:
            return direct
    try:
        return OpenSlideSlide(path)
    except UnreadableSlideError:
        is_flat = path.suffix.lower() in FLAT_TIFF_SUFFIXES and not _has_tiles(path)
        if is_for_tiatoolbox(path) and tiatoolbox_is_installed():
            try:
                return TiatoolboxSlide(path)
            except UnreadableSlideError:
                if not (plain_images and is_flat):
                    raise
        if plain_images and is_flat:
            return ImageSlide(path)
        raise


def _open_directly(path: Path) -> Slide | None:
    """The direct reader, or None where it is not sure to see what OpenSlide sees in the file."""
    from wsicurate.slides.openslide import OpenSlideSlide
    from wsicurate.slides.tiff import NotForUsError, TiffSlide

    try:
        slide = TiffSlide(path)
    except NotForUsError:
        return None
    try:
        reference = OpenSlideSlide(path)
    except UnreadableSlideError:
        if slide.is_beyond_openslide:
            return slide
        slide.close()
        raise
    with reference:
        agrees = slide.levels == reference.levels and all(
            getattr(slide.metadata, fact) == getattr(reference.metadata, fact)
            for fact in ("mpp", "objective_power", "vendor")
        )
    if agrees:
        return slide
    slide.close()
    return None


def _has_tiles(path: Path) -> bool:
    """Whether a TIFF's first image lies in tiles: a slide, if a damaged one, and no plain image."""
    from wsicurate.slides.byte_source import FileSource
    from wsicurate.slides.tiff_directory import TILE_OFFSETS, TILE_WIDTH, TiffError, read_directories

    try:
        first = read_directories(FileSource(path))[0]
    except TiffError:
        return False
    return TILE_WIDTH in first or TILE_OFFSETS in first


def _begins_as_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError as error:
        raise UnreadableSlideError(f"{path} cannot be read: {error.strerror or error}") from error
