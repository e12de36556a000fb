"""Data elements of a DICOM file in explicit VR little endian (PS3.5), with nothing believed before it is compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wsicurate.slides.base import DeclinedError
from wsicurate.slides.dicom import tags
from wsicurate.slides.tiles.source import ByteSource

#: Length of a value that ends with a delimiter.
UNDEFINED = 0xFFFFFFFF
_LONG_FORMS = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])

#: Values that are read; longer ones are passed over. Offset tables and colour profiles are read when they are needed.
_SHORT_BYTES = 4096

#: Bytes that all headers together may have; per-frame positions of 100,000 frames take 50 MB.
MAX_HEADER_BYTES = 1 << 28

_MAX_DEPTH = 16


@dataclass(frozen=True)
class Element:
    """A data element: where its value lies, and how long it is.

    Attributes:
        tag: group and element number.
        form: its VR.
        offset, length: of its value in the file; the length may be undefined.
    """

    tag: int
    form: bytes
    offset: int
    length: int


class Window:
    """Reads small pieces of a file in order without a system call for each."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._start, self._data = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes ``offset`` to ``offset + length``.

        Raises:
            EOFError: if the file ends before that.
        """
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            if length > 65536 or offset + length > self._source.size:
                return self._source.read(offset, length)
            self._start = offset
            self._data = self._source.read(offset, min(65536, self._source.size - offset))
            begin = 0
        return self._data[begin : begin + length]


def read_header(window: Window, offset: int) -> Element:
    """The element whose header begins at ``offset``; of an item or a delimiter, the VR is empty."""
    group, number, form, length = struct.unpack("<HH2sH", window.read(offset, 8))
    tag, head = group << 16 | number, 8
    if group == 0xFFFE:
        return Element(tag, b"", offset + 8, int.from_bytes(form, "little") | length << 16)
    if form in _LONG_FORMS:
        (length,) = struct.unpack("<I", window.read(offset + 8, 4))
        head = 12
    return Element(tag, form, offset + head, length)


def walk_elements(window: Window, offset: int, stop: int) -> Iterator[Element]:
    """The data elements from ``offset`` on, in explicit VR little endian; what lies within sequences is passed over.

    Raises:
        DeclinedError: if they contradict themselves.
        EOFError: if the file ends within one.
    """
    while offset + 8 <= stop:
        element = read_header(window, offset)
        yield element
        if element.tag == tags.PIXELS:
            return
        if element.length == UNDEFINED:
            offset, _ = skim(window, element)
        else:
            offset = element.offset + element.length


def skim(
    window: Window,
    sequence: Element,
    inside: frozenset[int] = frozenset(),
    wanted: frozenset[int] = frozenset(),
) -> tuple[int, list[Element]]:
    """Go through a sequence once, without recursion.

    Args:
        window: the file.
        sequence: the element.
        inside: sequences of a stated length that are gone into; others are jumped over.
        wanted: tags to collect.

    Returns:
        Where the sequence ends, and the wanted elements in order.

    Raises:
        DeclinedError: if it contradicts itself, or is nested too deeply or too long.
        EOFError: if the file ends within it.
    """
    found: list[Element] = []
    offset = sequence.offset
    ends = [None if sequence.length == UNDEFINED else offset + sequence.length]
    while ends:
        end = ends[-1]
        if end is not None and offset >= end:
            ends.pop()
            continue
        if len(ends) > _MAX_DEPTH or offset - sequence.offset > MAX_HEADER_BYTES:
            raise DeclinedError("a sequence in its header is nested too deeply, or too long")
        element = read_header(window, offset)
        offset = element.offset
        if element.tag in (tags.ITEM_END, tags.SEQUENCE_END):
            if end is not None:
                raise DeclinedError("a sequence in its header ends twice")
            ends.pop()
            continue
        if element.tag in wanted:
            found.append(element)
        is_open = element.length == UNDEFINED
        if is_open or element.tag == tags.ITEM or element.tag in inside:
            ends.append(None if is_open else offset + element.length)
        else:
            offset += element.length
    return offset, found


def short_value(window: Window, element: Element) -> bytes:
    """A short value; longer ones are cut off."""
    return window.read(element.offset, min(element.length, _SHORT_BYTES))


def text_value(values: Mapping[int, bytes], tag: int, index: int = 0) -> str:
    """One of the values of a text; empty where there is none."""
    parts = values.get(tag, b"").decode("latin-1").split("\\")
    return parts[index].strip(" \0") if index < len(parts) else ""
