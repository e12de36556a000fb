"""The directories of a TIFF or BigTIFF, read with nothing believed before it is checked.

TIFF 6.0 (Adobe, 1992) and BigTIFF (https://www.awaresystems.be/imaging/tiff/bigtiff.html). Sizes, counts, offsets and
the chain of directories are compared with the file and with fixed limits before anything is allocated or read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.tiles.source import ByteSource

#: Directories in one file; a z-stack of many channels has thousands.
MAX_DIRECTORIES = 65_535

#: Entries in one directory, and in all of them; the richest formats have about a hundred in one.
MAX_ENTRIES, MAX_ENTRIES_IN_ALL = 65_535, 1 << 18

#: Bytes of one value: the offsets of four million tiles.
MAX_VALUE_BYTES = 32 * 1024 * 1024

# Tags by number.
NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, IMAGE_DESCRIPTION, MAKE, STRIP_OFFSETS, ORIENTATION, SAMPLES_PER_PIXEL = 266, 270, 271, 273, 274, 277
X_RESOLUTION, Y_RESOLUTION, PLANAR_CONFIGURATION, RESOLUTION_UNIT, SOFTWARE, PREDICTOR = 282, 283, 284, 296, 305, 317
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339
COLOR_MAP, JPEG_TABLES, YCBCR_SUBSAMPLING, ICC_PROFILE, IMAGE_DEPTH = 320, 347, 530, 34675, 32997

#: Byte length and numpy name of each type of value that is used here, by its number.
_ASCII, _RATIONAL = 2, 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}


class TiffError(ValueError):
    """The file is not a TIFF, or contradicts itself; the message says where."""


@dataclass(frozen=True)
class Entry:
    """One field of a directory.

    Attributes:
        kind: number of its type.
        count: how many values.
        offset: where in the file they lie.
    """

    kind: int
    count: int
    offset: int


class Directory:
    """One image's description. Values are read when they are asked for."""

    def __init__(self, source: ByteSource, order: str, index: int, entries: Mapping[int, Entry]) -> None:
        self.index = index
        self._source = source
        self._order = order
        self._entries = entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def integers(self, tag: int) -> NDArray[np.int64]:
        """The whole numbers of a field, int64; empty where there is none.

        Raises:
            TiffError: if they are of another type, too many, beyond the file's end, or beyond 2^63.
        """
        entry = self._entries.get(tag)
        if entry is None:
            return np.empty(0, dtype=np.int64)
        if entry.kind not in _INTEGERS:
            raise TiffError(f"tag {tag} of directory {self.index} is of type {entry.kind}, not whole numbers")
        values = np.frombuffer(self._value(tag, entry), dtype=self._order + _INTEGERS[entry.kind])
        if values.dtype.itemsize == 8 and values.size and int(values.max()) >= 2**63:
            raise TiffError(f"tag {tag} of directory {self.index} holds {int(values.max())}")
        return values.astype(np.int64)

    def integer(self, tag: int, default: int | None = None) -> int:
        """The first value of a field.

        Raises:
            TiffError: as `integers` does; if it is missing and has no default.
        """
        entry = self._entries.get(tag)
        if entry is None or entry.count == 0:
            if default is None:
                raise TiffError(f"directory {self.index} lacks tag {tag}")
            return default
        return int(self.integers(tag)[0])

    def count(self, tag: int) -> int:
        """How many values a field has; 0 where there is none."""
        entry = self._entries.get(tag)
        return 0 if entry is None else entry.count

    def rational(self, tag: int) -> float | None:
        """A fraction, or None where there is none or its denominator is 0."""
        entry = self._entries.get(tag)
        if entry is None or entry.kind != _RATIONAL or entry.count != 1:
            return None
        above, below = struct.unpack(self._order + "II", self._value(tag, entry))
        return float(above) / below if below else None

    def raw(self, tag: int) -> bytes:
        """A field's bytes as they lie; empty where there is none."""
        entry = self._entries.get(tag)
        return b"" if entry is None else self._value(tag, entry)

    def text(self, tag: int) -> str | None:
        """A text up to its first NUL, or None; bytes that are no UTF-8 are read as Latin-1."""
        entry = self._entries.get(tag)
        if entry is None or entry.kind != _ASCII:
            return None
        data = self._value(tag, entry).split(b"\0", 1)[0]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def _value(self, tag: int, entry: Entry) -> bytes:
        length = entry.count * _SIZES[entry.kind]
        if length > MAX_VALUE_BYTES:
            raise TiffError(f"tag {tag} of directory {self.index} claims {length} bytes")
        try:
            return self._source.read(entry.offset, length)
        except EOFError:
            raise TiffError(
                f"tag {tag} of directory {self.index} claims {length} bytes at {entry.offset}, beyond the end of the "
                f"file at {self._source.size}"
            ) from None


def read_directories(source: ByteSource) -> list[Directory]:
    """All directories of the chain, in order; at least one.

    Raises:
        TiffError: as `walk_directories` does.
    """
    return list(walk_directories(source))


def walk_directories(source: ByteSource) -> Iterator[Directory]:
    """Follow the chain of directories.

    Args:
        source: the file.

    Yields:
        Each in order; at least one.

    Raises:
        TiffError: if it is no TIFF, a directory lies beyond the file's end or is linked twice, or a limit is passed.
    """
    try:
        yield from _walk(source)
    except EOFError as error:
        raise TiffError(str(error)) from None


def _walk(source: ByteSource) -> Iterator[Directory]:
    head = source.read(0, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        raise TiffError("it does not begin as a TIFF does")
    (version,) = struct.unpack_from(order + "H", head, 2)
    if version == 42:
        layout = _Layout(order, "H", "I", 12, 4)
        (position,) = struct.unpack_from(order + "I", head, 4)
    elif version == 43 and head[4:8] == struct.pack(order + "HH", 8, 0):
        layout = _Layout(order, "Q", "Q", 20, 8)
        (position,) = struct.unpack(order + "Q", source.read(8, 8))
    else:
        raise TiffError(f"its version is {version}, not 42 or 43")
    seen: set[int] = set()
    entries_in_all = 0
    if not position:
        raise TiffError("it has no directory")
    while position:
        index = len(seen)
        if position in seen:
            raise TiffError(f"directory {index} is linked twice")
        if index == MAX_DIRECTORIES:
            raise TiffError(f"it has more than {MAX_DIRECTORIES} directories")
        seen.add(position)
        entries, position = _read_entries(source, layout, position, index)
        entries_in_all += len(entries)
        if entries_in_all > MAX_ENTRIES_IN_ALL:
            raise TiffError(f"its directories have more than {MAX_ENTRIES_IN_ALL} entries")
        yield Directory(source, order, index, entries)


@dataclass(frozen=True)
class _Layout:
    """How numbers lie in this kind of TIFF: byte order, counts, offsets, bytes per entry and per inline value."""

    order: str
    count: str
    offset: str
    entry_bytes: int
    inline_bytes: int


def _read_entries(source: ByteSource, layout: _Layout, position: int, index: int) -> tuple[dict[int, Entry], int]:
    """The entries of the directory at ``position``, and where the next one is."""
    number = struct.Struct(layout.order + layout.count)
    link = struct.Struct(layout.order + layout.offset)
    (count,) = number.unpack(source.read(position, number.size))
    if count > MAX_ENTRIES:
        raise TiffError(f"directory {index} claims {count} entries")
    table = source.read(position + number.size, count * layout.entry_bytes + link.size)
    entries: dict[int, Entry] = {}
    field = struct.Struct(layout.order + "HH" + layout.offset)
    for place in range(0, count * layout.entry_bytes, layout.entry_bytes):
        tag, kind, values = field.unpack_from(table, place)
        if kind not in _SIZES:
            continue  # of a type that is not defined: passed over, as the specification says
        if tag in entries:
            continue  # the first one counts, as for libtiff and tifffile
        offset = position + number.size + place + field.size
        if values * _SIZES[kind] > layout.inline_bytes:
            (offset,) = link.unpack_from(table, place + field.size)
        entries[tag] = Entry(kind, values, offset)
    return entries, link.unpack_from(table, count * layout.entry_bytes)[0]
