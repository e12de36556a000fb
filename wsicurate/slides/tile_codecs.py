"""Compressed tiles -> RGB. What is said to be in a tile is checked before a decoder sees it.

A decoder that warns has guessed pixels: its warnings are errors here. What these decoders are not sure to decode as
OpenSlide would is `UnsureError`, and somebody else's to read.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsicurate.slides.dicom import ycbcr_to_rgb

# TIFF compression schemes by number.
NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE = 1, 5, 7, 8, 32946
JPEG2000_YCBCR, JPEG2000_RGB, WEBP, JPEG_XL = 33003, 33005, 50001, 50002

#: Schemes that OpenSlide 4 does not decode.
BEYOND_OPENSLIDE = frozenset({WEBP, JPEG_XL})

# Photometric interpretations by number.
RGB, YCBCR = 2, 6

#: Larger tiles are not read here. Scanners write tiles of 240 to 1,024 pixels.
MAX_TILE_PX = 4096

#: OpenSlide rounds each of these once, where libjpeg multiplies rounded factors. Found by comparing all 65,536 pairs.
_CHROMA = np.arange(256) - 128
_OPENSLIDE_GREEN = (
    np.rint(-0.34414 * 65536 * _CHROMA).astype(np.int32),
    np.rint(-0.71414 * 65536 * _CHROMA).astype(np.int32) + 32768,
)

#: Scans of a progressive JPEG; encoders write about ten. Each costs a pass over the whole tile.
_MAX_SCANS = 64


class UnsureError(Exception):
    """It is well formed as far as was looked, but not something that is surely decoded right here."""


class BrokenTileError(ValueError):
    """The tile's data is damaged, or is not what the file says it is."""


#: Decodes a tile's bytes into an array, uint8, (h, w, 3), C order.
TileDecoder = Callable[[bytes, NDArray[np.uint8]], None]


def tile_decoder(
    compression: int, photometric: int, *, predictor: int = 1, jpeg_tables: bytes = b""
) -> TileDecoder | None:
    """The decoder of 8-bit, three-channel tiles of a scheme.

    Args:
        compression: TIFF's number of the scheme.
        photometric: TIFF's number of the colour space.
        predictor: 1 or 2 (differences along rows), for schemes without loss.
        jpeg_tables: quantisation and Huffman tables that all tiles share, as tag 347 has them.

    Returns:
        A function of (data, out), which raises `BrokenTileError` or `UnsureError`; None where there is no decoder.
    """
    if compression == JPEG and photometric in (RGB, YCBCR):
        if jpeg_tables and not (jpeg_tables[:2] == b"\xff\xd8" and jpeg_tables[-2:] == b"\xff\xd9"):
            return None
        return JpegTiles(jpeg_tables[2:-2], is_ycbcr=photometric == YCBCR)
    if compression in (JPEG2000_YCBCR, JPEG2000_RGB):
        return partial(decode_jpeg2000, is_ycbcr=compression == JPEG2000_YCBCR)
    if photometric != RGB:
        return None
    lossless = {NONE: _stored, LZW: _lzw, DEFLATE: _deflate, OLD_DEFLATE: _deflate}.get(compression)
    if lossless is not None and predictor in (1, 2):
        return partial(_decode_lossless, unpack=lossless, has_differences=predictor == 2)
    if compression == WEBP and predictor == 1:
        return decode_webp
    if compression == JPEG_XL and predictor == 1:
        return decode_jpegxl
    return None


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG says before its first scan.

    Attributes:
        width, height: pixels.
        components: identifiers, one per component.
        is_progressive: whether it comes in several scans.
        has_jfif: whether it carries a JFIF marker, which means YCbCr.
        adobe_transform: 0 (RGB) or 1 (YCbCr) of its Adobe marker, or None.
        colour_segments: (start, end) of its JFIF and Adobe segments.
        scan: where its first scan begins.
    """

    width: int
    height: int
    components: bytes
    is_progressive: bool
    has_jfif: bool
    adobe_transform: int | None
    colour_segments: tuple[tuple[int, int], ...]
    scan: int

    @property
    def looks_ycbcr(self) -> bool:
        """What libjpeg takes it for (jdapimin.c, `default_decompress_parms`)."""
        if self.has_jfif:
            return True
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return self.components != b"RGB"


def read_jpeg_frame(data: bytes) -> JpegFrame:
    """Walk a JPEG's markers up to its first scan.

    Raises:
        BrokenTileError: if it is no JPEG or ends before its first scan.
        UnsureError: if it is neither baseline nor progressive with 8 bits.
    """
    if data[:2] != b"\xff\xd8":
        raise BrokenTileError("it does not begin as a JPEG does")
    position, end = 2, len(data) - 4
    frame: tuple[int, int, bytes, bool] | None = None
    has_jfif, adobe = False, None
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
            return JpegFrame(*frame, has_jfif, adobe, tuple(segments), position)
        if marker in (0xC0, 0xC1, 0xC2):
            body = data[position + 4 : stop]
            if frame is not None or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                raise BrokenTileError("a JPEG frame that contradicts itself")
            if body[0] != 8:
                raise UnsureError(f"JPEG of {body[0]} bits")
            frame = (body[3] << 8 | body[4], body[1] << 8 | body[2], body[6::3], marker == 0xC2)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise UnsureError(f"JPEG of process {marker - 0xC0}")
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


class JpegTiles:
    """Decodes the JPEG tiles of one level by libjpeg-turbo.

    TIFF's photometric tag says what the components are, as libtiff, OpenSlide and Aperio have it: of an old file that
    says RGB they are red, green and blue. libjpeg would guess otherwise, so the guess is overruled by a marker.

    Args:
        tables: the shared tables, without start and end of image.
        is_ycbcr: what the photometric tag says.
    """

    def __init__(self, tables: bytes, *, is_ycbcr: bool) -> None:
        self._tables = tables
        self._is_ycbcr = is_ycbcr
        self._sound: tuple[bytes, int, int] | None = None

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        """Decode into ``out``."""
        jpeg = self.whole(data, out.shape[1], out.shape[0])
        try:
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False, buffer=out, strict=True)
        except ValueError as error:
            raise BrokenTileError(f"it does not decode as JPEG: {error}") from error

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
        if frame.looks_ycbcr == self._is_ycbcr:
            if not frame.is_progressive:
                self._sound = data[: frame.scan + 4], width, height
            return b"\xff\xd8" + self._tables + data[2:] if self._tables else data
        kept, position = [b"\xff\xd8", _adobe_segment(int(self._is_ycbcr)), self._tables], 2
        for start, stop in frame.colour_segments:
            kept.append(data[position:start])
            position = stop
        return b"".join([*kept, data[position:]])


def decode_jpeg2000(data: bytes, out: NDArray[np.uint8], *, is_ycbcr: bool) -> None:
    """Decode a JPEG 2000 codestream of three 8-bit components of full size, by OpenJPEG."""
    height, width = out.shape[:2]
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 51:
        raise BrokenTileError("it does not begin as a JPEG 2000 codestream does")
    right, bottom, left, top = (int.from_bytes(data[place : place + 4], "big") for place in (8, 12, 16, 20))
    if (right - left, bottom - top) != (width, height):
        raise BrokenTileError(f"its JPEG 2000 is {right - left}x{bottom - top} pixels, not {width}x{height}")
    part_width, part_height = (int.from_bytes(data[place : place + 4], "big") for place in (24, 28))
    if part_width < 32 or part_height < 32 or int.from_bytes(data[40:42], "big") != 3:
        raise UnsureError("JPEG 2000 of tiny parts, or not of three components")
    if data[42:51] != b"\x07\x01\x01" * 3:
        raise UnsureError("JPEG 2000 of components that differ in size or depth")
    with _listening() as said:
        try:
            pixels = imagecodecs.jpeg2k_decode(data, numthreads=1, out=out, verbose=_SAY_WARNINGS)
        except (ValueError, RuntimeError) as error:
            raise BrokenTileError(f"it does not decode as JPEG 2000: {'; '.join(said) or error}") from error
    if said:
        raise BrokenTileError(f"it does not decode as JPEG 2000 without a warning: {'; '.join(said)}")
    if is_ycbcr:
        out[:] = ycbcr_to_rgb(pixels, _OPENSLIDE_GREEN)


class _Listener(logging.Filter):
    """Keeps what imagecodecs logs while this thread listens: OpenJPEG's warnings come out nowhere else.

    It is one of the logger's filters only while some thread listens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.local()
        self.lock = threading.Lock()
        self.listening = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Note a message instead of printing it."""
        said: list[str] | None = getattr(self.thread, "said", None)
        if said is None:
            return True
        if len(said) < 3:
            said.append(record.getMessage()[:200])
        return False


_listener = _Listener()
_logger = logging.getLogger("imagecodecs")

#: imagecodecs' ``verbose``: errors and warnings are logged, progress is not.
_SAY_WARNINGS = 2


@contextmanager
def _listening() -> Iterator[list[str]]:
    said: list[str] = []
    _listener.thread.said = said
    with _listener.lock:
        _listener.listening += 1
        _logger.addFilter(_listener)  # once, however often it is added
    try:
        yield said
    finally:
        _listener.thread.said = None
        with _listener.lock:
            _listener.listening -= 1
            if not _listener.listening:
                _logger.removeFilter(_listener)


def _decode_lossless(
    data: bytes, out: NDArray[np.uint8], *, unpack: Callable[[bytes, int], bytes], has_differences: bool
) -> None:
    raw = unpack(data, out.size)
    if len(raw) != out.size:
        raise BrokenTileError(f"it holds {len(raw)} bytes of pixels, not {out.size}")
    pixels = np.frombuffer(raw, dtype=np.uint8).reshape(out.shape)
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
        raise BrokenTileError(f"it does not decode as LZW: {error}") from error


def _deflate(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size)
        if len(raw) == size and not stream.eof:
            stream.decompress(stream.unconsumed_tail, 1)  # reads the checksum
    except zlib.error as error:
        raise BrokenTileError(f"it does not decode as Deflate: {error}") from error
    if not stream.eof:
        raise BrokenTileError("its Deflate stream is cut short, or holds more than the tile")
    return raw


def decode_webp(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode WebP without transparency, by libwebp."""
    if _webp_size(data) != (out.shape[1], out.shape[0]):
        raise BrokenTileError(f"its WebP is not of {out.shape[1]}x{out.shape[0]} pixels")
    try:
        imagecodecs.webp_decode(data, hasalpha=False, out=out)
    except (ValueError, RuntimeError) as error:
        raise BrokenTileError(f"it does not decode as WebP: {error}") from error


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
        raise BrokenTileError(f"it does not decode as JPEG XL: {error}") from error
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
