"""Our readers, each as a function of a path: it opens the slide, or says why another reader should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wsicurate.errors import UnreadableRegionError, UnreadableSlideError
from wsicurate.slides.base import DeclinedError, Slide
from wsicurate.slides.tiles.source import waiting_neighbours


def open_tiff(path: Path) -> Slide:
    """The direct TIFF reader.

    Raises:
        DeclinedError: if it is not sure to read the right pixels.
    """
    from wsicurate.slides.tiff.reader import TiffSlide

    return TiffSlide(path)


def open_tiff_as_openslide_does(path: Path) -> Slide:
    """The direct TIFF reader, where OpenSlide sees the same levels and the same resolution.

    Raises:
        DeclinedError: if it does not, or the direct reader is not sure to read the right pixels.
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
    raise DeclinedError("does not find what OpenSlide finds in it")


def open_dicom(path: Path) -> Slide:
    """The DICOM reader.

    Raises:
        UnreadableSlideError: if OpenSlide finds other levels.
    """
    from wsicurate.slides.dicom.reader import DicomSlide, openslide_differs

    slide = DicomSlide(path)
    difference = openslide_differs(slide, path)
    if difference:
        slide.close()
        raise UnreadableSlideError(f"{path} cannot be opened as a slide: {difference}")
    return slide


def open_openslide(path: Path, vendor: str) -> Slide:
    """OpenSlide.

    Args:
        path: the file.
        vendor: the format as OpenSlide names it.

    Raises:
        DeclinedError: if it does not open it, or decodes nothing of a TIFF, or might wait for ever for a file beside.
    """
    from wsicurate.slides.openslide import OpenSlideSlide

    # These formats lie in several files, which OpenSlide opens by their names.
    companions = {"mirax": path.with_suffix(""), "hamamatsu": path.parent, "dicom": path.parent}.get(vendor)
    waiting = [] if companions is None else waiting_neighbours(companions)
    if waiting and path.suffix.lower() != ".ndpi":
        raise DeclinedError(f"{companions} holds {waiting[0]}, which is no regular file: opening it may never end")
    try:
        slide = OpenSlideSlide(path)
    except UnreadableSlideError as error:
        raise DeclinedError(str(error).removeprefix(f"{path} cannot be opened as a slide: ")) from error
    if vendor in ("aperio", "generic-tiff"):
        _check_readable(slide)
    if vendor == "dicom":
        warning = "OpenSlide decides its colours by a tag alone, and such tags are often wrong"
        slide.metadata = replace(slide.metadata, warnings=(*slide.metadata.warnings, warning))
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


def open_tiatoolbox(path: Path) -> Slide:
    """TIAToolbox.

    Raises:
        DeclinedError: if it does not open a file.
        UnreadableSlideError: if it does not open a folder, for which there is no other reader.
    """
    from wsicurate.slides.tiatoolbox import TiatoolboxSlide

    try:
        return TiatoolboxSlide(path)
    except UnreadableSlideError as error:
        if path.is_dir():
            raise
        raise DeclinedError(str(error).removeprefix(f"{path} cannot be opened by TIAToolbox: ")) from error


def open_image(path: Path) -> Slide:
    """The image reader.

    Raises:
        UnreadableSlideError: if it does not open it.
    """
    from wsicurate.slides.image import ImageSlide

    return ImageSlide(path)


def open_image_or_decline(path: Path) -> Slide:
    """The image reader, for a file that others may open.

    Raises:
        DeclinedError: if it does not open it.
    """
    try:
        return open_image(path)
    except UnreadableSlideError as error:
        raise DeclinedError(str(error).removeprefix(f"{path} ")) from error
