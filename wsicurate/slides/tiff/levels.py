"""Directories of a TIFF -> its levels, by OpenSlide's rules."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsicurate.errors import NotBrightfieldError, UnreadableSlideError
from wsicurate.slides.base import DeclinedError
from wsicurate.slides.level_checks import MAX_LEVEL_PIXELS, MAX_SIDE_PX
from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.directory import Directory, TiffError, walk_directories
from wsicurate.slides.tiles.codecs import tile_decoder
from wsicurate.slides.tiles.decoding import MAX_TILE_PX
from wsicurate.slides.tiles.pages import Page
from wsicurate.slides.tiles.source import ByteSource

#: Formats whose levels are found by OpenSlide's own rules, which are followed here.
KNOWN_VENDORS = ("aperio", "generic-tiff")

_REDUCED, _MASK = 1, 4  # bits of the kind of an image
GREY = (0, 1)  # photometric interpretations: 0 is white, 0 is black
_TURNS = (
    "",
    "",
    "mirrored",
    "turned by 180°",
    "upside down",
    "transposed",
    "turned by 90°",
    "transversed",
    "turned by 270°",
)
_CONTIGUOUS = 1

#: Bytes of a compressed tile: OpenSlide allocates what the file claims before it looks for it, and no tile is longer
#: than the file. The lower limit is for small files of which one tile lies.
MAX_TILE_BYTES, _LEAST_TILE_BYTES = 1 << 30, 1 << 26


def vendor_of(path: Path) -> str:
    """The format as OpenSlide names it: ``aperio``, ``generic-tiff``, ``dicom``, ...; empty where it knows none."""
    import openslide

    return str(openslide.OpenSlide.detect_format(path) or "")


def directories_of(source: ByteSource) -> list[Directory]:
    """The directories of a TIFF as far as they can be followed; none where it is no TIFF."""
    found: list[Directory] = []
    with contextlib.suppress(TiffError, OSError):
        found.extend(walk_directories(source))
    return found


def image_directories(directories: Sequence[Directory], vendor: str) -> list[Directory]:
    """The directories that any reader may take for levels."""
    try:
        if vendor in KNOWN_VENDORS:
            return pyramid_of(directories, vendor)
    except (DeclinedError, TiffError):
        pass
    return [directory for directory in directories if directory.index == 0 or tags.TILE_WIDTH in directory]


def check_upright(directories: Sequence[Directory], name: str) -> None:
    """Refuse images whose rows and columns do not begin at the top left.

    OpenSlide turns each tile on its own, or none, depending on how it is compressed; other readers leave all as they
    lie. Which of them made the coordinates that a user has is not known: so the whole slide is refused.

    Raises:
        UnreadableSlideError: if the orientation of a directory is 2 to 8.
    """
    for directory in directories:
        try:
            orientation = directory.integer(tags.ORIENTATION, 1)
        except TiffError:
            continue
        if 2 <= orientation <= 8:
            raise UnreadableSlideError(
                f"{name} cannot be opened as a slide: its TIFF orientation is {orientation} (directory "
                f"{directory.index}): the pixels lie {_TURNS[orientation]}, and readers disagree about what to do. "
                "Write it upright (vips autorot IN OUT.tif[tile,pyramid]); or, if it is upright as it lies, correct "
                f"the tag (tiffset -d {directory.index} -s 274 1 FILE)"
            )


def check_stained(first: Directory, name: str) -> None:
    """Raise `NotBrightfieldError` if the first image is of one grey channel, or deeper than 8 bits."""
    bits = _bits(first)
    is_grey = first.integer(tags.SAMPLES_PER_PIXEL, 1) == 1 and first.integer(tags.PHOTOMETRIC, 1) in GREY
    if (is_grey and bits != 1) or bits > 8:
        channels = first.integer(tags.SAMPLES_PER_PIXEL, 1)
        raise NotBrightfieldError(
            f"not brightfield: the pixels of {name} have {channels} channel{'s' * (channels != 1)} of {bits} bits, as "
            "in fluorescence; only stained sections in transmitted light, three channels of 8 bits, are tiled"
        )


def _bits(directory: Directory) -> int:
    """Bits of the deepest channel."""
    return int(directory.integers(tags.BITS_PER_SAMPLE).max(initial=1))


def is_mask(directory: Directory) -> bool:
    """Whether OpenSlide takes a transparency mask for a level of a generic TIFF."""
    if tags.TILE_WIDTH not in directory:
        return False
    kind = directory.integer(tags.NEW_SUBFILE_TYPE, 0)
    return directory.index > 0 and kind & _REDUCED != 0 and kind & _MASK != 0


def pyramid_of(directories: Sequence[Directory], vendor: str) -> list[Directory]:
    """The directories that are levels, finest first, by OpenSlide's rules.

    Aperio: every tiled one, in the file's order. Others: the first, and every tiled one that says it is of reduced
    resolution, by width; transparency masks, which OpenSlide takes for levels, are none.
    """
    tiled = [directory for directory in directories if tags.TILE_WIDTH in directory]
    if not vendor or not tiled or tiled[0] is not directories[0]:
        raise DeclinedError("no vendor is known, or its first image has no tiles")
    if vendor == "aperio":
        return tiled
    levels = [
        directory
        for directory in tiled
        if directory.index == 0 or (directory.integer(tags.NEW_SUBFILE_TYPE, 0) & _REDUCED and not is_mask(directory))
    ]
    return sorted(levels, key=lambda directory: -directory.integer(tags.IMAGE_WIDTH))


def page_of(directory: Directory, vendor: str, number: int) -> Page:
    """Check a level and make it ready; its tables of tiles are read last.

    Raises:
        TiffError: if it contradicts itself.
        DeclinedError: if it is not surely decoded right here.
    """
    width, height = directory.integer(tags.IMAGE_WIDTH), directory.integer(tags.IMAGE_LENGTH)
    tile_width, tile_height = directory.integer(tags.TILE_WIDTH), directory.integer(tags.TILE_LENGTH)
    where = f"directory {directory.index}"
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX and width * height <= MAX_LEVEL_PIXELS):
        raise TiffError(f"{where} claims {width}x{height} pixels")
    if not (1 <= tile_width <= MAX_TILE_PX and 1 <= tile_height <= MAX_TILE_PX):
        raise DeclinedError(
            f"{where} claims tiles of {tile_width}x{tile_height} pixels, more than {MAX_TILE_PX} a side"
        )
    samples = directory.integer(tags.SAMPLES_PER_PIXEL, 1)
    planes = {
        tags.PLANAR_CONFIGURATION: (directory.integer(tags.PLANAR_CONFIGURATION, _CONTIGUOUS), _CONTIGUOUS),
        tags.ORIENTATION: (directory.integer(tags.ORIENTATION, 1), 1),
        tags.FILL_ORDER: (directory.integer(tags.FILL_ORDER, 1), 1),
        tags.SAMPLE_FORMAT: (int(directory.integers(tags.SAMPLE_FORMAT).max(initial=1)), 1),
        tags.IMAGE_DEPTH: (directory.integer(tags.IMAGE_DEPTH, 1), 1),
        tags.EXTRA_SAMPLES: (int(directory.integers(tags.EXTRA_SAMPLES).max(initial=0)), 0),  # 0: not transparency
    }
    unusual = {tag: value for tag, (value, usual) in planes.items() if value != usual}
    bits = directory.integers(tags.BITS_PER_SAMPLE).tolist()
    if bits not in ([8], [8] * samples) or samples < 3 or unusual:
        raise DeclinedError(f"{where} has {samples} channels of {bits} bits, and {unusual}")
    decode = tile_decoder(
        directory.integer(tags.COMPRESSION, 1),
        directory.integer(tags.PHOTOMETRIC),
        predictor=directory.integer(tags.PREDICTOR, 1),
        jpeg_tables=directory.raw(tags.JPEG_TABLES),
        is_aperio=vendor == "aperio",
        samples=samples,
    )
    if decode is None:
        raise DeclinedError(
            f"{where} has compression {directory.integer(tags.COMPRESSION, 1)} of photometric interpretation "
            f"{directory.integer(tags.PHOTOMETRIC)} and {samples} channels"
        )
    across, down = -(-width // tile_width), -(-height // tile_height)
    found = directory.count(tags.TILE_OFFSETS), directory.count(tags.TILE_BYTE_COUNTS)
    if found != (across * down, across * down):
        raise TiffError(
            f"{where} has {found[0]} tile offsets and {found[1]} lengths for {across}x{down} tiles of "
            f"{tile_width}x{tile_height} pixels over {width}x{height}"
        )
    return Page(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        across=across,
        offsets=directory.integers(tags.TILE_OFFSETS),
        lengths=directory.integers(tags.TILE_BYTE_COUNTS),
        decode=decode,
        can_paint_holes=vendor == "aperio" and number == 0,
    )


def propagate_holes(pages: Sequence[Page]) -> None:
    """Mark the tiles that were made of missing ones as missing too, as OpenSlide does: Aperio's are often corrupt."""
    for finer, coarser in itertools.pairwise(pages):
        holes = np.flatnonzero(finer.lengths == 0)
        if not holes.size:
            continue
        down, coarser_down = (page.lengths.size // page.across for page in (finer, coarser))
        columns = holes % finer.across // max(1, int(finer.across / coarser.across + 0.5))
        rows = holes // finer.across // max(1, int(down / coarser_down + 0.5))
        columns, rows = np.minimum(columns, coarser.across - 1), np.minimum(rows, coarser_down - 1)
        coarser.lengths[rows * coarser.across + columns] = 0


def most_tile_bytes(source: ByteSource) -> int:
    """How many bytes a tile of a file may claim."""
    return max(_LEAST_TILE_BYTES, min(source.size, MAX_TILE_BYTES))
