"""JPEG 2000 tiles -> RGB, by OpenJPEG. Their headers are read before a decoder sees them."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.tiles.colours import OPENSLIDE_GREEN, ycbcr_to_rgb
from wsicurate.slides.tiles.decoding import BrokenTileError, UnsureError

#: Marker that begins a part of a tile of JPEG 2000.
_TILE_PART = 0xFF90

#: imagecodecs' ``verbose``: errors and warnings are logged, progress is not.
_SAY_WARNINGS = 2


@dataclass(frozen=True)
class Jpeg2000Frame:
    """What a JPEG 2000 codestream says before its first tile (ISO/IEC 15444-1, annex A).

    Attributes:
        width, height: pixels.
        parts: width and height of its own tiles, pixels.
        components: (bits, horizontal step, vertical step) of each; negative bits are signed.
        is_transformed: whether its first three components are transformed within the codestream, from RGB, and the
            decoder undoes it: what comes out is RGB.
        tiles: where its first tile part begins.
    """

    width: int
    height: int
    parts: tuple[int, int]
    components: tuple[tuple[int, int, int], ...]
    is_transformed: bool
    tiles: int

    @property
    def is_subsampled(self) -> bool:
        """Whether its second and third component are coarser than its first: luma and chroma."""
        return len(self.components) == 3 and self.components[1][1:] == self.components[2][1:] > self.components[0][1:]


def read_jpeg2000_frame(data: bytes) -> Jpeg2000Frame:
    """Walk a codestream's main header.

    Raises:
        BrokenTileError: if it is no codestream, or ends before its first tile.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 51:
        raise BrokenTileError("it does not begin as a JPEG 2000 codestream does")
    length, _, right, bottom, left, top, part_width, part_height, _, _, count = struct.unpack_from(">HH8IH", data, 4)
    if length != 38 + 3 * count or len(data) < 42 + 3 * count or not count:
        raise BrokenTileError("its JPEG 2000 header contradicts itself")
    components = []
    for place in range(42, 42 + 3 * count, 3):
        depth, step_x, step_y = data[place : place + 3]
        bits = (depth & 0x7F) + 1
        components.append((-bits if depth & 0x80 else bits, step_x, step_y))
    position, is_transformed = 4 + length, None
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _TILE_PART or marker < 0xFF00 or length < 2:
            break
        if marker == 0xFF52 and length >= 12 and position + 9 <= len(data):  # COD: coding style, progression, layers
            is_transformed = data[position + 8] == 1
        position += 2 + length
    if is_transformed is None:
        raise BrokenTileError("its JPEG 2000 header ends before its coding style")
    return Jpeg2000Frame(
        right - left, bottom - top, (part_width, part_height), tuple(components), is_transformed, position
    )


def codestream_of(data: bytes) -> bytes:
    """The codestream of a JPEG 2000 tile that may be wrapped as a JP2 file, as Bio-Formats writes them.

    Raises:
        BrokenTileError: if the boxes hold none.
        UnsureError: if they give the components another meaning: a palette, or channels in another order.
    """
    if data[4:8] != b"jP  ":
        return data
    position, stop = 0, len(data)
    while position + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1 and position + 16 <= stop:
            (length,), head = struct.unpack_from(">Q", data, position + 8), 16
        end = stop if length == 0 else position + length
        if end > stop or end < position + head:
            break
        if kind == b"jp2c":
            return data[position + head : end]
        position += head
        if kind != b"jp2h":  # a box of boxes: walked through
            position = end
        if kind in (b"pclr", b"cmap", b"cdef"):
            raise UnsureError("JPEG 2000 with a palette or named channels")
    raise BrokenTileError("its JP2 boxes hold no JPEG 2000 codestream")


@dataclass(frozen=True)
class Jpeg2000Tiles:
    """Decodes the JPEG 2000 tiles of one level, three 8-bit components of full size, by OpenJPEG.

    Attributes:
        is_ycbcr: what the file says of components that the codestream does not transform itself, or None where it
            says nothing. Where it does, they come out as RGB whatever the file says.
        is_disputed: whether the compression's number says YCbCr and the photometric tag RGB.
    """

    is_ycbcr: bool | None
    is_disputed: bool = False

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode a codestream, or the JP2 file around it, into ``out``.

        Raises:
            BrokenTileError: if it is damaged, or its components may be anything.
            UnsureError: if it is of a kind that is not decoded here.
        """
        height, width = out.shape[:2]
        data = codestream_of(data)
        frame = read_jpeg2000_frame(data)
        if (frame.width, frame.height) != (width, height):
            raise BrokenTileError(f"its JPEG 2000 is {frame.width}x{frame.height} pixels, not {width}x{height}")
        if min(frame.parts) < 32 or len(frame.components) != 3:
            raise UnsureError("JPEG 2000 of tiny parts, or not of three components")
        if self.is_ycbcr is None and not frame.is_transformed:
            raise BrokenTileError("its JPEG 2000 is not transformed where the file says that it is: RGB or YCbCr?")
        if frame.is_subsampled and not self.is_ycbcr:
            raise BrokenTileError("its JPEG 2000 has subsampled chroma, so it is YCbCr where the file says RGB")
        if frame.components != ((8, 1, 1),) * 3:
            raise UnsureError("JPEG 2000 of components that differ in size or depth")
        if not logging.getLogger("imagecodecs").isEnabledFor(logging.WARNING) and not _is_complete(data, frame.tiles):
            raise BrokenTileError("its JPEG 2000 codestream is cut short")  # the decoder itself raises nothing
        with _listening() as said:
            try:
                pixels = imagecodecs.jpeg2k_decode(data, numthreads=1, out=out, verbose=_SAY_WARNINGS)
            except (ValueError, RuntimeError) as error:
                raise BrokenTileError(f"it does not decode as JPEG 2000: {'; '.join(said) or error}") from error
        if said:
            raise BrokenTileError(f"it does not decode as JPEG 2000 without a warning: {'; '.join(said)}")
        if self.is_ycbcr and not frame.is_transformed:
            out[:] = ycbcr_to_rgb(pixels, OPENSLIDE_GREEN)

    def says_itself(self, data: bytes) -> bool:
        """Whether a codestream transforms its components itself, from RGB."""
        frame = read_jpeg2000_frame(codestream_of(data))
        if frame.components != ((8, 1, 1),) * 3:
            raise UnsureError("JPEG 2000 of components that differ in size or depth")
        return frame.is_transformed

    def with_tag(self, *, is_ycbcr: bool) -> Jpeg2000Tiles:
        """The decoder if the file said otherwise."""
        return Jpeg2000Tiles(is_ycbcr)


def _is_complete(data: bytes, position: int) -> bool:
    """Whether a codestream's tile parts, from ``position`` on, are as long as they say, up to its end."""
    while position + 12 <= len(data) and int.from_bytes(data[position : position + 2], "big") == _TILE_PART:
        (length,) = struct.unpack_from(">I", data, position + 6)
        if length == 0:  # the last part, up to the end
            return data.rstrip(b"\0").endswith(b"\xff\xd9")
        position += length
    return data[position : position + 2] == b"\xff\xd9"


class _Listener(logging.Filter):
    """Keeps what imagecodecs logs while a thread listens: OpenJPEG's warnings come out nowhere else.

    The filter is on the logger only while somebody listens, and changes nothing for other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._listening = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Note a message instead of printing it."""
        said: list[str] | None = getattr(self._thread, "said", None)
        if said is None:
            return True
        if len(said) < 3:
            said.append(record.getMessage()[:200])
        return False

    @contextmanager
    def __call__(self) -> Iterator[list[str]]:
        """Listen within a ``with`` block; gives the list of what is said."""
        logger = logging.getLogger("imagecodecs")
        with self._lock:
            self._listening += 1
            if self._listening == 1:
                logger.addFilter(self)
        said: list[str] = []
        self._thread.said = said
        try:
            yield said
        finally:
            self._thread.said = None
            with self._lock:
                self._listening -= 1
                if self._listening == 0:
                    logger.removeFilter(self)


_listening = _Listener()
