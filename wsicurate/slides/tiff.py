"""Tiled TIFF and SVS, decoded tile by tile: the fast path, over ranges of bytes.

It returns OpenSlide's pixels: equal on whole levels, and at any offset where the level's downsample is a whole number
(elsewhere OpenSlide interpolates, and this does not). Files of which it is not sure are OpenSlide's to read, and so are
single regions in which something unusual lies.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import (
    NotBrightfieldError,
    SlideError,
    UnreadableRegionError,
    UnreadableSlideError,
    UnscannedRegionError,
)
from wsicurate.pixels.resample import resample_area
from wsicurate.slides import tiff_directory as tags
from wsicurate.slides.base import Level, ReadCounts, Slide, SlideBase, SlideMetadata
from wsicurate.slides.byte_source import ByteSource, FileSource
from wsicurate.slides.tiff_directory import Directory, TiffError, read_directories
from wsicurate.slides.tile_codecs import (
    BEYOND_OPENSLIDE,
    MAX_TILE_PX,
    BrokenTileError,
    JpegTiles,
    TileDecoder,
    UnsureError,
    tile_decoder,
)

#: Decoded tiles that one open slide keeps, bytes. A row of 34 tiles of 512 px and its neighbours fit.
TILE_CACHE_BYTES = 64 * 1024 * 1024

#: Longest side of a level, pixels.
MAX_SIDE_PX = 4_000_000

_REDUCED = 1
_GREY = (0, 1)  # photometric interpretations: 0 is white, 0 is black
_CONTIGUOUS = 1
_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class NotForUsError(Exception):
    """A sound file, as far as was looked, that another reader should take."""


@dataclass(frozen=True)
class _Page:
    """One level, ready to be read.

    Attributes:
        width, height: of the level, pixels.
        tile_width, tile_height: of every tile; those at the right and lower edges are padded.
        across: tiles in a row.
        offsets, lengths: of each tile's bytes in the file, row by row; length 0 where a tile is missing.
        decode: decodes a tile.
        can_paint_holes: whether a missing tile is simply a hole; else OpenSlide fills it from finer levels.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    across: int
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    decode: TileDecoder
    can_paint_holes: bool


class _Piece(NamedTuple):
    """The part of one tile that a rectangle needs, in pixels of the level. A tuple, because millions are made."""

    tile: int
    tile_x: int
    tile_y: int
    left: int
    top: int
    right: int
    bottom: int
    is_whole: bool


class TiffSlide(SlideBase):
    """A tiled TIFF: an Aperio SVS or a generic pyramid. `open_slide` takes it where OpenSlide finds the same levels.

    Tiles of which a rectangle needs only a part are kept, decoded, for the next rectangle; tiles that are wanted whole
    are decoded straight to their place.

    Args:
        path: the file.
        source: its bytes, if they come from elsewhere.

    Attributes:
        is_beyond_openslide: whether its tiles are compressed in a way that OpenSlide cannot decode.

    Raises:
        NotForUsError: if another reader should take it.
        NotBrightfieldError: if its pixels have one channel, or more than 8 bits.
        UnreadableSlideError: if it cannot be read, or contradicts itself.
    """

    reader = "tiff"

    def __init__(self, path: Path, source: ByteSource | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._source = source or FileSource(path)
        self._fallback: Slide | None = None
        self._cache = _TileCache(TILE_CACHE_BYTES)
        self._scratch = threading.local()
        self._tiles_decoded = self._regions_handed_over = self._bytes_read = 0
        try:
            directories = read_directories(self._source)
            vendor = _vendor(path)
            _check_stained(directories[0], self.name)
            pyramid = _pyramid(directories, vendor)
            self._pages = [_page(directory, vendor, number) for number, directory in enumerate(pyramid)]
            self.metadata = _metadata(pyramid[0], vendor)
            schemes = {directory.integer(tags.COMPRESSION, 1) for directory in pyramid}
            self.is_beyond_openslide = bool(schemes & BEYOND_OPENSLIDE)
        except TiffError as error:
            self._source.close()
            raise UnreadableSlideError(f"{self.name} cannot be opened as a slide: {error}") from error
        except (NotForUsError, SlideError, OSError):
            self._source.close()
            raise
        self.levels = _levels(self._pages)

    def read(
        self,
        level: int,
        x: int,
        y: int,
        width: int,
        height: int,
        *,
        allow_unscanned: bool = False,
        reduction: int = 1,
    ) -> NDArray[np.uint8]:
        """See `Slide.read`."""
        self._check_bounds(level, x, y, width, height, reduction)
        try:
            return self._read(level, x, y, width, height, allow_unscanned, reduction)
        except UnsureError as error:
            return self._hand_over(error, level, x, y, width, height, allow_unscanned, reduction)
        except BrokenTileError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {error}"
            ) from error

    def read_jpeg(self, level: int, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], bytes] | None:
        """See `Slide.read_jpeg`."""
        page = self._pages[level]
        size = (page.tile_width, page.tile_height)
        if (width, height) != size or x % width or y % height or not isinstance(page.decode, JpegTiles):
            return None
        self._check_bounds(level, x, y, width, height)
        index = y // height * page.across + x // width
        if page.lengths[index] == 0:
            return None
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        try:
            data = self._decode(level, index, pixels)
            return pixels, page.decode.whole(data, width, height)
        except UnsureError:
            return None
        except BrokenTileError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {error}"
            ) from error

    @property
    def counts(self) -> ReadCounts:
        """See `Slide.counts`."""
        return ReadCounts(self._tiles_decoded, self._bytes_read, self._regions_handed_over)

    def _read(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        page = self._pages[level]
        pieces = _pieces(page, x, y, width, height)
        # Blocks that are averaged must not straddle tiles.
        in_tiles = not any(edge % reduction for edge in (x, y, page.tile_width, page.tile_height))
        step = reduction if in_tiles else 1
        image = np.empty((height // step, width // step, 3), dtype=np.uint8)
        missing = 0
        for piece in pieces:
            place = image[
                (piece.top - y) // step : (piece.bottom - y) // step,
                (piece.left - x) // step : (piece.right - x) // step,
            ]
            if page.lengths[piece.tile] == 0:
                if not page.can_paint_holes:
                    raise UnsureError(f"tile {piece.tile} of level {level} is missing")
                missing += (piece.bottom - piece.top) * (piece.right - piece.left)
                place[:] = 255
                continue
            self._fill(place, level, piece, step)
        if missing and not allow_unscanned:
            raise UnscannedRegionError(
                f"{self.name}: {missing} pixels of the region x={x} y={y} of {width}x{height} pixels at level {level} "
                "were never scanned"
            )
        if step != reduction:
            return resample_area(image, height // reduction, width // reduction)
        return image

    def _fill(self, place: NDArray[np.uint8], level: int, piece: _Piece, step: int) -> None:
        """Put a piece of a tile, averaged by ``step``, where it belongs."""
        page = self._pages[level]
        key = (level, piece.tile)
        tile = self._cache.take(key) if piece.is_whole else self._cache.get(key)
        if tile is None:
            is_direct = piece.is_whole and step == 1 and place.flags.c_contiguous
            if is_direct and place.shape[:2] == (page.tile_height, page.tile_width):
                self._decode(level, piece.tile, place)
                return
            shape = (page.tile_height, page.tile_width, 3)
            tile = self._reusable(shape) if piece.is_whole else np.empty(shape, dtype=np.uint8)
            self._decode(level, piece.tile, tile)
            if not piece.is_whole:
                self._cache.put(key, tile)
        part = tile[
            piece.top - piece.tile_y : piece.bottom - piece.tile_y,
            piece.left - piece.tile_x : piece.right - piece.tile_x,
        ]
        if step == 1:
            place[:] = part
        else:
            resample_area(part, place.shape[0], place.shape[1], out=place)

    def _reusable(self, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """This thread's array for tiles that are not kept: its memory stays near the processor."""
        array: NDArray[np.uint8] | None = getattr(self._scratch, "array", None)
        if array is None or array.shape != shape:
            array = self._scratch.array = np.empty(shape, dtype=np.uint8)
        return array

    def _decode(self, level: int, index: int, out: NDArray[np.uint8]) -> bytes:
        """Decode a tile into ``out``; returns its bytes in the file."""
        page = self._pages[level]
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        where = f"tile {index % page.across},{index // page.across} of level {level}"
        if length > 2 * out.size + 65536:
            raise BrokenTileError(f"{where} claims {length} bytes for {out.size} bytes of pixels")
        try:
            data = self._source.read(offset, length)
        except (EOFError, OSError) as error:
            raise BrokenTileError(f"{where}: {error}") from error
        self._bytes_read += length
        try:
            page.decode(data, out)
        except BrokenTileError as error:
            raise BrokenTileError(f"{where}: {error}") from error
        self._tiles_decoded += 1
        return data

    def _hand_over(
        self,
        reason: UnsureError,
        level: int,
        x: int,
        y: int,
        width: int,
        height: int,
        allow_unscanned: bool,
        reduction: int,
    ) -> NDArray[np.uint8]:
        """Ask OpenSlide for a region."""
        self._regions_handed_over += 1
        try:
            if self._fallback is None:
                from wsicurate.slides.openslide import OpenSlideSlide

                fallback = OpenSlideSlide(self._path)
                if [(other.width, other.height) for other in fallback.levels] != [
                    (own.width, own.height) for own in self.levels
                ]:
                    raise UnreadableSlideError(f"OpenSlide finds other levels in {self.name}")
                self._fallback = fallback
        except UnreadableSlideError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {reason}; {error}"
            ) from error
        return self._fallback.read(level, x, y, width, height, allow_unscanned=allow_unscanned, reduction=reduction)

    def close(self) -> None:
        """See `Slide.close`."""
        self._source.close()
        self._cache.clear()
        if self._fallback is not None:
            self._fallback.close()
            self._fallback = None


class _TileCache:
    """Decoded tiles, the least recently used leaving first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> NDArray[np.uint8] | None:
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def take(self, key: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Get a tile that will not be wanted again."""
        with self._lock:
            tile = self._tiles.pop(key, None)
            if tile is not None:
                self._bytes -= tile.nbytes
            return tile

    def put(self, key: tuple[int, int], tile: NDArray[np.uint8]) -> None:
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._limit and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


def _pieces(page: _Page, x: int, y: int, width: int, height: int) -> list[_Piece]:
    """The parts of tiles that make up a rectangle, row by row."""
    tile_width, tile_height = page.tile_width, page.tile_height
    pieces = []
    for row in range(y // tile_height, -(-(y + height) // tile_height)):
        tile_y = row * tile_height
        top, bottom = max(y, tile_y), min(y + height, tile_y + tile_height)
        is_tall = top == tile_y and bottom == min(tile_y + tile_height, page.height)
        for column in range(x // tile_width, -(-(x + width) // tile_width)):
            tile_x = column * tile_width
            left, right = max(x, tile_x), min(x + width, tile_x + tile_width)
            is_whole = is_tall and left == tile_x and right == min(tile_x + tile_width, page.width)
            pieces.append(_Piece(row * page.across + column, tile_x, tile_y, left, top, right, bottom, is_whole))
    return pieces


def _vendor(path: Path) -> str:
    """The format as OpenSlide names it: ``aperio``, ``generic-tiff``, or empty where it knows none.

    Raises:
        NotForUsError: if it is anything else: other vendors' TIFFs mean their tiles in their own ways.
    """
    import openslide

    vendor = openslide.OpenSlide.detect_format(path) or ""
    if vendor not in ("aperio", "generic-tiff", ""):
        raise NotForUsError(f"OpenSlide takes it for {vendor}")
    return str(vendor)


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


def _pyramid(directories: Sequence[Directory], vendor: str) -> list[Directory]:
    """The directories that are levels, finest first, by OpenSlide's rules.

    Aperio: every tiled one, in the file's order. Others: the first, and every tiled one that says it is of reduced
    resolution, by width.
    """
    tiled = [directory for directory in directories if tags.TILE_WIDTH in directory]
    if not vendor or not tiled or tiled[0] is not directories[0]:
        raise NotForUsError("no vendor is known, or its first image has no tiles")
    if vendor == "aperio":
        return tiled
    levels = [
        directory
        for directory in tiled
        if directory.index == 0 or directory.integer(tags.NEW_SUBFILE_TYPE, 0) & _REDUCED
    ]
    return sorted(levels, key=lambda directory: -directory.integer(tags.IMAGE_WIDTH))


def _page(directory: Directory, vendor: str, number: int) -> _Page:
    """Check a level and make it ready.

    Raises:
        TiffError: if it contradicts itself.
        NotForUsError: if it is not surely decoded right here.
    """
    width, height = directory.integer(tags.IMAGE_WIDTH), directory.integer(tags.IMAGE_LENGTH)
    tile_width, tile_height = directory.integer(tags.TILE_WIDTH), directory.integer(tags.TILE_LENGTH)
    where = f"directory {directory.index}"
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise TiffError(f"{where} claims {width}x{height} pixels")
    if not (1 <= tile_width <= MAX_TILE_PX and 1 <= tile_height <= MAX_TILE_PX):
        raise TiffError(f"{where} claims tiles of {tile_width}x{tile_height} pixels, more than {MAX_TILE_PX} a side")
    across, down = -(-width // tile_width), -(-height // tile_height)
    found = directory.count(tags.TILE_OFFSETS), directory.count(tags.TILE_BYTE_COUNTS)
    if found != (across * down, across * down):
        raise TiffError(
            f"{where} has {found[0]} tile offsets and {found[1]} lengths for {across}x{down} tiles of "
            f"{tile_width}x{tile_height} pixels over {width}x{height}"
        )
    bits = directory.integers(tags.BITS_PER_SAMPLE).tolist()
    planes = {
        tags.SAMPLES_PER_PIXEL: (directory.integer(tags.SAMPLES_PER_PIXEL, 1), 3),
        tags.PLANAR_CONFIGURATION: (directory.integer(tags.PLANAR_CONFIGURATION, _CONTIGUOUS), _CONTIGUOUS),
        tags.ORIENTATION: (directory.integer(tags.ORIENTATION, 1), 1),
        tags.FILL_ORDER: (directory.integer(tags.FILL_ORDER, 1), 1),
        tags.SAMPLE_FORMAT: (directory.integer(tags.SAMPLE_FORMAT, 1), 1),
        tags.IMAGE_DEPTH: (directory.integer(tags.IMAGE_DEPTH, 1), 1),
        tags.EXTRA_SAMPLES: (directory.count(tags.EXTRA_SAMPLES), 0),
    }
    unusual = {tag: value for tag, (value, usual) in planes.items() if value != usual}
    if bits != [8, 8, 8] or unusual:
        raise NotForUsError(f"{where} has {bits} bits, and {unusual}")
    decode = tile_decoder(
        directory.integer(tags.COMPRESSION, 1),
        directory.integer(tags.PHOTOMETRIC),
        predictor=directory.integer(tags.PREDICTOR, 1),
        jpeg_tables=directory.raw(tags.JPEG_TABLES),
    )
    if decode is None:
        raise NotForUsError(
            f"{where} has compression {directory.integer(tags.COMPRESSION, 1)} of photometric interpretation "
            f"{directory.integer(tags.PHOTOMETRIC)}"
        )
    return _Page(
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


def _levels(pages: Sequence[_Page]) -> tuple[Level, ...]:
    """Levels with the downsamples that OpenSlide computes: the mean of both axes' ratios."""
    full = pages[0]
    return tuple(
        Level(
            page.width,
            page.height,
            1.0 if page is full else (full.height / page.height + full.width / page.width) / 2,
            (page.tile_width, page.tile_height),
        )
        for page in pages
    )


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
