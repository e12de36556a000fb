"""JPEG tiles -> RGB, by libjpeg-turbo. Their markers are read before a decoder sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsicurate.errors import in_words
from wsicurate.slides.tiles.decoding import BrokenTileError, UndecodedError, UnsureError

#: Scans of a progressive JPEG; encoders write about ten. Each costs a pass over the whole tile.
_MAX_SCANS = 64


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG says before its first scan.

    Attributes:
        width, height: pixels.
        components: identifiers, one per component.
        sampling: horizontal and vertical sampling factors of each component, four bits each.
        is_progressive: whether it comes in several scans.
        has_jfif: whether it carries a JFIF marker, which means YCbCr.
        adobe_transform: 0 (RGB) or 1 (YCbCr) of its Adobe marker, or None.
        colour_segments: (start, end) of its JFIF and Adobe segments.
        scan: where its first scan begins.
        restart_interval: MCUs between restart markers; 0 where there are none.
    """

    width: int
    height: int
    components: bytes
    sampling: bytes
    is_progressive: bool
    has_jfif: bool
    adobe_transform: int | None
    colour_segments: tuple[tuple[int, int], ...]
    scan: int
    restart_interval: int

    @property
    def looks_ycbcr(self) -> bool:
        """What libjpeg takes it for (jdapimin.c, `default_decompress_parms`)."""
        if self.has_jfif:
            return True
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return self.components != b"RGB"

    @property
    def proves_ycbcr(self) -> bool | None:
        """What its own markers prove: True for YCbCr, False for RGB; None where they are silent or disagree.

        JFIF knows no other colour space than YCbCr, green is never subsampled, Adobe's marker names the space, and
        components are called R, G, B only where they are. Files say otherwise of such data: Bio-Formats writes
        ordinary JPEGs and tags them RGB (ome/bioformats 3856, libdicom 80).
        """
        if len(self.components) != 3:
            return None
        evaluations = set()
        if self.has_jfif:
            evaluations.add(True)
        if self.sampling[1] == self.sampling[2]:
            luma, chroma = self.sampling[0], self.sampling[1]
            if luma >> 4 > chroma >> 4 or luma & 15 > chroma & 15:
                evaluations.add(True)
        if self.adobe_transform in (0, 1):
            evaluations.add(self.adobe_transform == 1)
        if self.components == b"RGB":
            evaluations.add(False)
        return evaluations.pop() if len(evaluations) == 1 else None


def read_jpeg_frame(data: bytes) -> JpegFrame:
    """Walk a JPEG's markers up to its first scan.

    Raises:
        BrokenTileError: if it is no JPEG or ends before its first scan.
        UnsureError: if it is neither baseline nor progressive with 8 bits.
    """
    if data[:2] != b"\xff\xd8":
        raise BrokenTileError("it does not begin as a JPEG does")
    position, end = 2, len(data) - 4
    frame: tuple[int, int, bytes, bytes, bool] | None = None
    has_jfif, adobe, restart_interval = False, None, 0
    segments: list[tuple[int, int]] = []
    while position <= end:
        if data[position] != 0xFF:
            raise BrokenTileError("bytes between its JPEG markers")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = data[position + 2] << 8 | data[position + 3]
        stop = position + 2 + length
        if length < 2 or stop > len(data):
            raise BrokenTileError("a JPEG marker reaches beyond its end")
        if marker == 0xDA:
            if frame is None:
                raise BrokenTileError("a JPEG scan without a frame")
            return JpegFrame(*frame, has_jfif, adobe, tuple(segments), position, restart_interval)
        if marker in (0xC0, 0xC1, 0xC2):
            body = data[position + 4 : stop]
            if frame is not None or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                raise BrokenTileError("a JPEG frame that contradicts itself")
            if body[0] != 8:
                raise UnsureError(f"JPEG of {body[0]} bits")
            frame = (body[3] << 8 | body[4], body[1] << 8 | body[2], body[6::3], body[7::3], marker == 0xC2)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise UnsureError(f"JPEG of process {marker - 0xC0}")
        elif marker == 0xDD and length == 4:
            restart_interval = data[position + 4] << 8 | data[position + 5]
        elif marker == 0xE0 and data[position + 4 : position + 9] == b"JFIF\0":
            has_jfif = True
            segments.append((position, stop))
        elif marker == 0xEE and length >= 14 and data[position + 4 : position + 9] == b"Adobe":
            adobe = data[position + 15]
            segments.append((position, stop))
        elif marker == 0xD8 or marker == 0xD9 or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            raise BrokenTileError("a JPEG marker out of place")
        position = stop
    raise BrokenTileError("it ends before its first JPEG scan")


def _adobe_segment(transform: int) -> bytes:
    """A marker that tells libjpeg the colour space: 0 is RGB, 1 is YCbCr."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def _without_colour_segments(tables: bytes) -> bytes:
    """Shared tables without JFIF and Adobe markers, which would speak for every tile."""
    kept, position = [], 0
    while position + 4 <= len(tables) and tables[position] == 0xFF:
        stop = position + 2 + (tables[position + 2] << 8 | tables[position + 3])
        if tables[position + 1] not in (0xE0, 0xEE):
            kept.append(tables[position:stop])
        position = stop
    return b"".join([*kept, tables[position:]])


class JpegTiles:
    """Decodes the JPEG tiles of one level by libjpeg-turbo.

    What the components are, each tile's own markers say where they prove it (`JpegFrame.proves_ycbcr`), else the
    file's tag: of an old Aperio file that says RGB they are red, green and blue, with nothing in the tiles that says
    so. libjpeg would guess otherwise, so the guess is overruled by a marker.

    Args:
        tables: the shared tables, without start and end of image.
        is_ycbcr: what the file's tag says.
    """

    is_ycbcr: bool | None

    def __init__(self, tables: bytes, *, is_ycbcr: bool) -> None:
        self._tables = _without_colour_segments(tables)
        self.is_ycbcr = is_ycbcr
        self._sound: tuple[bytes, int, int] | None = None

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode into ``out``."""
        jpeg = self.whole(data, out.shape[1], out.shape[0])
        try:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False, buffer=out, strict=True)
        except ValueError as error:
            # Rare sampling factors are beyond this decoder, not beyond OpenSlide, which is as strict with damage.
            raise UndecodedError(f"it does not decode as JPEG: {in_words(error)}") from error

    def says_itself(self, data: bytes) -> bool:
        """Whether a tile's own markers say what its components are."""
        return read_jpeg_frame(data).proves_ycbcr is not None

    def with_tag(self, *, is_ycbcr: bool) -> JpegTiles:
        """The decoder if the tag said otherwise."""
        return JpegTiles(self._tables, is_ycbcr=is_ycbcr)

    def contradicts(self, data: bytes) -> str:
        """How a tile's own markers contradict the file's tag, as a sentence; empty where they do not."""
        evaluation = read_jpeg_frame(data).proves_ycbcr
        if evaluation is None or evaluation == self.is_ycbcr:
            return ""
        space, tag = ("YCbCr", "RGB") if evaluation else ("RGB", "YCbCr")
        return f"the JPEG's own markers say {space} where the file says {tag}"

    def whole(self, data: bytes, width: int, height: int) -> bytes:
        """A tile as a JPEG that stands alone and is understood as the file means it.

        Raises:
            BrokenTileError: if it is no JPEG of ``width`` x ``height`` pixels and three components.
            UnsureError: if it is of a kind that is not decoded here.
        """
        # The tiles of a level mostly begin alike; what was found of one beginning holds for the next.
        sound = self._sound
        if sound is not None and sound[1:] == (width, height) and data.startswith(sound[0]):
            return b"\xff\xd8" + self._tables + data[2:] if self._tables else data
        frame = read_jpeg_frame(data)
        if len(frame.components) != 3:
            raise UnsureError(f"JPEG of {len(frame.components)} components")
        if (frame.width, frame.height) != (width, height):
            raise BrokenTileError(f"its JPEG is {frame.width}x{frame.height} pixels, not {width}x{height}")
        if frame.is_progressive and data.count(b"\xff\xda") > _MAX_SCANS:
            raise BrokenTileError(f"its JPEG has more than {_MAX_SCANS} scans")
        evaluation = frame.proves_ycbcr
        is_ycbcr = bool(self.is_ycbcr) if evaluation is None else evaluation
        if frame.looks_ycbcr == is_ycbcr:
            if not frame.is_progressive:
                self._sound = data[: frame.scan + 4], width, height
            return b"\xff\xd8" + self._tables + data[2:] if self._tables else data
        kept, position = [b"\xff\xd8", _adobe_segment(int(is_ycbcr)), self._tables], 2
        for start, stop in frame.colour_segments:
            kept.append(data[position:start])
            position = stop
        return b"".join([*kept, data[position:]])
