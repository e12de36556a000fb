"""Where each frame of an instance lies in its file (PS3.5 A.4: offset tables, items).

Pixel data are never read to find a frame, but for the headers of their items.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.slides.dicom import tags
from wsicurate.slides.dicom.elements import UNDEFINED, Window, read_header
from wsicurate.slides.dicom.instances import Instance
from wsicurate.slides.tiles.decoding import BrokenTileError
from wsicurate.slides.tiles.pages import Page
from wsicurate.slides.tiles.source import ByteSource

#: Frames of a level.
MAX_FRAMES = 1 << 24


class RefusedError(Exception):
    """A slide that no reader would read surely right; the message says why."""


@dataclass(frozen=True)
class EncapsulatedPage(Page):
    """A level of compressed frames; offsets are those of their first items, lengths include all their items."""


#: Where frames begin in their file, and their lengths, bytes: both int64, (n,).
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def find_frames(instance: Instance, where: str) -> Spans:
    """Where each frame begins in its file, and how long it is; encapsulated ones with their items' headers."""
    count = instance.number(tags.FRAMES, 1)
    if not 1 <= count <= MAX_FRAMES:
        raise RefusedError(f"{where} claims {count} frames")
    source, pixels = instance.source, instance.pixels
    if instance.text(tags.SYNTAX) == tags.NATIVE:
        size = instance.number(tags.COLUMNS) * instance.number(tags.ROWS) * 3
        if pixels.length == UNDEFINED or pixels.length < size * count:
            raise RefusedError(f"{where} holds {pixels.length} bytes of pixels for {count} frames of {size}")
        return pixels.offset + size * np.arange(count, dtype=np.int64), np.full(count, size, dtype=np.int64)
    if pixels.length != UNDEFINED:
        raise RefusedError(f"{where} is compressed, and its pixel data are not encapsulated")
    try:
        tag, table_length = struct.unpack("<II", source.read(pixels.offset, 8))
        first = pixels.offset + 8 + table_length
        if tag != _swapped(tags.ITEM) or first > source.size:
            raise RefusedError(f"{where} has pixel data without an offset table")
        found = _extended_table(instance, count, first) or _basic_table(
            source, pixels.offset + 8, table_length, count, first
        )
        return found or _scanned(source, first, count, where)
    except EOFError as error:
        raise RefusedError(f"{where} ends within its pixel data: {error}") from error
    finally:
        source.close()


def _extended_table(instance: Instance, count: int, first: int) -> Spans | None:
    """What the extended offset table says, or None where there is none that fits the number of frames."""
    if set(instance.tables) != {tags.OFFSETS, tags.LENGTHS}:
        return None
    columns = []
    for tag in (tags.OFFSETS, tags.LENGTHS):
        element = instance.tables[tag]
        if element.length != 8 * count:
            return None
        columns.append(np.frombuffer(instance.source.read(element.offset, element.length), dtype="<u8"))
    if any(int(column.max()) > instance.source.size for column in columns):
        return None
    offsets, lengths = (column.astype(np.int64) for column in columns)
    return (first + offsets, 8 + lengths + lengths % 2) if (np.diff(offsets) > 0).all() else None


def _basic_table(source: ByteSource, at: int, length: int, count: int, first: int) -> Spans | None:
    """What the basic offset table says; None where it is empty, or has overflown, as beyond 4 GiB."""
    if length != 4 * count:
        return None
    offsets = np.frombuffer(source.read(at, length), dtype="<u4").astype(np.int64)
    if offsets[0] != 0 or not (np.diff(offsets) > 0).all() or first + int(offsets[-1]) + 8 > source.size:
        return None
    end = first + int(offsets[-1])
    window = Window(source)
    # The last frame's pieces follow each other up to the end.
    while (element := read_header(window, end)).tag == tags.ITEM and element.length != UNDEFINED:
        end = element.offset + element.length
    return first + offsets, np.append(np.diff(offsets), end - first - int(offsets[-1]))


def _scanned(source: ByteSource, first: int, count: int, where: str) -> Spans:
    """Frames found by walking the items; those behind a damaged place cannot be read, and cost their own regions.

    Where there are as many items as frames, each is one. Else what begins as a codestream does begins a frame, and an
    empty item is a frame that is missing.
    """
    items: list[tuple[int, int]] = []
    frames: list[tuple[int, int]] = []
    offset, is_whole = first, False
    while offset + 8 <= source.size:
        head = source.read(offset, min(10, source.size - offset))  # not through a window: frames are far apart
        tag, length = struct.unpack_from("<II", head)
        if tag == _swapped(tags.SEQUENCE_END):
            is_whole = True
            break
        end = offset + 8 + length
        if tag != _swapped(tags.ITEM) or end > source.size:
            break
        begins = length == 0 or head[8:] in (b"\xff\xd8", b"\xff\x4f")
        items.append((offset, end))
        if begins or not frames:
            frames.append((offset, end))
        else:
            frames[-1] = (frames[-1][0], end)
        if len(items) > MAX_FRAMES:
            raise RefusedError(f"{where} has more than {MAX_FRAMES} pieces of frames")
        offset = end
    found = items if len(items) == count or len(items) == len(frames) else frames
    if is_whole and (len(found) < count or (found is frames and len(found) != count)):
        raise RefusedError(f"{where} holds {len(found)} frames and claims {count}: their places are not known")
    found = found[:count] + [(source.size, source.size + 1)] * (count - len(found))
    starts, ends = np.array(found, dtype=np.int64).T
    spans = ends - starts
    spans[spans == 8] = 0
    return starts, spans


def _swapped(tag: int) -> int:
    """A tag as its two little-endian halves read as one number."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def codestream_of_frame(data: bytes) -> bytes:
    """The codestream in the items that fill ``data``.

    Raises:
        BrokenTileError: if they do not: the frame does not lie where the offset table says.
    """
    parts, position = [], 0
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<II", data, position)
        if tag != _swapped(tags.ITEM) or position + 8 + length > len(data):
            break
        parts.append(data[position + 8 : position + 8 + length])
        position += 8 + length
    if position != len(data):
        raise BrokenTileError("the frame does not lie where the offset table says")
    return parts[0] if len(parts) == 1 else b"".join(parts)
