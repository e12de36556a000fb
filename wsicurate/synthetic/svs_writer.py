"""Writes Aperio-style SVS files tile by tile; any number of tiles may share the same bytes.

That sharing is why this is not left to a library: a slide of 100,000 x 100,000 pixels takes megabytes, and seconds.
The file is a BigTIFF (https://www.awaresystems.be/imaging/tiff/bigtiff.html): level 0, a thumbnail, the other levels,
as Aperio orders them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsicurate.pixels.jpeg import encode_jpeg

Compression = Literal["jpeg", "jpeg2000"]

#: TIFF compression schemes: new-style JPEG, and Aperio's JPEG 2000 of RGB.
_SCHEMES = {"jpeg": 7, "jpeg2000": 33005}

_SHORT, _LONG, _ASCII, _LONG8 = 3, 4, 2, 16
_FORMATS = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}

# Tags of TIFF 6.0, by number.
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 259, 262, 270
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES, _SUBSAMPLING = 322, 323, 324, 325, 530
_RGB, _YCBCR = 2, 6


@dataclass(frozen=True)
class TileEncoder:
    """Compresses tiles.

    Attributes:
        compression: ``jpeg`` (YCbCr, 4:2:0, as most scanners write) or ``jpeg2000``.
        quality: JPEG quality, or the PSNR in dB that JPEG 2000 aims at.
    """

    compression: Compression
    quality: int

    def __call__(self, tile: NDArray[np.uint8]) -> bytes:
        """Compress uint8 (h, w, 3) RGB."""
        if self.compression == "jpeg":
            return encode_jpeg(tile, self.quality, "420")
        return bytes(
            imagecodecs.jpeg2k_encode(np.ascontiguousarray(tile), level=self.quality, codecformat="j2k", numthreads=1)
        )


@dataclass
class TiledLevel:
    """A level being written: where each tile lies.

    Attributes:
        width, height: pixels.
        tile_px: edge of its tiles.
        offsets, lengths: uint64, (rows, columns): of each tile's bytes in the file; 0 until written.
    """

    width: int
    height: int
    tile_px: int
    offsets: NDArray[np.uint64] = field(init=False)
    lengths: NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        grid = (-(-self.height // self.tile_px), -(-self.width // self.tile_px))
        self.offsets = np.zeros(grid, dtype=np.uint64)
        self.lengths = np.zeros(grid, dtype=np.uint64)


class SvsWriter:
    """Writes one SVS file.

    Args:
        path: the file; it is replaced.
        encoder: compresses the tiles.
        mpp: µm per level-0 pixel, or None to leave it out.
        objective_power: magnification, or None to leave it out.
    """

    def __init__(self, path: Path, encoder: TileEncoder, *, mpp: float | None, objective_power: float | None) -> None:
        self._file: BinaryIO = path.open("wb")
        self._encoder = encoder
        self._mpp = mpp
        self._power = objective_power
        self._levels: list[TiledLevel] = []
        self._thumbnail: tuple[int, int, int, int] | None = None
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def add_level(self, width: int, height: int, tile_px: int) -> TiledLevel:
        """Begin a level; levels are added finest first."""
        level = TiledLevel(width, height, tile_px)
        self._levels.append(level)
        return level

    def append(self, data: bytes) -> tuple[int, int]:
        """Write compressed bytes; returns their offset and length, for `TiledLevel`."""
        offset = self._file.tell()
        self._file.write(data)
        return offset, len(data)

    def set_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """Add the picture that Aperio keeps beside the pyramid. uint8, (h, w, 3), RGB."""
        offset, length = self.append(encode_jpeg(thumbnail, 80, "420"))
        self._thumbnail = (thumbnail.shape[1], thumbnail.shape[0], offset, length)

    def close(self) -> None:
        """Write the directories and finish the file."""
        pages = [self._tiled_page(index) for index in range(len(self._levels))]
        if self._thumbnail is not None:
            pages.insert(1, self._thumbnail_page(self._thumbnail))
        link = 8
        for page in pages:
            link = self._write_directory(page, link)
        self._file.close()

    def _tiled_page(self, index: int) -> dict[int, tuple[int, bytes | list[int]]]:
        level, full = self._levels[index], self._levels[0]
        tiles = f"({level.tile_px}x{level.tile_px})"
        scheme = "JPEG/YCC" if self._encoder.compression == "jpeg" else "J2K/KDU"
        size = f"{full.width}x{full.height} [0,0 {full.width}x{full.height}] {tiles}"
        if index:
            size += f" -> {level.width}x{level.height}"
        return {
            **self._image_tags(level.width, level.height, _SCHEMES[self._encoder.compression]),
            _DESCRIPTION: (_ASCII, self._description(f"{size} {scheme} Q={self._encoder.quality}")),
            _TILE_WIDTH: (_LONG, [level.tile_px]),
            _TILE_LENGTH: (_LONG, [level.tile_px]),
            _TILE_OFFSETS: (_LONG8, level.offsets.ravel().tolist()),
            _TILE_BYTES: (_LONG8, level.lengths.ravel().tolist()),
        }

    def _thumbnail_page(self, thumbnail: tuple[int, int, int, int]) -> dict[int, tuple[int, bytes | list[int]]]:
        width, height, offset, length = thumbnail
        full = self._levels[0]
        return {
            **self._image_tags(width, height, _SCHEMES["jpeg"]),
            _DESCRIPTION: (_ASCII, self._description(f"{full.width}x{full.height} -> {width}x{height} - ")),
            _ROWS_PER_STRIP: (_LONG, [height]),
            _STRIP_OFFSETS: (_LONG8, [offset]),
            _STRIP_BYTES: (_LONG8, [length]),
        }

    def _image_tags(self, width: int, height: int, scheme: int) -> dict[int, tuple[int, bytes | list[int]]]:
        tags: dict[int, tuple[int, bytes | list[int]]] = {
            _WIDTH: (_LONG, [width]),
            _LENGTH: (_LONG, [height]),
            _BITS: (_SHORT, [8, 8, 8]),
            _COMPRESSION: (_SHORT, [scheme]),
            _PHOTOMETRIC: (_SHORT, [_YCBCR if scheme == _SCHEMES["jpeg"] else _RGB]),
            _SAMPLES: (_SHORT, [3]),
            _PLANAR: (_SHORT, [1]),
        }
        if scheme == _SCHEMES["jpeg"]:
            tags[_SUBSAMPLING] = (_SHORT, [2, 2])
        return tags

    def _description(self, size: str) -> bytes:
        fields = [f"Aperio Image Library v11.2.1 \r\n{size}"]
        if self._power is not None:
            fields.append(f"AppMag = {self._power:g}")
        if self._mpp is not None:
            fields.append(f"MPP = {self._mpp:.4f}")
        return "|".join(fields).encode("ascii") + b"\0"

    def _write_directory(self, tags: dict[int, tuple[int, bytes | list[int]]], link: int) -> int:
        """Write a directory and point ``link`` at it; returns where its own link to the next one stands."""
        entries = []
        for tag, (kind, values) in sorted(tags.items()):
            data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
            field_bytes = data.ljust(8, b"\0") if len(data) <= 8 else struct.pack("<Q", self.append(data)[0])
            entries.append(struct.pack("<HHQ", tag, kind, len(values)) + field_bytes)
        position = self._file.tell()
        self._file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
        next_link = self._file.tell() - 8
        self._file.seek(link)
        self._file.write(struct.pack("<Q", position))
        self._file.seek(0, 2)
        return next_link

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()
