"""The files of a series: what each header says, as far as it is needed to read frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import UnreadableSlideError, in_words
from wsicurate.slides.base import DeclinedError
from wsicurate.slides.dicom import tags
from wsicurate.slides.dicom.elements import (
    MAX_HEADER_BYTES,
    Element,
    Window,
    short_value,
    skim,
    text_value,
    walk_elements,
)
from wsicurate.slides.tiles.source import ByteSource, FileSource

#: Kinds of images beside the pyramid.
_BESIDE = ("LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER")

#: Types of the elements that are used.
_FORMS = {
    **dict.fromkeys([tags.SYNTAX, tags.CLASS, tags.INSTANCE, tags.SERIES, tags.CONCATENATION], b"UI"),
    **dict.fromkeys([tags.IMAGE_TYPE, tags.ORGANIZATION, tags.PHOTOMETRIC], b"CS"),
    **dict.fromkeys([tags.IN_CONCATENATION, tags.OF_CONCATENATION, tags.SAMPLES, tags.PLANAR], b"US"),
    **dict.fromkeys([tags.ROWS, tags.COLUMNS, tags.BITS_ALLOCATED, tags.BITS_STORED, tags.SIGNED], b"US"),
    **dict.fromkeys([tags.FRAME_OFFSET, tags.TOTAL_COLUMNS, tags.TOTAL_ROWS, tags.FOCAL_PLANES], b"UL"),
    tags.FRAMES: b"IS",
}

#: Sequences that are gone into: pixel measures; the plane's position in the slide.
_MEASURES, _PLANE_POSITION = frozenset([0x00289110]), frozenset([0x0048021A])


@dataclass(frozen=True)
class Instance:
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
    icc: Element | None
    tables: dict[int, Element]
    pixels: Element

    def text(self, tag: int, index: int = 0) -> str:
        """One of the values of a text; empty where there is none."""
        return text_value(self.values, tag, index)

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
        if tag in (tags.FRAMES,):  # a text
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
        return self.number(tags.TOTAL_COLUMNS), self.number(tags.TOTAL_ROWS)

    @property
    def properties(self) -> dict[str, str]:
        """What else may be worth knowing, as text."""
        named = {"SeriesInstanceUID": tags.SERIES, "Manufacturer": 0x00080070, "ManufacturerModelName": 0x00081090}
        return {f"dicom.{name}": self.text(tag) for name, tag in named.items() if self.text(tag)}

    def icc_profile(self) -> bytes | None:
        """Its colour profile, or None."""
        if self.icc is None or not 0 < self.icc.length <= MAX_HEADER_BYTES:
            return None
        return self.source.read(self.icc.offset, self.icc.length)


def _read_instance(path: Path) -> Instance:
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


def _instance(source: ByteSource) -> Instance:
    if source.size < 132 or source.read(128, 4) != b"DICM":
        raise DeclinedError(f"{source.name} is no DICOM file")
    window = Window(source)
    values: dict[int, bytes] = {}
    tables: dict[int, Element] = {}
    positions: NDArray[np.int64] | None = None
    spacing, power = b"", b""
    icc: Element | None = None
    for element in walk_elements(window, 132, source.size):
        if element.tag >> 16 != 2 and text_value(values, tags.SYNTAX) in tags.NOT_EXPLICIT:
            values.update(_by_pydicom(source.name))
            return Instance(source, values, None, None, None, None, {}, element)
        if element.offset > MAX_HEADER_BYTES and element.tag < tags.OFFSETS:
            raise DeclinedError(f"the header of {source.name} is longer than {MAX_HEADER_BYTES} bytes")
        if element.tag == tags.PIXELS:
            return Instance(source, values, positions, _mpp(spacing), _decimal(power), icc, tables, element)
        if element.tag in (tags.OFFSETS, tags.LENGTHS):
            tables[element.tag] = element
        elif element.tag == tags.PER_FRAME:
            positions = _positions(window, element)
        elif element.tag == tags.SHARED:
            for inner in skim(window, element, _MEASURES, frozenset([tags.PIXEL_SPACING]))[1]:
                spacing = spacing or short_value(window, inner)
        elif element.tag == tags.OPTICAL_PATHS:
            for inner in skim(window, element, frozenset(), frozenset([tags.LENS_POWER, tags.ICC_PROFILE]))[1]:
                if inner.tag == tags.LENS_POWER:
                    power = power or short_value(window, inner)
                else:
                    icc = icc or inner
        elif element.form != b"SQ":
            if element.form != _FORMS.get(element.tag, element.form):
                raise DeclinedError(f"{source.name} has the DICOM tag {element.tag:08x} of type {element.form!r}")
            values[element.tag] = short_value(window, element)
    raise DeclinedError(f"{source.name} has no pixel data")


def _by_pydicom(name: str) -> dict[int, bytes]:
    """Which series a file in one of DICOM's other encodings belongs to; nothing where it is broken."""
    import pydicom

    wanted = [tags.IMAGE_TYPE, tags.INSTANCE, tags.SERIES]
    try:
        found = pydicom.dcmread(name, stop_before_pixels=True, specific_tags=wanted)
        texts = {tag: found[tag].value for tag in wanted if tag in found}
    except Exception:  # pydicom raises many kinds on broken files
        return {}
    return {
        tag: ("\\".join(text) if isinstance(text, Iterable) and not isinstance(text, str) else str(text)).encode()
        for tag, text in texts.items()
    }


def _positions(window: Window, sequence: Element) -> NDArray[np.int64] | None:
    """Column and row of each frame's first pixel in the level, from 0; None where no frame says its place."""
    wanted = (tags.COLUMN_POSITION, tags.ROW_POSITION)
    _, found = skim(window, sequence, _PLANE_POSITION, frozenset(wanted))
    sides = [
        [int.from_bytes(window.read(each.offset, 4), "little", signed=True) - 1 for each in found if each.tag == tag]
        for tag in wanted
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


def read_series(path: Path) -> tuple[list[Instance], list[str]]:
    """The VOLUME instances of the series that ``path`` belongs to, those of a concatenation in order.

    Returns:
        The instances, and a sentence about each file of the folder that may belong to them and cannot be read.

    Raises:
        DeclinedError: if it has none, ``path`` is not of a whole slide, or one of them is in a transfer syntax that is
            not decoded here.
    """
    first = _read_instance(path)
    if first.text(tags.CLASS) != tags.WHOLE_SLIDE:
        raise DeclinedError(f"it is of the DICOM class {first.text(tags.CLASS) or 'none'}, not a whole-slide image")
    series = first.text(tags.SERIES)
    found: dict[str, Instance] = {}
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
        if instance.text(tags.CLASS) != tags.WHOLE_SLIDE or instance.text(tags.SERIES) != series:
            continue
        flavor = instance.text(tags.IMAGE_TYPE, 2)
        if flavor == "VOLUME":
            found.setdefault(instance.text(tags.INSTANCE) or str(file), instance)  # the same instance twice is one
        elif flavor not in _BESIDE:
            warnings.append(f"{file.name}, of the same series, is an image of the kind {flavor!r} and is left out")
    if not found:
        raise DeclinedError("its series has no VOLUME image: labels, overviews and thumbnails are not slides")
    for instance in found.values():
        syntax = instance.text(tags.SYNTAX)
        if syntax not in (tags.NATIVE, *tags.JPEG, *tags.JPEG2000):
            raise DeclinedError(f"{instance.source.name} has the transfer syntax {syntax}, which is not decoded here")
    return sorted(found.values(), key=lambda instance: instance.number(tags.IN_CONCATENATION, 1)), warnings
