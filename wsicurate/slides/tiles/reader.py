"""Slides made of compressed tiles whose places in the file are known: read tile by tile, over ranges of bytes.

What TIFF and DICOM have in common. Tiles of which a rectangle needs only a part are kept, decoded, for the next
rectangle; tiles that are wanted whole are decoded straight to their place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnreadableRegionError, UnreadableSlideError, UnscannedRegionError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import ReadCounts, SlideBase, SlideMetadata
from wsicurate.slides.tiles.cache import TileCache
from wsicurate.slides.tiles.decoding import BrokenTileError, UndecodedError, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles
from wsicurate.slides.tiles.pages import Page, Piece, levels_of, pieces_of
from wsicurate.slides.tiles.source import ByteSource

if TYPE_CHECKING:
    from wsicurate.slides.openslide import OpenSlideSlide


#: Decoded tiles that one open slide keeps, bytes. A row of 34 tiles of 512 px and its neighbours fit.
TILE_CACHE_BYTES = 64 * 1024 * 1024


class TiledSlide(SlideBase):
    """A slide over pages of compressed tiles.

    Args:
        path: the file to open.
        sources: its bytes; several where a level lies in several files.
        pages: its levels, finest first.
        metadata: what the file says of itself.
        distrust: why OpenSlide must not be asked for what cannot be decoded here; empty where it may be.

    Reads are safe in threads.
    """

    reader = "tiled"

    def __init__(
        self,
        path: Path,
        sources: Sequence[ByteSource],
        pages: Sequence[Page],
        metadata: SlideMetadata,
        *,
        distrust: str = "",
    ) -> None:
        self.name = str(path)
        self.levels = levels_of(pages)
        self.metadata = metadata
        self._path = path
        self._sources = list(sources)
        self._pages = list(pages)
        self._distrust = distrust
        self._fallback: OpenSlideSlide | None = None
        self._fallback_lock = threading.Lock()
        self._cache = TileCache(TILE_CACHE_BYTES)
        self._scratch = threading.local()
        self._tiles_decoded = self._regions_handed_over = self._bytes_read = 0

    def _read_within(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        """See `SlideBase._read_within`: blocks are averaged tile by tile."""
        try:
            return self._assemble(level, x, y, width, height, allow_unscanned, reduction)
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

    def _assemble(
        self, level: int, x: int, y: int, width: int, height: int, allow_unscanned: bool, reduction: int
    ) -> NDArray[np.uint8]:
        """The rectangle from its tiles.

        Raises:
            UnsureError: if OpenSlide is to be asked.
            BrokenTileError: if a tile is damaged.
            UnscannedRegionError: if a tile is missing, unless ``allow_unscanned``.
        """
        page = self._pages[level]
        pieces = pieces_of(page, x, y, width, height)
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

    def _fill(self, place: NDArray[np.uint8], level: int, piece: Piece, step: int) -> None:
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
        length = int(page.lengths[index])
        where = f"tile {index % page.across},{index // page.across} of level {level}"
        if length > 2 * out.size + 65536:
            raise BrokenTileError(f"{where} claims {length} bytes for {out.size} bytes of pixels")
        try:
            data = self._bytes_of(page, index)
        except (EOFError, OSError, BrokenTileError) as error:
            raise BrokenTileError(f"{where}: {error}") from error
        self._bytes_read += len(data)
        try:
            page.decode(data, out)
        except BrokenTileError as error:
            raise type(error)(f"{where}: {error}") from error
        self._tiles_decoded += 1
        return data

    def _bytes_of(self, page: Page, index: int) -> bytes:
        """A tile's compressed bytes.

        Raises:
            BrokenTileError: if they are not where the file says they are.
            EOFError: if the file ends before them.
            OSError: if they cannot be read.
        """
        source = self._sources[0 if page.files is None else int(page.files[index])]
        return source.read(int(page.offsets[index]), int(page.lengths[index]))

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
            fallback = self._openslide()
        except UnreadableSlideError as error:
            raise UnreadableRegionError(
                f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                f"cannot be decoded: {reason}; {error}"
            ) from error
        try:
            return fallback.read(level, x, y, width, height, allow_unscanned=allow_unscanned, reduction=reduction)
        except UnscannedRegionError:
            raise
        except UnreadableRegionError as error:
            if isinstance(reason, UndecodedError):  # damaged, as both decoders say
                raise UnreadableRegionError(
                    f"{self.name}: the region x={x} y={y} of {width}x{height} pixels at level {level} "
                    f"cannot be decoded: {reason}"
                ) from error
            raise

    def _openslide(self) -> OpenSlideSlide:
        """The slide as OpenSlide reads it, opened once.

        Raises:
            UnreadableSlideError: if it cannot be opened, is another slide, or is not to be trusted with this file.
        """
        if self._distrust:
            raise UnreadableSlideError(f"OpenSlide is not asked, because {self._distrust}")
        with self._fallback_lock:
            if self._fallback is None:
                from wsicurate.slides.openslide import OpenSlideSlide  # takes a tenth of a second, and is rarely wanted

                fallback = OpenSlideSlide(self._path)
                sizes = [(level.width, level.height) for level in fallback.levels]
                if sizes != [(level.width, level.height) for level in self.levels]:
                    fallback.close()
                    raise UnreadableSlideError(f"OpenSlide finds other levels in {self.name}")
                self._fallback = fallback
            return self._fallback

    def drop_tiles(self) -> None:
        """Forget the tiles that are kept: what is read next is decoded, and counted, anew."""
        self._cache.clear()

    def associated_image(self, name: str) -> NDArray[np.uint8] | None:
        """A picture that the file keeps beside the pyramid: see `OpenSlideSlide.associated_image`."""
        if self._distrust:
            return None
        try:
            from wsicurate.slides.openslide import OpenSlideSlide

            with OpenSlideSlide(self._path) as openslide:
                return openslide.associated_image(name)
        except UnreadableSlideError:
            return None

    def close(self) -> None:
        """See `Slide.close`."""
        for source in self._sources:
            source.close()
        self._cache.clear()
        with self._fallback_lock:
            if self._fallback is not None:
                self._fallback.close()
                self._fallback = None
