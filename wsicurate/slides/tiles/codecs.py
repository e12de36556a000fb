"""The compression schemes of TIFFs -> decoders of tiles; those without loss, WebP and JPEG XL are decoded here.

What is said to be in a tile is checked before a decoder sees it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import in_words
from wsicurate.slides.tiles.decoding import BrokenTileError, TileDecoder, UndecodedError, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles
from wsicurate.slides.tiles.jpeg2000 import Jpeg2000Tiles

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
