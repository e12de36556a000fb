"""Which reader takes which file: each in turn is asked, and a slide is refused only when all have declined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from wsicurate.errors import SlideNotFoundError, UnreadableRegionError, UnreadableSlideError, in_words
from wsicurate.slides.base import DeclinedError, Slide
from wsicurate.slides.discovery import IMAGE_SUFFIXES
from wsicurate.slides.tiff.directory import IMAGE_DESCRIPTION, TILE_OFFSETS, TILE_WIDTH, Directory, TiffError
from wsicurate.slides.tiles.source import FileSource, waiting_neighbours

#: TIFFs that OpenSlide refuses may be flat images.
FLAT_TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(path: str | Path, *, plain_images: bool = True) -> Slide:
    """Open a slide with the reader that fits.

    Tiled TIFF and SVS, and DICOM, are read directly where that surely gives the right pixels, which is also many times
    faster; any file of a DICOM series opens the whole series. What the direct readers object to, for whatever reason,
    OpenSlide is asked for, unless it is known to read such a file wrongly; what that refuses, TIAToolbox where it is
    installed: OME-TIFF, JP2, the folder of an NGFF. Plain images (PNG, JPEG, flat TIFF, ...) open as slides of one
    level without a stated resolution.

    Args:
        path: the file.
        plain_images: whether a plain image is a slide.

    Returns:
        An open `Slide`; use it in a ``with`` block or call its ``close``.

    Raises:
        SlideNotFoundError: if there is no such file.
        UnreadableSlideError: if every reader declines it; the message has the reason of each, and what would help.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
    """
    path = Path(path)
    try:
        path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise SlideNotFoundError(f"{path} does not exist") from error
        raise UnreadableSlideError(f"{path} cannot be read: {in_words(error)}") from error
    if path.is_dir():
        if (path / ".zattrs").is_file():  # NGFF
            return _tiatoolbox(path)
        raise UnreadableSlideError(f"{path} is a folder; open one of its files, or tile the folder")
    beginning = _beginning(path)
    if path.suffix.lower() in IMAGE_SUFFIXES and plain_images:
        return _image(path)
    declined: dict[str, str] = {}
    suspicions: list[str] = []
    for name, reader in _readers(path, beginning, plain_images, declined):
        try:
            slide = reader()
        except DeclinedError as error:
            declined[name] = str(error)
            suspicions += [f"the file contradicts itself: {error}"] * error.is_contradiction
            continue
        if slide is None:
            declined[name] = "does not find what OpenSlide finds in it"
            continue
        slide.metadata = replace(slide.metadata, warnings=(*suspicions, *slide.metadata.warnings))
        return slide
    reasons = "; ".join(f"{name}: {reason.removeprefix(f'{path} ')}" for name, reason in declined.items())
    raise UnreadableSlideError(f"{path} cannot be opened as a slide: {reasons}{_advice(path, beginning)}")


def _readers(
    path: Path, beginning: bytes, plain_images: bool, declined: dict[str, str]
) -> Iterator[tuple[str, Callable[[], Slide | None]]]:
    """The readers that may take a file, in order; those that are not to be asked are put among ``declined``."""
    from wsicurate.slides.tiatoolbox import is_for_tiatoolbox, tiatoolbox_is_installed
    from wsicurate.slides.tiff.reader import (
        check_upright,
        directories_of,
        image_directories,
        openslide_doubts,
        tiatoolbox_doubts,
        vendor_of,
    )

    vendor = vendor_of(path)
    toolbox_doubt = ""
    is_tiff = beginning in _TIFF_BEGINNINGS and vendor != "dicom"
    is_flat, is_upright, is_ome = path.suffix.lower() in FLAT_TIFF_SUFFIXES, True, False
    if vendor == "dicom":
        yield "DICOM reader", lambda: _dicom(path)
    elif is_tiff and vendor == "hamamatsu":
        source = FileSource(path)
        doubt = openslide_doubts(source, directories_of(source), vendor)
        source.close()
        if doubt:
            declined["OpenSlide"] = f"is not asked, because {doubt}"
        else:
            yield "OpenSlide", lambda: _openslide(path, vendor)
    elif is_tiff:
        yield "direct TIFF reader", lambda: _open_directly(path)
        source = FileSource(path)
        directories = directories_of(source)
        images = image_directories(directories, vendor)
        is_flat &= not any(_has_tiles(directory) for directory in images[:1])
        is_ome = any(_is_ome(directory) for directory in images[:1])
        try:
            check_upright(images, str(path))
        except UnreadableSlideError:
            if not (is_flat and plain_images):
                raise
            is_upright = False  # the image reader turns it, as a whole
        doubt = openslide_doubts(source, directories, vendor)
        toolbox_doubt = tiatoolbox_doubts(source, directories, vendor)
        source.close()
        if doubt:
            declined["OpenSlide"] = f"is not asked, because {doubt}"
        else:
            yield "OpenSlide", lambda: _openslide(path, vendor)
    else:
        yield "OpenSlide", lambda: _openslide(path, vendor)
    if plain_images and is_flat and not is_ome:  # the same pixels whether TIAToolbox is there or not
        yield "image reader", lambda: _image_or_decline(path)
    if is_upright and (vendor == "dicom" or is_for_tiatoolbox(path)):
        if toolbox_doubt:
            declined["TIAToolbox"] = f"is not asked, because {toolbox_doubt}"
        elif tiatoolbox_is_installed():
            yield "TIAToolbox", lambda: _tiatoolbox(path)
        else:
            declined["TIAToolbox"] = "is not installed (pip install wsicurate[tiatoolbox])"
    if plain_images and is_flat and is_ome:
        yield "image reader", lambda: _image_or_decline(path)


def _advice(path: Path, beginning: bytes) -> str:
    """What would help with a file that no reader opens."""
    if beginning in _TIFF_BEGINNINGS:
        return (
            ". Write it as a tiled pyramid of 8-bit RGB (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"
        )
    if path.suffix.lower() == ".dcm":
        return ". Give the folder of the whole series, or convert it (wsidicomizer, bfconvert)"
    return ""


def _open_directly(path: Path) -> Slide | None:
    """The direct TIFF reader, or None where OpenSlide sees other levels or another resolution in the file.

    Raises:
        DeclinedError: if the direct reader is not sure to read the right pixels.
    """
    from wsicurate.slides.openslide import OpenSlideSlide
    from wsicurate.slides.tiff.reader import TiffSlide

    slide = TiffSlide(path)
    try:
        reference = OpenSlideSlide(path)
    except UnreadableSlideError as error:
        if slide.is_beyond_openslide:
            return slide
        slide.close()
        raise DeclinedError(f"OpenSlide does not open it ({error})") from error
    with reference:
        agrees = slide.levels == reference.levels and all(
            getattr(slide.metadata, fact) == getattr(reference.metadata, fact)
            for fact in ("mpp", "objective_power", "vendor")
        )
    if agrees:
        return slide
    slide.close()
    return None


def _dicom(path: Path) -> Slide:
    from wsicurate.slides.dicom.reader import DicomSlide, openslide_differs

    slide = DicomSlide(path)
    difference = openslide_differs(slide, path)
    if difference:
        slide.close()
        raise UnreadableSlideError(f"{path} cannot be opened as a slide: {difference}")
    return slide


def _openslide(path: Path, vendor: str) -> Slide:
    from wsicurate.slides.openslide import OpenSlideSlide

    # These formats lie in several files, which OpenSlide opens by their names.
    companions = {"mirax": path.with_suffix(""), "hamamatsu": path.parent}.get(vendor)
    waiting = [] if companions is None else waiting_neighbours(companions)
    if waiting and path.suffix.lower() != ".ndpi":
        raise DeclinedError(f"{companions} holds {waiting[0]}, which is no regular file: opening it may never end")
    try:
        slide = OpenSlideSlide(path)
    except UnreadableSlideError as error:
        raise DeclinedError(str(error).removeprefix(f"{path} cannot be opened as a slide: ")) from error
    if vendor in ("aperio", "generic-tiff"):
        _check_readable(slide)
    return slide


def _check_readable(slide: Slide) -> None:
    """Make sure that OpenSlide decodes something of a TIFF: it opens files in which it can read nothing.

    Raises:
        DeclinedError: if no corner of the finest level can be decoded.
    """
    full = slide.levels[0]
    for x, y in ((full.width // 2, full.height // 2), (0, 0), (full.width - 1, full.height - 1)):
        try:
            slide.read(0, x, y, 1, 1, allow_unscanned=True)
            return
        except UnreadableRegionError as error:
            reason = error
    slide.close()
    raise DeclinedError(f"it opens it, and cannot decode it: {str(reason).partition('cannot be decoded: ')[2]}")


def _tiatoolbox(path: Path) -> Slide:
    from wsicurate.slides.tiatoolbox import TiatoolboxSlide

    try:
        return TiatoolboxSlide(path)
    except UnreadableSlideError as error:
        if path.is_dir():
            raise
        raise DeclinedError(str(error).removeprefix(f"{path} cannot be opened by TIAToolbox: ")) from error


def _image_or_decline(path: Path) -> Slide:
    try:
        return _image(path)
    except UnreadableSlideError as error:
        raise DeclinedError(str(error).removeprefix(f"{path} ")) from error


def _image(path: Path) -> Slide:
    from wsicurate.slides.image import ImageSlide

    return ImageSlide(path)


def _has_tiles(directory: Directory) -> bool:
    """Whether a TIFF's image lies in tiles: a slide, if a damaged one, and no plain image."""
    return TILE_WIDTH in directory or TILE_OFFSETS in directory


def _is_ome(directory: Directory) -> bool:
    """Whether a TIFF describes itself in OME-XML, which may say more of it than a plain image has."""
    try:
        return "<OME" in (directory.text(IMAGE_DESCRIPTION) or "")
    except TiffError:
        return False


def _beginning(path: Path) -> bytes:
    """The first four bytes of a file.

    Raises:
        UnreadableSlideError: if it cannot be read, or is not a regular file.
    """
    source = FileSource(path)
    try:
        return source.read(0, min(4, source.size))
    except (EOFError, OSError) as error:
        raise UnreadableSlideError(f"{path} cannot be read: {in_words(error)}") from error
    finally:
        source.close()
