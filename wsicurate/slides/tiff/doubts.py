"""Why another library must not be given a TIFF: what it is known to read wrongly, or to die of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsicurate.slides.level_checks import MAX_LEVEL_PIXELS, MAX_SIDE_PX, MAX_TILE_PIXELS
from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.colours import contradiction
from wsicurate.slides.tiff.directory import Directory, TiffError
from wsicurate.slides.tiff.levels import GREY, image_directories, is_mask, most_tile_bytes
from wsicurate.slides.tiles.codecs import JPEG, RGB, YCBCR
from wsicurate.slides.tiles.decoding import BrokenTileError, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles, read_jpeg_frame
from wsicurate.slides.tiles.pages import Page
from wsicurate.slides.tiles.source import ByteSource

#: Tiles of a level that OpenSlide is given: it keeps a table of all of them.
MAX_TILES = 1 << 24

#: Bytes in which an NDPI's JPEG says all that is looked at.
_NDPI_HEADER_BYTES = 1 << 16

#: Tiles of a level whose own markers are compared with the file's tag before OpenSlide is given the file.
_SAMPLED_TILES = 16

_PALETTE = 3  # photometric interpretation
_LAB = {8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_NUMBERS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}  # sample formats

#: Why a directory must not be given to another library, as the end of a sentence; empty where nothing is known.
Check = Callable[[ByteSource, Directory], str]


def openslide_doubts(source: ByteSource, directories: Sequence[Directory], vendor: str) -> str:
    """Why OpenSlide must not be given a TIFF: it would read wrong pixels, or take more memory than there is.

    OpenSlide and libtiff pass over what some tags say. What is listed here was found by comparing OpenSlide's pixels
    with those that were written (tests/slides/test_opening.py).

    Args:
        source: the file.
        directories: as `directories_of` gives them.
        vendor: as OpenSlide names the format.

    Returns:
        A sentence, or an empty text where nothing is known against it.
    """
    if vendor == "hamamatsu":
        return _first_doubt(source, directories, [_ndpi_doubt])
    if vendor == "generic-tiff" and (doubt := _first_doubt(source, directories, [_mask_doubt])):
        return doubt
    checks = [_size_doubt, _length_doubt, _form_doubt, _alpha_doubt, _jpeg_doubt]
    return _first_doubt(source, image_directories(directories, vendor), checks)


def tiatoolbox_doubts(source: ByteSource, directories: Sequence[Directory], vendor: str) -> str:
    """Why TIAToolbox must not be given a TIFF; it reads through tifffile, which converts no colours but those of JPEG.

    Arguments and result are those of `openslide_doubts`.
    """
    images = image_directories(directories, vendor)
    checks = [_size_doubt, _length_doubt, _form_doubt, _jpeg_doubt, _raw_colour_doubt]
    return _first_doubt(source, images, checks)


def _first_doubt(source: ByteSource, directories: Sequence[Directory], checks: Sequence[Check]) -> str:
    """The first sentence that a check has about a directory; empty where none has one."""
    for directory in directories:
        for check in checks:
            try:
                doubt = check(source, directory)
            except (TiffError, EOFError, OSError):
                continue  # others read some of what this parser refuses
            if doubt:
                return f"directory {directory.index} {doubt}"
    return ""


def _ndpi_doubt(source: ByteSource, directory: Directory) -> str:
    """What is absurd about a level of an NDPI: one JPEG, in which restart markers divide tiles."""
    if doubt := _size_doubt(source, directory):
        return doubt
    if not directory.count(tags.STRIP_OFFSETS):
        return ""
    offset = directory.integer(tags.STRIP_OFFSETS)
    try:
        frame = read_jpeg_frame(source.read(offset, max(0, min(_NDPI_HEADER_BYTES, source.size - offset))))
    except (BrokenTileError, UnsureError):
        return ""
    width, height = frame.width, frame.height
    if not (width and height):  # beyond what a JPEG can say: the directory says it
        width, height = directory.integer(tags.IMAGE_WIDTH, 1), directory.integer(tags.IMAGE_LENGTH, 1)
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_LEVEL_PIXELS:
        return f"claims {width}x{height} pixels"
    across, down = (max(factors >> shift & 15 for factors in frame.sampling) for shift in (4, 0))
    tile = frame.restart_interval * across * 8 * down * 8
    if not tile and width * height > MAX_TILE_PIXELS:
        return f"is one JPEG of {width}x{height} pixels without restart markers"
    if tile and width * height // tile > MAX_TILES:
        return f"claims {width}x{height} pixels between restart markers that are {tile} pixels apart"
    return ""


def _mask_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether a level is a transparency mask."""
    return "is a transparency mask, which would be taken for a level" if is_mask(directory) else ""


def _size_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether an image or its tiles are absurdly large."""
    width, height = directory.integer(tags.IMAGE_WIDTH, 1), directory.integer(tags.IMAGE_LENGTH, 1)
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_LEVEL_PIXELS:
        return f"claims {width}x{height} pixels"
    if tags.TILE_WIDTH in directory:
        tile_width, tile_height = directory.integer(tags.TILE_WIDTH), directory.integer(tags.TILE_LENGTH, 1)
        if tile_width * tile_height > MAX_TILE_PIXELS:
            return f"claims tiles of {tile_width}x{tile_height} pixels"
        if tile_width > 0 < tile_height and -(-width // tile_width) * -(-height // tile_height) > MAX_TILES:
            return (
                f"claims {width}x{height} pixels in tiles of {tile_width}x{tile_height}, more than {MAX_TILES:,} tiles"
            )
    return ""


def _length_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether a tile claims absurdly many bytes, which are allocated before they are looked for."""
    longest = int(directory.integers(tags.TILE_BYTE_COUNTS).max(initial=0))
    return f"claims a tile of {longest:,} bytes" if longest > most_tile_bytes(source) else ""


def _form_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether samples are taken for what they are not."""
    sample_format = int(directory.integers(tags.SAMPLE_FORMAT).max(initial=1))
    if sample_format in _NUMBERS:
        return f"has {_NUMBERS[sample_format]} samples, which would be taken for whole numbers"
    if directory.integer(tags.IMAGE_DEPTH, 1) != 1:
        return f"is {directory.integer(tags.IMAGE_DEPTH)} planes deep, of which one would be read"
    photometric = directory.integer(tags.PHOTOMETRIC, RGB)
    samples = directory.integer(tags.SAMPLES_PER_PIXEL, 1)
    if samples > 2 and (photometric in GREY or (photometric == _PALETTE and tags.COLOR_MAP in directory)):
        return f"has {samples} channels and the photometric interpretation {photometric} of one"
    if photometric in _LAB:
        return f"is in {_LAB[photometric]}, which is not surely converted right"
    is_jpeg = directory.integer(tags.COMPRESSION, 1) == JPEG
    if photometric == YCBCR and not is_jpeg and tags.YCBCR_SUBSAMPLING not in directory:
        return "is in YCbCr and does not say how its chroma is sampled"
    return ""


def _alpha_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether libtiff takes a fourth channel for transparency although the file does not say so."""
    samples = directory.integer(tags.SAMPLES_PER_PIXEL, 1)
    if directory.integer(tags.PHOTOMETRIC, RGB) != RGB or samples < 4:
        return ""
    extra = directory.integers(tags.EXTRA_SAMPLES)
    if extra.size and extra[0] != 0:
        return ""
    return f"has {samples} channels, of which the fourth would be taken for transparency without being it"


def _jpeg_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether JPEG tiles' own markers contradict the file's tag."""
    form = directory.integer(tags.COMPRESSION, 1), directory.integer(tags.SAMPLES_PER_PIXEL, 1)
    if form != (JPEG, 3) or directory.integer(tags.PHOTOMETRIC) not in (RGB, YCBCR):
        return ""
    return contradiction(source, _jpeg_page(directory), _SAMPLED_TILES)


def _raw_colour_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether tifffile would give components as they lie that are not red, green and blue."""
    photometric = directory.integer(tags.PHOTOMETRIC, RGB)
    is_jpeg = directory.integer(tags.COMPRESSION, 1) == JPEG
    if photometric == RGB or (photometric == YCBCR and is_jpeg):
        return ""
    return f"has the photometric interpretation {photometric}, which is not converted"


def _jpeg_page(directory: Directory) -> Page:
    """As much of a level of JPEG tiles as is needed to look at their markers."""
    decode = JpegTiles(b"", is_ycbcr=directory.integer(tags.PHOTOMETRIC) == YCBCR)
    offsets, lengths = directory.integers(tags.TILE_OFFSETS), directory.integers(tags.TILE_BYTE_COUNTS)
    count = min(offsets.size, lengths.size)
    return Page(0, 0, 0, 0, 1, offsets[:count], lengths[:count], decode, False)
