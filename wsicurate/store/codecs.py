"""Chunk codecs: an array's values <-> the bytes of one chunk, as `docs/format.md` specifies them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, StoreFormatError, in_words
from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg

Values = NDArray[Any]

#: Name under which the JPEG codec is registered with Zarr.
JPEG_CODEC_NAME = "wsicurate.jpeg"

#: Speed on single patches hardly depends on the level; 3 is Zstandard's own default.
ZSTD_LEVEL = 3


class ChunkCodec(Protocol):
    """A chain of Zarr v3 codecs that ends in ``crc32c``."""

    def encode(self, values: Values) -> bytes:
        """Bytes of a chunk, checksum included."""
        ...

    def decode(self, data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> Values:
        """Values of a chunk.

        Raises:
            CorruptStoreError: if the checksum fails or the data does not decode to ``shape`` and ``dtype``.
        """
        ...

    def decode_into(self, data: bytes, out: Values) -> None:
        """Values of a chunk into memory that is there: contiguous, of its shape and type; raises as `decode`."""
        ...

    def to_json(self) -> list[dict[str, Any]]:
        """The chain as it stands in ``zarr.json``."""
        ...


def append_checksum(data: bytes) -> bytes:
    """Append the CRC-32C of ``data``, little-endian: the codec ``crc32c``."""
    return data + struct.pack("<I", google_crc32c.value(data))


def verify_checksum(data: bytes) -> bytes:
    """Strip and verify what `append_checksum` appended.

    Raises:
        CorruptStoreError: if it does not match.
    """
    payload, stored = data[:-4], data[-4:]
    if len(stored) < 4 or google_crc32c.value(payload) != int.from_bytes(stored, "little"):
        raise CorruptStoreError(f"the CRC-32C checksum of a chunk of {len(data)} bytes does not match")
    return payload


@dataclass(frozen=True)
class JpegCodec:
    """``[wsicurate.jpeg, crc32c]``: one RGB image per chunk, 4:4:4."""

    quality: int

    def encode(self, values: Values) -> bytes:
        """See `ChunkCodec.encode`. ``values`` is uint8, (h, w, 3), with leading axes of length 1 allowed."""
        return append_checksum(encode_jpeg(values.reshape(values.shape[-3:]), self.quality))

    def decode(self, data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> Values:
        """See `ChunkCodec.decode`."""
        values = np.empty(tuple(shape), dtype=np.uint8)
        self.decode_into(data, values.reshape(values.shape[-3:]))
        return values

    def decode_into(self, data: bytes, out: Values) -> None:
        """See `ChunkCodec.decode_into`. ``out`` is uint8, (h, w, 3)."""
        payload = verify_checksum(data)
        try:
            pixels = decode_jpeg(payload, out)
        except ValueError as error:
            raise CorruptStoreError(f"a chunk does not decode as JPEG of {out.shape}: {in_words(error)}") from error
        if pixels.shape != out.shape:
            raise CorruptStoreError(f"a chunk holds an image of {pixels.shape}, not {out.shape}")

    def to_json(self) -> list[dict[str, Any]]:
        """See `ChunkCodec.to_json`."""
        return [
            {"name": JPEG_CODEC_NAME, "configuration": {"quality": self.quality, "subsampling": "4:4:4"}},
            {"name": "crc32c"},
        ]


@dataclass(frozen=True)
class ZstdCodec:
    """``[bytes, zstd, crc32c]``: little-endian values in C order, compressed without loss."""

    level: int = ZSTD_LEVEL

    def encode(self, values: Values) -> bytes:
        """See `ChunkCodec.encode`."""
        import zstandard

        little_endian = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return append_checksum(zstandard.ZstdCompressor(level=self.level).compress(little_endian.tobytes()))

    def decode(self, data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> Values:
        """See `ChunkCodec.decode`."""
        import zstandard

        payload, size = verify_checksum(data), math.prod(shape) * dtype.itemsize
        try:
            held = zstandard.frame_content_size(payload)
            if held not in (-1, size):  # before anything is allocated; -1: the frame does not say
                raise CorruptStoreError(f"a chunk holds {held} bytes, not {tuple(shape)} of {dtype}")
            raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=size) if size else b""
        except zstandard.ZstdError as error:
            raise CorruptStoreError(f"a chunk does not decode as Zstandard: {in_words(error)}") from error
        if len(raw) != size:
            raise CorruptStoreError(f"a chunk holds {len(raw)} bytes, not {tuple(shape)} of {dtype}")
        return np.frombuffer(raw, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)

    def decode_into(self, data: bytes, out: Values) -> None:
        """See `ChunkCodec.decode_into`."""
        out[...] = self.decode(data, out.shape, out.dtype)

    def to_json(self) -> list[dict[str, Any]]:
        """See `ChunkCodec.to_json`."""
        return [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": self.level, "checksum": False}},
            {"name": "crc32c"},
        ]


def codec_from_json(chain: Sequence[dict[str, Any]]) -> ChunkCodec:
    """The codec of a chain read from ``zarr.json``.

    Raises:
        StoreFormatError: if it is none of ours.
    """
    names = [codec.get("name") for codec in chain]
    if names == [JPEG_CODEC_NAME, "crc32c"]:
        return JpegCodec(int(chain[0]["configuration"]["quality"]))
    if names == ["bytes", "zstd", "crc32c"]:
        return ZstdCodec(int(chain[1]["configuration"]["level"]))
    raise StoreFormatError(f"the codecs {names} are not among those of the store's format")
