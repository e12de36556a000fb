"""Which reader takes which file: each in turn is asked, and a slide is refused only when all have declined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wsicurate.errors import ConfigError, SlideNotFoundError, UnreadableSlideError, in_words
from wsicurate.slides.base import DeclinedError, Slide
from wsicurate.slides.formats import IMAGE_SUFFIXES
from wsicurate.slides.openers import (
    open_dicom,
    open_image,
    open_image_or_decline,
    open_openslide,
    open_tiatoolbox,
    open_tiff,
    open_tiff_as_openslide_does,
)
from wsicurate.slides.plugin_readers import OWN_READERS, plugin_readers, read_first_bytes
from wsicurate.slides.tiff.directory import IMAGE_DESCRIPTION, TILE_OFFSETS, TILE_WIDTH, Directory, TiffError
from wsicurate.slides.tiles.source import FileSource

#: The reader is chosen by the file.
AUTO = "auto"

#: TIFFs that OpenSlide refuses may be flat images.
FLAT_TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

_TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: What messages call a reader, and how it opens the file or raises `DeclinedError`.
Candidate = tuple[str, Callable[[], Slide]]


def open_slide(path: str | Path, *, plain_images: bool = True, reader: str = AUTO) -> Slide:
    """Open a slide with the reader that fits.

    Readers of other packages (docs/extending/readers.md) are asked first. Tiled TIFF and SVS, and DICOM, are read
    directly where that surely gives the right pixels, which is also many times faster; any file of a DICOM series opens
    the whole series. What the direct readers object to, for whatever reason, OpenSlide is asked for, unless it is known
    to read such a file wrongly; what that refuses, TIAToolbox where it is installed: OME-TIFF, JP2, the folder of an
    NGFF. Plain images (PNG, JPEG, flat TIFF, ...) open as slides of one level without a stated resolution.

    Args:
        path: the file.
        plain_images: whether a plain image is a slide.
        reader: ``auto``, or the name of the only reader to be asked: one of `reader_names`. What a reader is known to
            read wrongly it is not asked for even so.

    Returns:
        An open `Slide`; use it in a ``with`` block or call its ``close``.

    Raises:
        ConfigError: if there is no reader of that name; the message lists them.
        SlideNotFoundError: if there is no such file.
        UnreadableSlideError: if every reader declines it; the message has the reason of each, and what would help.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
    """
    path = Path(path)
    require_reader(reader)
    try:
        path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise SlideNotFoundError(f"{path} does not exist") from error
        raise UnreadableSlideError(f"{path} cannot be read: {in_words(error)}") from error
    if path.is_dir():
        if (path / ".zattrs").is_file() and reader in (AUTO, "tiatoolbox"):  # NGFF
            return open_tiatoolbox(path)
        raise UnreadableSlideError(f"{path} is a folder; open one of its files, or tile the folder")
    beginning = read_first_bytes(path)
    declined: dict[str, str] = {}
    suspicions: list[str] = []
    if reader == AUTO:
        candidates = _readers(path, beginning, plain_images, declined)
    else:
        candidates = _only(path, beginning, reader, declined)
    for name, opened in candidates:
        try:
            slide = opened()
        except DeclinedError as error:
            declined[name] = str(error)
            suspicions += [f"the file contradicts itself: {error}"] * error.is_contradiction
            continue
        slide.metadata = replace(slide.metadata, warnings=(*suspicions, *slide.metadata.warnings))
        return slide
    reasons = "; ".join(f"{name}: {reason.removeprefix(f'{path} ')}" for name, reason in declined.items())
    raise UnreadableSlideError(f"{path} cannot be opened as a slide: {reasons}{_advice(path, beginning)}")


def reader_names() -> list[str]:
    """The names that ``open_slide(path, reader=...)`` takes: ``auto``, our readers, and those of other packages.

    Raises:
        ConfigError: if the reader of a package is wrong in itself.
    """
    return [AUTO, *OWN_READERS, *plugin_readers()]


def require_reader(name: str) -> None:
    """Raise `ConfigError`, which lists the names, where there is no reader of a name."""
    if name not in (names := reader_names()):
        raise ConfigError(f"there is no reader {name!r}; give one of {', '.join(names)}")


def _readers(path: Path, beginning: bytes, plain_images: bool, declined: dict[str, str]) -> Iterator[Candidate]:
    """The readers that may take a file, in order; those that are not to be asked are put among ``declined``."""
    from wsicurate.slides.tiatoolbox import is_for_tiatoolbox
    from wsicurate.slides.tiff.levels import vendor_of

    for plugin in plugin_readers().values():
        if plugin.claims(path, beginning):
            yield plugin.title, partial(plugin.open, path)
    if path.suffix.lower() in IMAGE_SUFFIXES and plain_images:
        yield "image reader", lambda: open_image(path)
        return
    vendor = vendor_of(path)
    is_flat, tiff = path.suffix.lower() in FLAT_TIFF_SUFFIXES, _NO_TIFF
    if vendor == "dicom":
        yield "DICOM reader", lambda: open_dicom(path)
    elif beginning.startswith(_TIFF_BEGINNINGS):
        if vendor != "hamamatsu":
            yield "direct TIFF reader", lambda: open_tiff_as_openslide_does(path)
        tiff = _look_into(path, vendor)
        is_flat &= not tiff.is_tiled
        if tiff.turned and not (is_flat and plain_images):  # the image reader turns it, as a whole
            raise UnreadableSlideError(tiff.turned)
    if vendor != "dicom":
        yield from _openslide(path, vendor, tiff, declined)
    if plain_images and is_flat and not tiff.is_ome:  # the same pixels whether TIAToolbox is there or not
        yield "image reader", lambda: open_image_or_decline(path)
    if not tiff.turned and (vendor == "dicom" or is_for_tiatoolbox(path)):
        yield from _tiatoolbox(path, tiff, declined)
    if plain_images and is_flat and tiff.is_ome:
        yield "image reader", lambda: open_image_or_decline(path)


def _only(path: Path, beginning: bytes, reader: str, declined: dict[str, str]) -> Iterator[Candidate]:
    """The reader of a name; put among ``declined`` where it is known to read the file wrongly."""
    from wsicurate.slides.tiff.levels import vendor_of

    if plugin := plugin_readers().get(reader):
        yield plugin.title, partial(plugin.open, path)
    elif reader == "image":
        yield "image reader", lambda: open_image_or_decline(path)
    elif reader == "dicom":
        yield "DICOM reader", lambda: open_dicom(path)
    elif reader == "tiff":
        yield "direct TIFF reader", lambda: open_tiff(path)
    else:
        vendor = vendor_of(path)
        is_tiff = vendor != "dicom" and beginning.startswith(_TIFF_BEGINNINGS)
        tiff = _look_into(path, vendor) if is_tiff else _NO_TIFF
        if tiff.turned:
            raise UnreadableSlideError(tiff.turned)
        if reader == "openslide":
            yield from _openslide(path, vendor, tiff, declined)
        else:
            yield from _tiatoolbox(path, tiff, declined)


def _openslide(path: Path, vendor: str, tiff: _Tiff, declined: dict[str, str]) -> Iterator[Candidate]:
    """OpenSlide, unless it is known to read the file wrongly."""
    if tiff.openslide_doubt:
        declined["OpenSlide"] = f"is not asked, because {tiff.openslide_doubt}"
    else:
        yield "OpenSlide", lambda: open_openslide(path, vendor)


def _tiatoolbox(path: Path, tiff: _Tiff, declined: dict[str, str]) -> Iterator[Candidate]:
    """TIAToolbox, unless it is known to read the file wrongly, or is not installed."""
    from wsicurate.slides.tiatoolbox import tiatoolbox_is_installed

    if tiff.toolbox_doubt:
        declined["TIAToolbox"] = f"is not asked, because {tiff.toolbox_doubt}"
    elif tiatoolbox_is_installed():
        yield "TIAToolbox", lambda: open_tiatoolbox(path)
    else:
        declined["TIAToolbox"] = "is not installed (pip install wsicurate[tiatoolbox])"


@dataclass(frozen=True)
class _Tiff:
    """What a TIFF's directories say of the readers that may have it.

    Attributes:
        is_tiled: whether its first image lies in tiles: a slide, if a damaged one, and no plain image.
        is_ome: whether it describes itself in OME-XML, which may say more of it than a plain image has.
        turned: why it is refused for its orientation; empty where it lies upright.
        openslide_doubt: why OpenSlide must not be given it; empty where nothing is known against it.
        toolbox_doubt: why TIAToolbox must not be given it; likewise.
    """

    is_tiled: bool = False
    is_ome: bool = False
    turned: str = ""
    openslide_doubt: str = ""
    toolbox_doubt: str = ""


_NO_TIFF = _Tiff()


def _look_into(path: Path, vendor: str) -> _Tiff:
    """Read a TIFF's directories; of an NDPI, which is built otherwise, for OpenSlide's doubts alone."""
    from wsicurate.slides.tiff.doubts import openslide_doubts, tiatoolbox_doubts
    from wsicurate.slides.tiff.levels import directories_of, image_directories

    source = FileSource(path)
    try:
        directories = directories_of(source)
        if vendor == "hamamatsu":
            return _Tiff(openslide_doubt=openslide_doubts(source, directories, vendor))
        images = image_directories(directories, vendor)
        return _Tiff(
            is_tiled=any(TILE_WIDTH in directory or TILE_OFFSETS in directory for directory in images[:1]),
            is_ome=any(_is_ome(directory) for directory in images[:1]),
            turned=_turned(images, str(path)),
            openslide_doubt=openslide_doubts(source, directories, vendor),
            toolbox_doubt=tiatoolbox_doubts(source, directories, vendor),
        )
    finally:
        source.close()


def _turned(images: Sequence[Directory], name: str) -> str:
    """Why images are refused for their orientation; empty where they lie upright."""
    from wsicurate.slides.tiff.levels import check_upright

    try:
        check_upright(images, name)
    except UnreadableSlideError as error:
        return str(error)
    return ""


def _is_ome(directory: Directory) -> bool:
    """Whether a TIFF describes itself in OME-XML."""
    try:
        return "<OME" in (directory.text(IMAGE_DESCRIPTION) or "")
    except TiffError:
        return False


def _advice(path: Path, beginning: bytes) -> str:
    """What would help with a file that no reader opens."""
    if beginning.startswith(_TIFF_BEGINNINGS):
        return (
            ". Write it as a tiled pyramid of 8-bit RGB (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"
        )
    if path.suffix.lower() == ".dcm":
        return ". Give the folder of the whole series, or convert it (wsidicomizer, bfconvert)"
    return ""
