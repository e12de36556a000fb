"""DICOM whole-slide images, decoded frame by frame: each frame by what its own codestream says of its colours.

OpenSlide obeys one tag per file. Files lie: Bio-Formats tags ordinary YCbCr JPEGs as RGB (libdicom 80), converters tag
JPEG 2000 as transformed where its codestream is not (openslide 772), or the other way round (wsidicomizer 158). Here a
frame's markers decide; where they prove nothing, the pixels of several frames may; else the tag does.

Headers are walked with nothing believed before it is compared with the file, and pixel data are never read to find a
frame. DICOM PS3.5 (encoding, offset tables), PS3.3 C.8.12 (whole-slide microscopy).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import NotBrightfieldError, UnreadableSlideError, in_words
from wsicurate.slides.base import DeclinedError, SlideMetadata, check_levels, fitting_levels
from wsicurate.slides.tiles.colours import what_pixels_say, ycbcr_to_rgb
from wsicurate.slides.tiles.decoding import MAX_TILE_PX, BrokenTileError, ColouredDecoder, UnsureError
from wsicurate.slides.tiles.jpeg import JpegTiles
from wsicurate.slides.tiles.jpeg2000 import Jpeg2000Tiles
from wsicurate.slides.tiles.pages import Page, levels_of, spread_tiles
from wsicurate.slides.tiles.reader import TiledSlide
from wsicurate.slides.tiles.source import ByteSource, FileSource, waiting_neighbours

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_NATIVE = "1.2.840.10008.1.2.1"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))  # the last three: HTJ2K

#: Transfer syntaxes whose elements are not in explicit VR little endian: implicit, deflated, big endian.
_NOT_EXPLICIT = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")

# Tags by number, as DICOM's dictionary names them.
_SYNTAX, _CLASS, _IMAGE_TYPE, _INSTANCE, _SERIES = 0x00020010, 0x00020002, 0x00080008, 0x00080018, 0x0020000E
_CONCATENATION, _IN_CONCATENATION, _OF_CONCATENATION = 0x00209161, 0x00209162, 0x00209163
_FRAME_OFFSET, _ORGANIZATION = 0x00209228, 0x00209311
_SAMPLES, _PHOTOMETRIC, _PLANAR, _FRAMES, _ROWS, _COLUMNS = (
    0x00280002,
    0x00280004,
    0x00280006,
    0x00280008,
    0x00280010,
    0x00280011,
)
_BITS_ALLOCATED, _BITS_STORED, _SIGNED = 0x00280100, 0x00280101, 0x00280103
_PIXEL_SPACING, _ICC_PROFILE, _LENS_POWER = 0x00280030, 0x00282000, 0x00480112
_TOTAL_COLUMNS, _TOTAL_ROWS, _FOCAL_PLANES = 0x00480006, 0x00480007, 0x00480303
_COLUMN_POSITION, _ROW_POSITION = 0x0048021E, 0x0048021F
_SHARED, _OPTICAL_PATHS, _PER_FRAME = 0x52009229, 0x00480105, 0x52009230
_OFFSETS, _LENGTHS, _PIXELS = 0x7FE00001, 0x7FE00002, 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: Kinds of images beside the pyramid.
_BESIDE = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")

#: Types of the elements that are used.
_FORMS = {
    **dict.fromkeys([_SYNTAX, _CLASS, _INSTANCE, _SERIES, _CONCATENATION], b"UI"),
    **dict.fromkeys([_IMAGE_TYPE, _ORGANIZATION, _PHOTOMETRIC], b"CS"),
    **dict.fromkeys([_IN_CONCATENATION, _OF_CONCATENATION, _SAMPLES, _PLANAR, _ROWS, _COLUMNS], b"US"),
    **dict.fromkeys([_BITS_ALLOCATED, _BITS_STORED, _SIGNED], b"US"),
    **dict.fromkeys([_FRAME_OFFSET, _TOTAL_COLUMNS, _TOTAL_ROWS, _FOCAL_PLANES], b"UL"),
    _FRAMES: b"IS",
}

#: Sequences that are gone into: pixel measures; the plane's position in the slide.
_MEASURES, _PLANE_POSITION = frozenset([0x00289110]), frozenset([0x0048021A])

_UNDEFINED = 0xFFFFFFFF
_LONG_FORMS = frozenset([b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"])

#: Values that are read; longer ones are passed over. Offset tables and colour profiles are read when they are needed.
_SHORT_BYTES = 4096

#: Bytes that all headers together may have; per-frame positions of 100,000 frames take 50 MB.
_MAX_HEADER_BYTES = 1 << 28

_MAX_DEPTH = 16
_MAX_FRAMES = 1 << 24

#: Frames of a level whose pixels are looked at where neither markers nor tag settle what they are.
_SAMPLED_FRAMES = 6


class _RefusedError(Exception):
    """A slide that no reader would read surely right; the message says why."""


class DicomSlide(TiledSlide):
    """The VOLUME images of one DICOM series: all files of a folder that share the SeriesInstanceUID of ``path``.

    Pixels are those of each frame's own decoding. Files that lie about their colours are read in true colours, and the
    metadata's warnings say so; levels that contradict themselves in other ways are refused. Labels, overviews and
    thumbnails decide nothing.

    Args:
        path: any file of the series.

    Raises:
        DeclinedError: if it is no such file, or in a transfer syntax that is not decoded here.
        NotBrightfieldError: if its pixels are not three channels of 8 bits.
        UnreadableSlideError: if a file cannot be read, or would not surely be read right: several frames at one place,
            frames off the grid, missing frames, colours that contradict each other.
    """

    reader = "dicom"

    def __init__(self, path: Path) -> None:
        instances, warnings = _series(path)
        sizes = sorted({instance.size for instance in instances}, key=lambda size: (-size[0], -size[1]))
        levels = [[instance for instance in instances if instance.size == size] for size in sizes]
        sources: list[ByteSource] = []
        pages: list[Page] = []
        try:
            for number, members in enumerate(levels):
                page, said = _page(members, len(sources), number)
                sources += [instance.source for instance in members]
                pages.append(page)
                warnings += said
        except _RefusedError as error:
            raise UnreadableSlideError(f"{path} cannot be opened as a slide: {error}") from error
        kept, left_out = fitting_levels(levels_of(pages))
        finest = levels[0][0]
        metadata = SlideMetadata(
            mpp=finest.mpp,
            objective_power=finest.objective_power,
            vendor="dicom",
            properties=finest.properties,
            icc_profile=finest.icc_profile(),
            warnings=(*warnings, *left_out),
        )
        super().__init__(
            path,
            sources,
            [pages[index] for index in kept],
            metadata,
            distrust="it decides the colours of DICOM by the tag alone",
        )
        check_levels(self.levels, self.name)

    def _bytes_of(self, page: Page, index: int) -> bytes:
        """A frame's codestream; where it is encapsulated, its item's header is compared with what the table says."""
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        source = self._sources[0 if page.files is None else int(page.files[index])]
        data = source.read(offset, length)
        return _frame(data) if isinstance(page, _EncapsulatedPage) else data


@dataclass(frozen=True)
class _EncapsulatedPage(Page):
    """A level of compressed frames; offsets are those of their first items, lengths include all their items."""


@dataclass(frozen=True)
class _Element:
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


class _Window:
    """Reads small pieces of a file in order without a system call for each."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._start, self._data = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            if length > 65536 or offset + length > self._source.size:
                return self._source.read(offset, length)
            self._start = offset
            self._data = self._source.read(offset, min(65536, self._source.size - offset))
            begin = 0
        return self._data[begin : begin + length]


def _header(window: _Window, offset: int) -> _Element:
    """The element whose header begins at ``offset``; of an item or a delimiter, the VR is empty."""
    group, number, form, length = struct.unpack("<HH2sH", window.read(offset, 8))
    tag, head = group << 16 | number, 8
    if group == 0xFFFE:
        return _Element(tag, b"", offset + 8, int.from_bytes(form, "little") | length << 16)
    if form in _LONG_FORMS:
        (length,) = struct.unpack("<I", window.read(offset + 8, 4))
        head = 12
    return _Element(tag, form, offset + head, length)


def _elements(window: _Window, offset: int, stop: int) -> Iterator[_Element]:
    """The data elements from ``offset`` on, in explicit VR little endian; what lies within sequences is passed over.

    Raises:
        DeclinedError: if they contradict themselves.
        EOFError: if the file ends within one.
    """
    while offset + 8 <= stop:
        element = _header(window, offset)
        yield element
        if element.tag == _PIXELS:
            return
        if element.length == _UNDEFINED:
            offset, _ = _skim(window, element)
        else:
            offset = element.offset + element.length


def _skim(
    window: _Window,
    sequence: _Element,
    inside: frozenset[int] = frozenset(),
    wanted: frozenset[int] = frozenset(),
) -> tuple[int, list[_Element]]:
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
    found: list[_Element] = []
    offset = sequence.offset
    ends = [None if sequence.length == _UNDEFINED else offset + sequence.length]
    while ends:
        end = ends[-1]
        if end is not None and offset >= end:
            ends.pop()
            continue
        if len(ends) > _MAX_DEPTH or offset - sequence.offset > _MAX_HEADER_BYTES:
            raise DeclinedError("a sequence in its header is nested too deeply, or too long")
        element = _header(window, offset)
        offset = element.offset
        if element.tag in (_ITEM_END, _SEQUENCE_END):
            if end is not None:
                raise DeclinedError("a sequence in its header ends twice")
            ends.pop()
            continue
        if element.tag in wanted:
            found.append(element)
        is_open = element.length == _UNDEFINED
        if is_open or element.tag == _ITEM or element.tag in inside:
            ends.append(None if is_open else offset + element.length)
        else:
            offset += element.length
    return offset, found


@dataclass(frozen=True)
class _Instance:
    """One file of a series, as far as it is needed to read its frames.

    Attributes:
        source: the file.
        values: short values of its own elements by tag, as they lie.
        positions: column and row of each frame in the level, (n, 2), from 0; None where the frames lie in order.
        mpp, objective_power: what it says of itself.
        icc: where its colour profile lies, or None.
        tables: the elements of its extended offset table: offsets and lengths.
        pixels: the element of its pixel data.
    """

    source: ByteSource
    values: dict[int, bytes]
    positions: NDArray[np.int64] | None
    mpp: tuple[float, float] | None
    objective_power: float | None
    icc: _Element | None
    tables: dict[int, _Element]
    pixels: _Element

    def text(self, tag: int, index: int = 0) -> str:
        """One of the values of a text; empty where there is none."""
        return _text(self.values, tag, index)

    def number(self, tag: int, default: int | None = None) -> int:
        """A whole number, binary or as a text.

        Raises:
            DeclinedError: if it is missing and has no default, or is none.
        """
        value = self.values.get(tag)
        if value is None or (not value.strip(b" \0") and len(value) not in (2, 4)):
            if default is None:
                raise DeclinedError(f"{self.source.name} lacks the DICOM tag {tag >> 16:04x},{tag & 0xFFFF:04x}")
            return default
        if tag in (_FRAMES,):  # a text
            try:
                return int(value.decode("ascii").strip(" \0"))
            except ValueError:
                raise DeclinedError(f"{self.source.name} claims {value[:20]!r} frames") from None
        if len(value) not in (2, 4):
            raise DeclinedError(f"{self.source.name} has {value[:20]!r} for the tag {tag >> 16:04x},{tag & 0xFFFF:04x}")
        return int.from_bytes(value, "little")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the level."""
        return self.number(_TOTAL_COLUMNS), self.number(_TOTAL_ROWS)

    @property
    def properties(self) -> dict[str, str]:
        """What else may be worth knowing, as text."""
        named = {"SeriesInstanceUID": _SERIES, "Manufacturer": 0x00080070, "ManufacturerModelName": 0x00081090}
        return {f"dicom.{name}": self.text(tag) for name, tag in named.items() if self.text(tag)}

    def icc_profile(self) -> bytes | None:
        """Its colour profile, or None."""
        if self.icc is None or not 0 < self.icc.length <= _MAX_HEADER_BYTES:
            return None
        return self.source.read(self.icc.offset, self.icc.length)


def _read_instance(path: Path) -> _Instance:
    """Read a file's header.

    Raises:
        DeclinedError: if it is no DICOM file, or contradicts itself.
        UnreadableSlideError: if it cannot be read.
    """
    source = FileSource(path)
    try:
        return _instance(source)
    except EOFError as error:
        raise DeclinedError(f"{path} ends within its header: {error}") from error
    except OSError as error:
        raise UnreadableSlideError(f"{path} cannot be read: {in_words(error)}") from error
    finally:
        source.close()  # opened again when a frame is read


def _instance(source: ByteSource) -> _Instance:
    if source.size < 132 or source.read(128, 4) != b"DICM":
        raise DeclinedError(f"{source.name} is no DICOM file")
    window = _Window(source)
    values: dict[int, bytes] = {}
    tables: dict[int, _Element] = {}
    positions: NDArray[np.int64] | None = None
    spacing, power = b"", b""
    icc: _Element | None = None
    for element in _elements(window, 132, source.size):
        if element.tag >> 16 != 2 and _text(values, _SYNTAX) in _NOT_EXPLICIT:
            values.update(_by_pydicom(source.name))
            return _Instance(source, values, None, None, None, None, {}, element)
        if element.offset > _MAX_HEADER_BYTES and element.tag < _OFFSETS:
            raise DeclinedError(f"the header of {source.name} is longer than {_MAX_HEADER_BYTES} bytes")
        if element.tag == _PIXELS:
            return _Instance(source, values, positions, _mpp(spacing), _decimal(power), icc, tables, element)
        if element.tag in (_OFFSETS, _LENGTHS):
            tables[element.tag] = element
        elif element.tag == _PER_FRAME:
            positions = _positions(window, element)
        elif element.tag == _SHARED:
            for inner in _skim(window, element, _MEASURES, frozenset([_PIXEL_SPACING]))[1]:
                spacing = spacing or _short(window, inner)
        elif element.tag == _OPTICAL_PATHS:
            for inner in _skim(window, element, frozenset(), frozenset([_LENS_POWER, _ICC_PROFILE]))[1]:
                if inner.tag == _LENS_POWER:
                    power = power or _short(window, inner)
                else:
                    icc = icc or inner
        elif element.form != b"SQ":
            if element.form != _FORMS.get(element.tag, element.form):
                raise DeclinedError(f"{source.name} has the DICOM tag {element.tag:08x} of type {element.form!r}")
            values[element.tag] = _short(window, element)
    raise DeclinedError(f"{source.name} has no pixel data")


def _short(window: _Window, element: _Element) -> bytes:
    """A short value; longer ones are cut off."""
    return window.read(element.offset, min(element.length, _SHORT_BYTES))


def _text(values: Mapping[int, bytes], tag: int, index: int = 0) -> str:
    """One of the values of a text; empty where there is none."""
    parts = values.get(tag, b"").decode("latin-1").split("\\")
    return parts[index].strip(" \0") if index < len(parts) else ""


def _by_pydicom(name: str) -> dict[int, bytes]:
    """Which series a file in one of DICOM's other encodings belongs to; nothing where it is broken."""
    import pydicom

    try:
        found = pydicom.dcmread(name, stop_before_pixels=True, specific_tags=[_IMAGE_TYPE, _INSTANCE, _SERIES])
        texts = {tag: found[tag].value for tag in (_IMAGE_TYPE, _INSTANCE, _SERIES) if tag in found}
    except Exception:  # pydicom raises many kinds on broken files
        return {}
    return {
        tag: ("\\".join(text) if isinstance(text, Iterable) and not isinstance(text, str) else str(text)).encode()
        for tag, text in texts.items()
    }


def _positions(window: _Window, sequence: _Element) -> NDArray[np.int64] | None:
    """Column and row of each frame's first pixel in the level, from 0; None where no frame says its place."""
    tags = (_COLUMN_POSITION, _ROW_POSITION)
    _, found = _skim(window, sequence, _PLANE_POSITION, frozenset(tags))
    sides = [
        [int.from_bytes(window.read(each.offset, 4), "little", signed=True) - 1 for each in found if each.tag == tag]
        for tag in tags
    ]
    if len(sides[0]) != len(sides[1]) or any(each.length != 4 for each in found):
        raise DeclinedError("its frames do not say clearly where they lie")
    return np.array(sides, dtype=np.int64).T if found else None


def _mpp(spacing: bytes) -> tuple[float, float] | None:
    """µm per pixel (x, y) of a PixelSpacing: millimetres between rows, then between columns."""
    parts = [_decimal(part) for part in spacing.split(b"\\")]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        return None
    return parts[1] * 1000, parts[0] * 1000


def _decimal(text: bytes) -> float | None:
    try:
        return float(text.decode("ascii").strip(" \0"))
    except ValueError:
        return None


def _series(path: Path) -> tuple[list[_Instance], list[str]]:
    """The VOLUME instances of the series that ``path`` belongs to, those of a concatenation in order.

    Returns:
        The instances, and a sentence about each file of the folder that may belong to them and cannot be read.

    Raises:
        DeclinedError: if it has none, ``path`` is not of a whole slide, or one of them is in a transfer syntax that is
            not decoded here.
    """
    first = _read_instance(path)
    if first.text(_CLASS) != _WHOLE_SLIDE:
        raise DeclinedError(f"it is of the DICOM class {first.text(_CLASS) or 'none'}, not a whole-slide image")
    series = first.text(_SERIES)
    found: dict[str, _Instance] = {}
    warnings = []
    for file in sorted(path.parent.iterdir()):
        if not file.is_file():
            continue
        try:
            instance = first if file.name == path.name else _read_instance(file)
        except (DeclinedError, UnreadableSlideError) as error:
            if file.suffix.lower() == ".dcm":
                warnings.append(f"{file.name}, which may be a level of it, is left out: {error}")
            continue
        if instance.text(_CLASS) != _WHOLE_SLIDE or instance.text(_SERIES) != series:
            continue
        flavor = instance.text(_IMAGE_TYPE, 2)
        if flavor == "VOLUME":
            found.setdefault(instance.text(_INSTANCE) or str(file), instance)  # the same instance twice is one
        elif flavor not in _BESIDE:
            warnings.append(f"{file.name}, of the same series, is an image of the kind {flavor!r} and is left out")
    if not found:
        raise DeclinedError("its series has no VOLUME image: labels, overviews and thumbnails are not slides")
    for instance in found.values():
        if instance.text(_SYNTAX) not in (_NATIVE, *_JPEG, *_JPEG2000):
            raise DeclinedError(
                f"{instance.source.name} has the transfer syntax {instance.text(_SYNTAX)}, which is not decoded here"
            )
    return sorted(found.values(), key=lambda instance: instance.number(_IN_CONCATENATION, 1)), warnings


def _page(members: Sequence[_Instance], first_source: int, number: int) -> tuple[Page, list[str]]:
    """One level, from one instance or a concatenation of several; and what is suspicious about it."""
    first = members[0]
    where = f"level {number} ({Path(first.source.name).name})"
    _check_members(members, where)
    width, height = first.size
    tile_width, tile_height = first.number(_COLUMNS), first.number(_ROWS)
    if not (width > 0 and height > 0 and 0 < tile_width <= MAX_TILE_PX and 0 < tile_height <= MAX_TILE_PX):
        raise _RefusedError(f"{where} claims {width}x{height} pixels in frames of {tile_width}x{tile_height}")
    across, down = -(-width // tile_width), -(-height // tile_height)
    if across * down > _MAX_FRAMES:
        raise _RefusedError(f"{where} claims {width}x{height} pixels in frames of {tile_width}x{tile_height}")
    offsets, lengths = np.zeros(across * down, dtype=np.int64), np.zeros(across * down, dtype=np.int64)
    files = np.zeros(across * down, dtype=np.int32)
    is_taken = np.zeros(across * down, dtype=bool)
    has_places = False
    for place, instance in enumerate(members):
        has_places |= instance.positions is not None
        starts, spans = _frames(instance, where)
        indices = _places(instance, len(starts), (tile_width, tile_height), (across, down), where)
        if len(np.unique(indices)) != len(indices) or is_taken[indices].any():
            raise _RefusedError(f"{where} holds several frames for one place: focal planes or optical paths")
        is_taken[indices] = True
        offsets[indices], lengths[indices], files[indices] = starts, spans, first_source + place
    if not has_places and not is_taken.all():
        raise _RefusedError(
            f"{where} holds {int(is_taken.sum())} frames in order for {across}x{down} places: which are missing is not "
            "known"
        )
    is_encapsulated = first.text(_SYNTAX) != _NATIVE
    page = (_EncapsulatedPage if is_encapsulated else Page)(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        across=across,
        offsets=offsets,
        lengths=lengths,
        decode=_NativeFrames(False),  # until its colours are settled
        can_paint_holes=True,
        files=files,
    )
    sources = {first_source + place: instance.source for place, instance in enumerate(members)}
    return _with_colours(page, sources, first, where)


def _check_members(members: Sequence[_Instance], where: str) -> None:
    """Raise where the instances of a level do not make one level that is read right."""
    first = members[0]
    for instance in members:
        bits = (
            instance.number(_SAMPLES),
            instance.number(_BITS_ALLOCATED),
            instance.number(_BITS_STORED),
            instance.number(_SIGNED, 0),
        )
        if bits != (3, 8, 8, 0):
            raise NotBrightfieldError(
                f"not brightfield: the pixels of {instance.source.name} have {bits[0]} channel{'s' * (bits[0] != 1)} "
                f"of {bits[2]} bits, as in fluorescence; only stained sections in transmitted light, three channels of "
                "8 bits, are tiled"
            )
        if instance.number(_FOCAL_PLANES, 1) != 1:
            raise _RefusedError(f"{where} has {instance.number(_FOCAL_PLANES)} focal planes; export one of them")
        if instance.number(_PLANAR, 0) != 0 and instance.text(_SYNTAX) == _NATIVE:
            raise _RefusedError(f"{where} has its colours in separate planes")
        for tag, what in ((_SYNTAX, "transfer syntaxes"), (_PHOTOMETRIC, "photometric interpretations")):
            if instance.text(tag) != first.text(tag):
                raise _RefusedError(f"{where} mixes the {what} {first.text(tag)} and {instance.text(tag)}")
        for tag, what in ((_COLUMNS, "widths"), (_ROWS, "heights")):
            if instance.number(tag) != first.number(tag):
                raise _RefusedError(
                    f"{where} mixes frames of the {what} {first.number(tag)} and {instance.number(tag)}"
                )
    if len({instance.text(_CONCATENATION) for instance in members}) > 1 or (
        len(members) > 1 and not first.text(_CONCATENATION)
    ):
        raise _RefusedError(f"{where} is there {len(members)} times, in files that are no concatenation")
    wanted = first.number(_OF_CONCATENATION, 0)
    if wanted and wanted != len(members):
        raise _RefusedError(f"{where} is a concatenation of {wanted} files, of which {len(members)} are there")


def _places(
    instance: _Instance, frames: int, tile: tuple[int, int], grid: tuple[int, int], where: str
) -> NDArray[np.int64]:
    """The place of each frame in its level, row by row."""
    across, down = grid
    if instance.positions is not None:
        if len(instance.positions) != frames:
            raise _RefusedError(f"{where} says where {len(instance.positions)} frames lie and holds {frames}")
        columns, rows = instance.positions[:, 0], instance.positions[:, 1]
        if (columns % tile[0]).any() or (rows % tile[1]).any():
            raise _RefusedError(f"{where} has frames that do not lie on a grid")
        columns, rows = columns // tile[0], rows // tile[1]
        if (columns < 0).any() or (columns >= across).any() or (rows < 0).any() or (rows >= down).any():
            raise _RefusedError(f"{where} has frames outside of its {across}x{down} places")
        return rows * across + columns
    if instance.text(_ORGANIZATION) not in ("TILED_FULL", ""):  # OpenSlide would crash
        raise _RefusedError(f"{where} is {instance.text(_ORGANIZATION)}, and its frames do not say where they lie")
    begin = instance.number(_FRAME_OFFSET, 0)
    if begin + frames > across * down:
        raise _RefusedError(
            f"{where} holds {begin + frames} frames for {across}x{down} places: focal planes or optical paths"
        )
    return np.arange(begin, begin + frames, dtype=np.int64)


def _frames(instance: _Instance, where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each frame begins in its file, and how long it is; encapsulated ones with their items' headers."""
    count = instance.number(_FRAMES, 1)
    if not 1 <= count <= _MAX_FRAMES:
        raise _RefusedError(f"{where} claims {count} frames")
    source, pixels = instance.source, instance.pixels
    if instance.text(_SYNTAX) == _NATIVE:
        size = instance.number(_COLUMNS) * instance.number(_ROWS) * 3
        if pixels.length == _UNDEFINED or pixels.length < size * count:
            raise _RefusedError(f"{where} holds {pixels.length} bytes of pixels for {count} frames of {size}")
        return pixels.offset + size * np.arange(count, dtype=np.int64), np.full(count, size, dtype=np.int64)
    if pixels.length != _UNDEFINED:
        raise _RefusedError(f"{where} is compressed, and its pixel data are not encapsulated")
    try:
        tag, table_length = struct.unpack("<II", source.read(pixels.offset, 8))
        first = pixels.offset + 8 + table_length
        if tag != _swapped(_ITEM) or first > source.size:
            raise _RefusedError(f"{where} has pixel data without an offset table")
        found = _extended_table(instance, count, first) or _basic_table(
            source, pixels.offset + 8, table_length, count, first
        )
        return found or _scanned(source, first, count, where)
    except EOFError as error:
        raise _RefusedError(f"{where} ends within its pixel data: {error}") from error
    finally:
        source.close()


Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def _extended_table(instance: _Instance, count: int, first: int) -> Spans | None:
    """What the extended offset table says, or None where there is none that fits the number of frames."""
    if set(instance.tables) != {_OFFSETS, _LENGTHS}:
        return None
    columns = []
    for tag in (_OFFSETS, _LENGTHS):
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
    window = _Window(source)
    while (element := _header(window, end)).tag == _ITEM and element.length != _UNDEFINED:  # the last frame's pieces
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
        if tag == _swapped(_SEQUENCE_END):
            is_whole = True
            break
        end = offset + 8 + length
        if tag != _swapped(_ITEM) or end > source.size:
            break
        begins = length == 0 or head[8:] in (b"\xff\xd8", b"\xff\x4f")
        items.append((offset, end))
        if begins or not frames:
            frames.append((offset, end))
        else:
            frames[-1] = (frames[-1][0], end)
        if len(items) > _MAX_FRAMES:
            raise _RefusedError(f"{where} has more than {_MAX_FRAMES} pieces of frames")
        offset = end
    found = items if len(items) == count or len(items) == len(frames) else frames
    if is_whole and (len(found) < count or (found is frames and len(found) != count)):
        raise _RefusedError(f"{where} holds {len(found)} frames and claims {count}: their places are not known")
    found = found[:count] + [(source.size, source.size + 1)] * (count - len(found))
    starts, ends = np.array(found, dtype=np.int64).T
    spans = ends - starts
    spans[spans == 8] = 0
    return starts, spans


def _swapped(tag: int) -> int:
    """A tag as its two little-endian halves read as one number."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def _frame(data: bytes) -> bytes:
    """The codestream in the items that fill ``data``.

    Raises:
        BrokenTileError: if they do not: the frame does not lie where the offset table says.
    """
    parts, position = [], 0
    while position + 8 <= len(data):
        tag, length = struct.unpack_from("<II", data, position)
        if tag != _swapped(_ITEM) or position + 8 + length > len(data):
            break
        parts.append(data[position + 8 : position + 8 + length])
        position += 8 + length
    if position != len(data):
        raise BrokenTileError("the frame does not lie where the offset table says")
    return parts[0] if len(parts) == 1 else b"".join(parts)


#: Photometric interpretations, and whether they are luma and chroma as JFIF has them.
_PHOTOMETRIC_IS_YCBCR = {"RGB": False, "YBR_FULL": True, "YBR_FULL_422": True, "YBR_ICT": True, "YBR_RCT": True}


def _with_colours(
    page: Page, sources: Mapping[int, ByteSource], first: _Instance, where: str
) -> tuple[Page, list[str]]:
    """The level with its decoder: what the components are is settled here as far as the frames do not say it.

    Raises:
        _RefusedError: if tag, codestreams and pixels contradict each other.
    """
    photometric, syntax = first.text(_PHOTOMETRIC), first.text(_SYNTAX)
    tagged = _PHOTOMETRIC_IS_YCBCR.get(photometric)
    if tagged is None or (syntax == _NATIVE and photometric not in ("RGB", "YBR_FULL")):
        raise _RefusedError(f"{where} has the photometric interpretation {photometric}, which is not decoded here")
    # These two say that the codestream transforms its components itself: of one that does not, they say nothing.
    is_silent = syntax in _JPEG2000 and photometric in ("YBR_ICT", "YBR_RCT")
    decode = _decoder(syntax, None if is_silent else tagged)
    try:
        looked_at, said = what_pixels_say(decode, _sampled(page, sources), (page.tile_height, page.tile_width))
    except UnsureError as error:
        raise _RefusedError(f"{where} cannot be decoded here: {error}") from error
    if not looked_at or (not is_silent and said in (None, tagged)):
        return replace(page, decode=decode), []
    if is_silent and said is not None:
        space = "YCbCr" if said else "RGB"
        warning = (
            f"{where} is tagged {photometric}, its codestreams are not transformed; by the pixels, read as {space}"
        )
        return replace(page, decode=_decoder(syntax, said)), [warning]
    found = "are not transformed" if is_silent else f"hold {'YCbCr' if said else 'RGB'} by their pixels"
    raise _RefusedError(
        f"{where} is tagged {photometric}, and its frames {found}: which is right is not known; write it with the "
        "right PhotometricInterpretation"
    )


def _decoder(syntax: str, is_ycbcr: bool | None) -> ColouredDecoder:
    """The decoder of frames; of what does not say it itself, ``is_ycbcr`` says what it is."""
    if syntax in _JPEG:
        return JpegTiles(b"", is_ycbcr=bool(is_ycbcr))
    return Jpeg2000Tiles(is_ycbcr) if syntax in _JPEG2000 else _NativeFrames(bool(is_ycbcr))


@dataclass(frozen=True)
class _NativeFrames:
    """Uncompressed pixels.

    Attributes:
        is_ycbcr: whether they are YCbCr, not RGB.
    """

    is_ycbcr: bool

    def __call__(self, data: bytes, out: NDArray[np.uint8]) -> None:
        if len(data) != out.size:
            raise BrokenTileError(f"it holds {len(data)} bytes of pixels, not {out.size}")
        out[:] = np.frombuffer(data, dtype=np.uint8).reshape(out.shape)
        if self.is_ycbcr:
            out[:] = ycbcr_to_rgb(out)

    def says_itself(self, data: bytes) -> bool:
        return False

    def with_tag(self, *, is_ycbcr: bool) -> _NativeFrames:
        return _NativeFrames(is_ycbcr)


def _sampled(page: Page, sources: Mapping[int, ByteSource]) -> Iterator[bytes]:
    """The codestreams of some frames; what cannot be read is passed over, and costs its own region later."""
    for index in spread_tiles(page, _SAMPLED_FRAMES):
        source = sources[0 if page.files is None else int(page.files[index])]
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        if length > 6 * page.tile_width * page.tile_height + 65536:
            continue
        try:
            data = source.read(offset, length)
            yield _frame(data) if isinstance(page, _EncapsulatedPage) else data
        except (BrokenTileError, EOFError, OSError):
            continue
    for source in sources.values():
        source.close()


def openslide_differs(slide: DicomSlide, path: Path) -> str:
    """How OpenSlide's view of a series differs, as a sentence; empty where it does not, or does not open it."""
    from wsicurate.slides.openslide import OpenSlideSlide

    if waiting_neighbours(path.parent):  # OpenSlide opens every file of the folder, and would wait for these
        return ""
    try:
        reference = OpenSlideSlide(path)
    except UnreadableSlideError:
        return ""
    with reference:
        theirs, ours = ([(level.width, level.height) for level in each.levels] for each in (reference, slide))
        return "" if theirs == ours else f"OpenSlide finds levels of {theirs}, this reader of {ours}"
