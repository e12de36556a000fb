"""Compressed tiles -> RGB. What is said to be in a tile is checked before a decoder sees it.

A decoder that warns has guessed pixels: its warnings are errors here. What these decoders are not sure to decode as
OpenSlide would is `UnsureError`, and somebody else's to read.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsicurate.errors import in_words

# TIFF compression schemes by number. JPEG 2000 has four: Aperio's two, Bio-Formats' own, and Adobe's.
NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE = 1, 5, 7, 8, 32946
JPEG2000_YCBCR, JPEG2000_LOSSY, JPEG2000_RGB, JPEG2000 = 33003, 33004, 33005, 34712
WEBP, JPEG_XL = 50001, 50002

#: Schemes that OpenSlide 4 decodes in no TIFF.
BEYOND_OPENSLIDE = frozenset({JPEG2000_LOSSY, JPEG2000, WEBP, JPEG_XL})

#: Schemes that OpenSlide 4 decodes in Aperio's files alone.
APERIO_ONLY = frozenset({JPEG2000_YCBCR, JPEG2000_RGB})

# Photometric interpretations by number.
RGB, YCBCR = 2, 6

#: Larger tiles are OpenSlide's to read. Scanners write tiles of 240 to 1,024 pixels.
MAX_TILE_PX = 4096

# libjpeg's fixed-point YCbCr -> RGB (jdcolor.c of the IJG and ITU-T T.871), 16 fractional bits.
_CHROMA = np.arange(256, dtype=np.int32) - 128
_RED_OF_CR = (91881 * _CHROMA + 32768) >> 16
_BLUE_OF_CB = (116130 * _CHROMA + 32768) >> 16
_LIBJPEG_GREEN = (-22554 * _CHROMA, -46802 * _CHROMA + 32768)

#: OpenSlide rounds each of these once, where libjpeg multiplies rounded factors. Found by comparing all 65,536 pairs.
_OPENSLIDE_GREEN = (
    np.rint(-0.34414 * 65536 * _CHROMA).astype(np.int32),
    np.rint(-0.71414 * 65536 * _CHROMA).astype(np.int32) + 32768,
)

#: Marker that begins a part of a tile of JPEG 2000.
_TILE_PART = 0xFF90

#: Scans of a progressive JPEG; encoders write about ten. Each costs a pass over the whole tile.
_MAX_SCANS = 64


class UnsureError(Exception):
    """It is well formed as far as was looked, but not something that is surely decoded right here."""


class BrokenTileError(ValueError):
    """The tile's data is damaged, or is not what the file says it is."""


class UndecodedError(BrokenTileError, UnsureError):
    """A decoder gave up on it: it is damaged, unless another decoder takes it without complaint."""


#: Decodes a tile's bytes into an array, uint8, (h, w, 3), C order.
TileDecoder = Callable[[bytes, NDArray[np.uint8]], None]


def tile_decoder(
    compression: int,
    photometric: int,
    *,
    predictor: int = 1,
    jpeg_tables: bytes = b"",
    is_aperio: bool = True,
    samples: int = 3,
) -> TileDecoder | None:
    """The decoder of 8-bit tiles of a TIFF's scheme.

    Args:
        compression: TIFF's number of the scheme.
        photometric: TIFF's number of the colour space.
        predictor: 1 or 2 (differences along rows), for schemes without loss.
        jpeg_tables: quantisation and Huffman tables that all tiles share, as tag 347 has them.
        is_aperio: whether the scheme's number means what Aperio means by it; Bio-Formats and libvips write JPEG 2000
            under Aperio's numbers and say the colour space in the photometric tag.
        samples: channels of a pixel; those beyond the third are read over.

    Returns:
        A function of (data, out), which raises `BrokenTileError` or `UnsureError`; None where there is no decoder.
    """
    lossless = {NONE: _stored, LZW: _lzw, DEFLATE: _deflate, OLD_DEFLATE: _deflate}.get(compression)
    if lossless is not None:
        if photometric != RGB or predictor not in (1, 2) or samples < 3:
            return None
        return partial(_decode_lossless, unpack=lossless, has_differences=predictor == 2, samples=samples)
    if samples != 3:
        return None
    if compression == JPEG and photometric in (RGB, YCBCR):
        if jpeg_tables and not (jpeg_tables[:2] == b"\xff\xd8" and jpeg_tables[-2:] == b"\xff\xd9"):
            return None
        return JpegTiles(jpeg_tables[2:-2], is_ycbcr=photometric == YCBCR)
    if compression in (JPEG2000_YCBCR, JPEG2000_RGB) and is_aperio:
        return Jpeg2000Tiles(compression == JPEG2000_YCBCR)
    if compression in (JPEG2000_YCBCR, JPEG2000_LOSSY, JPEG2000_RGB, JPEG2000) and photometric in (RGB, YCBCR):
        return Jpeg2000Tiles(photometric == YCBCR, is_disputed=compression == JPEG2000_YCBCR and photometric == RGB)
    if photometric != RGB or predictor != 1:
        return None
    if compression == WEBP:
        return decode_webp
    if compression == JPEG_XL:
        return decode_jpegxl
    return None


GreenTables = tuple[NDArray[np.int32], NDArray[np.int32]]


def ycbcr_to_rgb(pixels: NDArray[np.uint8], green: GreenTables = _LIBJPEG_GREEN) -> NDArray[np.uint8]:
    """Convert full-range YCbCr to RGB, rounding as libjpeg does.

    Args:
        pixels: uint8, (..., 3): Y, Cb, Cr.
        green: what each Cb and each Cr adds to green, in 1/65536, half a level included; others round otherwise.

    Returns:
        uint8, same shape: R, G, B.
    """
    return np.clip(_unclipped(pixels, green), 0, 255).astype(np.uint8)


def _unclipped(pixels: NDArray[np.uint8], green: GreenTables) -> NDArray[np.int32]:
    luma, blue, red = (pixels[..., channel] for channel in range(3))
    luma = luma.astype(np.int32)
    converted = np.empty(pixels.shape, dtype=np.int32)
    converted[..., 0] = luma + _RED_OF_CR[red]
    converted[..., 1] = luma + ((green[0][blue] + green[1][red]) >> 16)
    converted[..., 2] = luma + _BLUE_OF_CB[blue]
    return converted


def pixels_are_ycbcr(pixels: NDArray[np.uint8]) -> bool | None:
    """What three channels of a stained section are, where file and codestream contradict each other.

    As YCbCr, a picture in red, green and blue has colours that do not exist: background would be brighter than white. A
    picture in luma and chroma has none, and its chroma varies much less than its luma.

    Args:
        pixels: uint8, (n, 3) or (h, w, 3); of several places, with and without tissue.

    Returns:
        True for Y, Cb, Cr; False for R, G, B; None where the pixels do not tell.
    """
    flat = pixels.reshape(-1, 3)
    colours = _unclipped(flat, _LIBJPEG_GREEN)
    impossible = float(((colours < -_GAMUT_MARGIN) | (colours > 255 + _GAMUT_MARGIN)).any(axis=1).mean())
    if impossible > _MANY_IMPOSSIBLE:
        return False
    spread = flat.std(axis=0)
    if impossible < _FEW_IMPOSSIBLE and max(spread[1], spread[2]) < _CHROMA_SPREAD * spread[0]:
        return True
    return None


#: Levels by which compression may leave the gamut; shares of pixels outside it; chroma's spread, of luma's.
_GAMUT_MARGIN, _MANY_IMPOSSIBLE, _FEW_IMPOSSIBLE, _CHROMA_SPREAD = 16, 0.2, 0.001, 0.6


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
            out[:] = ycbcr_to_rgb(pixels, _OPENSLIDE_GREEN)

    def says_itself(self, data: bytes) -> bool:
        """Whether a codestream transforms its components itself, from RGB."""
        frame = read_jpeg2000_frame(codestream_of(data))
        if frame.components != ((8, 1, 1),) * 3:
            raise UnsureError("JPEG 2000 of components that differ in size or depth")
        return frame.is_transformed

    def with_tag(self, *, is_ycbcr: bool) -> Jpeg2000Tiles:
        """The decoder if the file said otherwise."""
        return Jpeg2000Tiles(is_ycbcr)


class ColouredDecoder(Protocol):
    """A decoder of tiles of which some may not say themselves what their components are.

    Attributes:
        is_ycbcr: what the file says of those.
    """

    @property
    def is_ycbcr(self) -> bool | None:
        """See above."""
        ...

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode a tile."""
        ...

    def says_itself(self, data: bytes) -> bool:
        """Whether a tile says what its components are."""
        ...

    def with_tag(self, *, is_ycbcr: bool) -> ColouredDecoder:
        """The decoder if the file said otherwise."""
        ...


def what_pixels_say(decode: ColouredDecoder, tiles: Iterable[bytes], shape: tuple[int, int]) -> tuple[int, bool | None]:
    """What the components of tiles that do not say it themselves are, by `pixels_are_ycbcr`.

    Args:
        decode: their decoder.
        tiles: compressed bytes of some, from different places; damaged ones prove nothing.
        shape: height and width of each, pixels.

    Returns:
        How many pixels were looked at, and what they say.

    Raises:
        UnsureError: if the tiles are of a kind that is not decoded here.
    """
    raw = decode.with_tag(is_ycbcr=False)
    out = np.empty((*shape, 3), dtype=np.uint8)
    step = max(1, round((shape[0] * shape[1] / _MIN_LOOKED_AT) ** 0.5))
    found = [np.empty((0, 3), dtype=np.uint8)]
    for data in tiles:
        try:
            if not decode.says_itself(data):
                raw(data, out)
                found.append(out[::step, ::step].reshape(-1, 3))
        except BrokenTileError:
            continue
    pixels = np.concatenate(found)
    return len(pixels), pixels_are_ycbcr(pixels) if len(pixels) >= _MIN_LOOKED_AT // 2 else None


#: Fewer pixels than half of this prove nothing; about as many are looked at of each tile.
_MIN_LOOKED_AT = 4096


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

#: imagecodecs' ``verbose``: errors and warnings are logged, progress is not.
_SAY_WARNINGS = 2


def _decode_lossless(
    data: bytes,
    out: NDArray[np.uint8],
    *,
    unpack: Callable[[bytes, int], bytes],
    has_differences: bool,
    samples: int,
) -> None:
    size = out.size // 3 * samples
    raw = unpack(data, size)
    if len(raw) != size:
        raise BrokenTileError(f"it holds {len(raw)} bytes of pixels, not {size}")
    pixels = np.frombuffer(raw, dtype=np.uint8).reshape(*out.shape[:2], samples)[..., :3]
    if has_differences:
        np.cumsum(pixels, axis=1, dtype=np.uint8, out=out)
    else:
        out[:] = pixels


def _stored(data: bytes, size: int) -> bytes:
    return data[:size]


def _lzw(data: bytes, size: int) -> bytes:
    try:
        return bytes(imagecodecs.lzw_decode(data, out=size))
    except (ValueError, RuntimeError) as error:
        raise BrokenTileError(f"it does not decode as LZW: {in_words(error)}") from error


def _deflate(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size)
        if len(raw) == size and not stream.eof:
            stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum
    except zlib.error as error:
        raise BrokenTileError(f"it does not decode as Deflate: {in_words(error)}") from error
    if not stream.eof:
        kind = UndecodedError if len(raw) == size else BrokenTileError
        raise kind("its Deflate stream is cut short, or holds more than the tile")
    return raw


def decode_webp(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode WebP without transparency, by libwebp."""
    if _webp_size(data) != (out.shape[1], out.shape[0]):
        raise BrokenTileError(f"its WebP is not of {out.shape[1]}x{out.shape[0]} pixels")
    try:
        imagecodecs.webp_decode(data, hasalpha=False, out=out)
    except (ValueError, RuntimeError) as error:
        raise BrokenTileError(f"it does not decode as WebP: {in_words(error)}") from error


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a simple WebP file (RFC 9649): one image, lossy or lossless."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        raise BrokenTileError("it does not begin as WebP does")
    kind, body = data[12:16], data[20:]
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return (body[6] | body[7] << 8) & 0x3FFF, (body[8] | body[9] << 8) & 0x3FFF
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise UnsureError("WebP with transparency, animation or metadata")


def decode_jpegxl(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode a bare JPEG XL codestream of three 8-bit channels, by libjxl."""
    if _jpegxl_size(data) != (out.shape[1], out.shape[0]):
        raise BrokenTileError(f"its JPEG XL is not of {out.shape[1]}x{out.shape[0]} pixels")
    try:
        pixels = imagecodecs.jpegxl_decode(data, numthreads=1)
    except (ValueError, RuntimeError) as error:
        raise BrokenTileError(f"it does not decode as JPEG XL: {in_words(error)}") from error
    if pixels.shape != out.shape or pixels.dtype != np.uint8:
        raise UnsureError(f"JPEG XL of {pixels.shape} {pixels.dtype}")
    out[:] = pixels


def _jpegxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a bare codestream (ISO/IEC 18181-1, SizeHeader)."""
    if data[:2] != b"\xff\x0a":
        raise UnsureError("JPEG XL in a container, or none at all")
    bits, used = int.from_bytes(data[2:16], "little"), 0

    def take(count: int) -> int:
        nonlocal used
        value = bits >> used & (1 << count) - 1
        used += count
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * above // below, height
