"""Tiled TIFF and SVS, decoded tile by tile: the fast path, over ranges of bytes.

It returns OpenSlide's pixels: equal on whole levels, and at any offset where the level's downsample is a whole number
(elsewhere OpenSlide interpolates, and this does not). Files of which it is not sure are OpenSlide's to read, and so are
single regions in which something unusual lies; but not what OpenSlide is known to read wrongly: see `openslide_doubts`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsicurate.errors import NotBrightfieldError, SlideError, UnreadableSlideError
from wsicurate.slides.base import (
    MAX_LEVEL_PIXELS,
    MAX_SIDE_PX,
    MAX_TILE_PIXELS,
    DeclinedError,
    SlideMetadata,
    fitting_levels,
)
from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.directory import Directory, TiffError, walk_directories
from wsicurate.slides.tiles.codecs import (
    APERIO_ONLY,
    BEYOND_OPENSLIDE,
    JPEG,
    MAX_TILE_PX,
    RGB,
    YCBCR,
    BrokenTileError,
    Jpeg2000Tiles,
    JpegTiles,
    UnsureError,
    read_jpeg_frame,
    tile_decoder,
    what_pixels_say,
)
from wsicurate.slides.tiles.reader import Page, TiledSlide, levels_of, spread_tiles
from wsicurate.slides.tiles.source import ByteSource, FileSource

#: Tiles of a level that OpenSlide is given: it keeps a table of all of them.
MAX_TILES = 1 << 24

#: Bytes of a compressed tile: OpenSlide allocates what the file claims before it looks for it, and no tile is longer
#: than the file. The lower limit is for small files of which one tile lies.
_MAX_TILE_BYTES, _LEAST_TILE_BYTES = 1 << 30, 1 << 26

#: Bytes in which an NDPI's JPEG says all that is looked at.
_NDPI_HEADER_BYTES = 1 << 16

#: Tiles of a level whose own markers are compared with the file's tag before OpenSlide is given the file.
_SAMPLED_TILES = 16

#: Tiles of a level whose pixels are compared with what the file says of them, and their pixels in all.
_LOOKED_AT, _LOOKED_AT_PX = 4, 1 << 20

#: Bytes at the beginning of a JPEG that hold its markers, mostly.
_MARKER_BYTES = 4096

_BIG_ENDIAN = b"MM\0*"
_REDUCED, _MASK = 1, 4  # bits of the kind of an image
_GREY = (0, 1)  # photometric interpretations: 0 is white, 0 is black
_PALETTE = 3
_LAB = {8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*"}
_NUMBERS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}  # sample formats
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
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

#: Formats whose levels are found by OpenSlide's own rules, which are followed here.
_KNOWN_VENDORS = ("aperio", "generic-tiff")


class TiffSlide(TiledSlide):
    """A tiled TIFF: an Aperio SVS or a generic pyramid. `open_slide` takes it where OpenSlide finds the same levels.

    Args:
        path: the file.
        source: its bytes, if they come from elsewhere.

    Attributes:
        is_beyond_openslide: whether OpenSlide is known not to open such a file: its tiles are compressed in a way that
            it does not decode there, it is a classic TIFF in big-endian order, or a mask or another image stands among
            its levels.

    Raises:
        DeclinedError: if another reader should take it: it contradicts itself, or is not surely decoded right here.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
        UnreadableSlideError: if the file cannot be read at all, or its pixels do not lie upright.
    """

    reader = "tiff"

    def __init__(self, path: Path, source: ByteSource | None = None) -> None:
        vendor = vendor_of(path)
        if vendor not in (*_KNOWN_VENDORS, ""):
            raise DeclinedError(f"OpenSlide takes it for {vendor}")
        source = source or FileSource(path)
        try:
            directories = list(walk_directories(source))
            is_unknown_order = not vendor and source.read(0, 4) == _BIG_ENDIAN
            if is_unknown_order:
                is_aperio = (directories[0].text(tags.IMAGE_DESCRIPTION) or "").startswith("Aperio")
                vendor = "aperio" if is_aperio else "generic-tiff"
            _check_stained(directories[0], str(path))
            pyramid = _pyramid(directories, vendor)
            check_upright(pyramid, str(path))
            schemes = {directory.integer(tags.COMPRESSION, 1) for directory in pyramid}
            unknown = BEYOND_OPENSLIDE if vendor == "aperio" else BEYOND_OPENSLIDE | APERIO_ONLY
            masks = [directory.index for directory in directories if _is_mask(directory)] if vendor != "aperio" else []
            self.is_beyond_openslide = is_unknown_order or bool(schemes & unknown) or bool(masks)
            pages = [_page(directory, vendor, number) for number, directory in enumerate(pyramid)]
            metadata = _metadata(pyramid[0], vendor)
        except TiffError as error:
            source.close()
            raise DeclinedError(str(error), is_contradiction=True) from error
        except (DeclinedError, SlideError, OSError):
            source.close()
            raise
        if vendor == "aperio":
            _propagate_holes(pages)
        levels = levels_of(pages)
        self.is_beyond_openslide |= any(b.downsample < a.downsample for a, b in itertools.pairwise(levels))
        kept, warnings = fitting_levels(levels)
        pages = [pages[index] for index in kept]
        try:
            pages = [
                _with_colours(source, page, f"{path} cannot be opened as a slide: level {level}")
                for level, page in enumerate(pages)
            ]
        except (SlideError, DeclinedError):
            source.close()
            raise
        distrust = next(filter(None, (_contradiction(source, page, 1) for page in pages)), "")
        if masks:
            distrust = f"it would take the transparency mask of directory {masks[0]} for a level"
        longest = max(int(page.lengths.max(initial=0)) for page in pages)
        if longest > _most_tile_bytes(source):
            distrust = f"the file claims a tile of {longest:,} bytes"
        super().__init__(path, [source], pages, replace(metadata, warnings=warnings), distrust=distrust)
        if self.is_beyond_openslide:
            self._probe()

    def _probe(self) -> None:
        """Decode a tile of each level, because no other reader can be asked later.

        Raises:
            DeclinedError: if one cannot be decoded.
        """
        for level, page in enumerate(self._pages):
            present = np.flatnonzero(page.lengths)
            if not present.size:
                continue
            out = np.empty((page.tile_height, page.tile_width, 3), dtype=np.uint8)
            try:
                self._decode(level, int(present[present.size // 2]), out)
            except (UnsureError, BrokenTileError) as error:
                self.close()
                raise DeclinedError(f"a tile of level {level} cannot be decoded: {error}") from error


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
        if vendor in _KNOWN_VENDORS:
            return _pyramid(directories, vendor)
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
    for directory in directories:
        for check in checks:
            try:
                doubt = check(source, directory)
            except (TiffError, EOFError, OSError):
                continue  # others read some of what this parser refuses
            if doubt:
                return f"directory {directory.index} {doubt}"
    return ""


Check = Callable[[ByteSource, Directory], str]


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
    return "is a transparency mask, which would be taken for a level" if _is_mask(directory) else ""


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
    return f"claims a tile of {longest:,} bytes" if longest > _most_tile_bytes(source) else ""


def _form_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether samples are taken for what they are not."""
    sample_format = int(directory.integers(tags.SAMPLE_FORMAT).max(initial=1))
    if sample_format in _NUMBERS:
        return f"has {_NUMBERS[sample_format]} samples, which would be taken for whole numbers"
    if directory.integer(tags.IMAGE_DEPTH, 1) != 1:
        return f"is {directory.integer(tags.IMAGE_DEPTH)} planes deep, of which one would be read"
    photometric = directory.integer(tags.PHOTOMETRIC, RGB)
    samples = directory.integer(tags.SAMPLES_PER_PIXEL, 1)
    if samples > 2 and (photometric in _GREY or (photometric == _PALETTE and tags.COLOR_MAP in directory)):
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
    return _contradiction(source, _jpeg_page(directory), _SAMPLED_TILES)


def _raw_colour_doubt(source: ByteSource, directory: Directory) -> str:
    """Whether tifffile would give components as they lie that are not red, green and blue."""
    photometric = directory.integer(tags.PHOTOMETRIC, RGB)
    is_jpeg = directory.integer(tags.COMPRESSION, 1) == JPEG
    if photometric == RGB or (photometric == YCBCR and is_jpeg):
        return ""
    return f"has the photometric interpretation {photometric}, which is not converted"


def _most_tile_bytes(source: ByteSource) -> int:
    return max(_LEAST_TILE_BYTES, min(source.size, _MAX_TILE_BYTES))


def _jpeg_page(directory: Directory) -> Page:
    """As much of a level of JPEG tiles as is needed to look at their markers."""
    decode = JpegTiles(b"", is_ycbcr=directory.integer(tags.PHOTOMETRIC) == YCBCR)
    offsets, lengths = directory.integers(tags.TILE_OFFSETS), directory.integers(tags.TILE_BYTE_COUNTS)
    count = min(offsets.size, lengths.size)
    return Page(0, 0, 0, 0, 1, offsets[:count], lengths[:count], decode, False)


def _contradiction(source: ByteSource, page: Page, tiles: int) -> str:
    """How some tiles' own markers, the first one's among them, contradict the file's tag; empty where they do not."""
    if not isinstance(page.decode, JpegTiles):
        return ""
    for index in spread_tiles(page, tiles):
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        for share in (_MARKER_BYTES, _MAX_TILE_BYTES):
            try:
                found = page.decode.contradicts(source.read(offset, min(length, share)))
            except (BrokenTileError, UnsureError, EOFError, OSError):
                continue
            if found:
                return f"holds tiles of which {found}"
            break
    return ""


def _with_colours(source: ByteSource, page: Page, where: str) -> Page:
    """Compare what the file says of tiles that do not say themselves what their components are with their pixels.

    Returns:
        The level; where the compression's number and the photometric tag disagree, decoded as the pixels say.

    Raises:
        UnreadableSlideError: if the pixels contradict the file: then no reader knows better.
        DeclinedError: if the tiles are not decoded here, and OpenSlide may.
    """
    decode = page.decode
    if not isinstance(decode, JpegTiles | Jpeg2000Tiles):
        return page
    count = max(1, min(_LOOKED_AT, _LOOKED_AT_PX // (page.tile_width * page.tile_height)))
    try:
        _, said = what_pixels_say(decode, _read_some(source, page, count), (page.tile_height, page.tile_width))
    except UnsureError:
        return page  # region by region, OpenSlide's to read
    if said is None or said == decode.is_ycbcr:
        return page
    if said and isinstance(decode, Jpeg2000Tiles) and decode.is_disputed:
        return replace(page, decode=decode.with_tag(is_ycbcr=True))
    space, tag = ("YCbCr", "RGB") if said else ("RGB", "YCbCr")
    raise UnreadableSlideError(
        f"{where} is {tag} as the file says, and {space} by its pixels; correct its photometric interpretation (TIFF "
        "tag 262; of Aperio's JPEG 2000 the compression, tag 259), or write it again from the original"
    )


def _read_some(source: ByteSource, page: Page, count: int) -> Iterator[bytes]:
    """The bytes of some tiles; those that cannot be read are passed over."""
    for index in spread_tiles(page, count):
        length = int(page.lengths[index])
        if length > 6 * page.tile_width * page.tile_height + 65536:
            continue
        with contextlib.suppress(EOFError, OSError):
            yield source.read(int(page.offsets[index]), length)


def _check_stained(first: Directory, name: str) -> None:
    """Raise `NotBrightfieldError` if the first image is of one grey channel, or deeper than 8 bits."""
    bits = _bits(first)
    is_grey = first.integer(tags.SAMPLES_PER_PIXEL, 1) == 1 and first.integer(tags.PHOTOMETRIC, 1) in _GREY
    if (is_grey and bits != 1) or bits > 8:
        channels = first.integer(tags.SAMPLES_PER_PIXEL, 1)
        raise NotBrightfieldError(
            f"not brightfield: the pixels of {name} have {channels} channel{'s' * (channels != 1)} of {bits} bits, as "
            "in fluorescence; only stained sections in transmitted light, three channels of 8 bits, are tiled"
        )


def _bits(directory: Directory) -> int:
    """Bits of the deepest channel."""
    return int(directory.integers(tags.BITS_PER_SAMPLE).max(initial=1))


def _is_mask(directory: Directory) -> bool:
    """Whether OpenSlide takes a transparency mask for a level of a generic TIFF."""
    if tags.TILE_WIDTH not in directory:
        return False
    kind = directory.integer(tags.NEW_SUBFILE_TYPE, 0)
    return directory.index > 0 and kind & _REDUCED != 0 and kind & _MASK != 0


def _pyramid(directories: Sequence[Directory], vendor: str) -> list[Directory]:
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
        if directory.index == 0 or (directory.integer(tags.NEW_SUBFILE_TYPE, 0) & _REDUCED and not _is_mask(directory))
    ]
    return sorted(levels, key=lambda directory: -directory.integer(tags.IMAGE_WIDTH))


def _page(directory: Directory, vendor: str, number: int) -> Page:
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


def _propagate_holes(pages: Sequence[Page]) -> None:
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


def _metadata(first: Directory, vendor: str) -> SlideMetadata:
    properties: dict[str, str] = {}
    for name, tag in (("ImageDescription", 270), ("Make", 271), ("Model", 272), ("Software", 305), ("DateTime", 306)):
        text = first.text(tag)
        if text is not None:
            properties[f"tiff.{name}"] = text
    for name, tag in (("XResolution", tags.X_RESOLUTION), ("YResolution", tags.Y_RESOLUTION)):
        if (density := first.rational(tag)) is not None:
            properties[f"tiff.{name}"] = f"{density:.17g}"
    unit_names = {1: "none", 2: "inch", 3: "centimeter"}
    properties["tiff.ResolutionUnit"] = unit_names.get(first.integer(tags.RESOLUTION_UNIT, 2), "unknown")
    mpp: tuple[float, float] | None = None
    power: float | None = None
    if vendor == "aperio":
        for part in properties.get("tiff.ImageDescription", "").split("|")[1:]:
            name, separator, value = part.partition("=")
            if separator and name.strip():
                properties[f"aperio.{name.strip()}"] = value.strip()
        stated = _number(properties.get("aperio.MPP"))
        mpp = None if stated is None else (stated, stated)
        power = _number(properties.get("aperio.AppMag"))
    else:
        unit = _UM_PER_UNIT.get(first.integer(tags.RESOLUTION_UNIT, 2))
        per_unit = first.rational(tags.X_RESOLUTION), first.rational(tags.Y_RESOLUTION)
        if unit and per_unit[0] and per_unit[1]:
            mpp = unit / per_unit[0], unit / per_unit[1]
    icc = first.raw(tags.ICC_PROFILE) if first.count(tags.ICC_PROFILE) else None
    return SlideMetadata(mpp=mpp, objective_power=power, vendor=vendor, properties=properties, icc_profile=icc)


def _number(text: str | None) -> float | None:
    """A plain decimal number; with a comma as well, as some scanners write it."""
    if text is None or not _NUMBER.fullmatch(text.replace(",", ".")):
        return None
    return float(text.replace(",", "."))
