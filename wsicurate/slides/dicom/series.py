"""DICOM files -> slides. A slide is a series: its levels, label and overview lie in files of their own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from wsicurate.files import open_file

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_DEFLATED = "1.2.840.10008.1.2.1.99"

#: Beginnings of the classes of objects that lie beside slides, the longest that fits counts.
_OTHER_CLASSES = {
    "1.2.840.10008.1.3.10": "a directory of DICOM files",
    "1.2.840.10008.5.1.4.1.1.91.": "annotations",
    "1.2.840.10008.5.1.4.1.1.66.": "segmentations",
    "1.2.840.10008.5.1.4.1.1.88.": "a report",
    "1.2.840.10008.5.1.4.1.1.88.59": "a selection of key objects",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.104.": "an encapsulated document",
}

#: What is looked at stands within this, bytes.
_HEADER_BYTES = 2**21

# Tags, in the order in which they stand in a file.
_IMAGE_TYPE = 0x00080008
_SOP_CLASS = 0x00080016
_STUDY = 0x0020000D
_SERIES = 0x0020000E
_CONTAINER = 0x00400512
_COLUMNS = 0x00480006
_ROWS = 0x00480007
_TAGS = (_IMAGE_TYPE, _SOP_CLASS, _STUDY, _SERIES, _CONTAINER, _COLUMNS, _ROWS)


@dataclass(frozen=True)
class DicomFile:
    """What a DICOM file says of where it belongs.

    Attributes:
        path: the file.
        series: SeriesInstanceUID; empty where it is no DICOM file or does not say, so that opening it says so.
        sop_class: SOPClassUID.
        flavour: ``VOLUME``, ``LABEL``, ``OVERVIEW``, ``THUMBNAIL``, or empty.
        slide: study and container: equal for the levels of one slide.
        size: columns and rows of its whole image.
    """

    path: Path
    series: str = ""
    sop_class: str = ""
    flavour: str = ""
    slide: tuple[str, str] = ("", "")
    size: tuple[int, int] = (0, 0)

    @property
    def is_level(self) -> bool:
        """Whether it is an image of the pyramid, as far as it says."""
        return self.flavour in ("VOLUME", "")

    @property
    def is_whole_slide(self) -> bool:
        """Whether it is part of a slide, or may be."""
        return self.sop_class in (_WHOLE_SLIDE, "")

    @property
    def kind(self) -> str:
        """What it is, in words, if it is not part of a slide."""
        found = max((start for start in _OTHER_CLASSES if self.sop_class.startswith(start)), key=len, default="")
        return _OTHER_CLASSES.get(found, f"DICOM objects of the class {self.sop_class}, no whole-slide images")


def read_dicom_file(path: Path) -> DicomFile:
    """Read the few attributes that say where a DICOM file belongs; pixels and frames are not read."""
    from pydicom.filereader import read_file_meta_info, read_partial

    try:
        open_file(path).close()
        if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:  # it would be inflated as a whole
            return DicomFile(path)
        with open_file(path) as file:
            beginning = cast(BinaryIO, _Beginning(file))
            header = read_partial(beginning, lambda tag, vr, length: tag > _ROWS, specific_tags=list(_TAGS))
        media = str(header.file_meta.get("MediaStorageSOPClassUID", ""))
        values = _text(header, _IMAGE_TYPE).split("\\")
        return DicomFile(
            path=path,
            series=_text(header, _SERIES),
            sop_class=_text(header, _SOP_CLASS) or media,
            flavour=values[2].strip().upper() if len(values) > 2 else "",
            slide=(_text(header, _STUDY), _text(header, _CONTAINER)),
            size=(_number(header, _COLUMNS), _number(header, _ROWS)),
        )
    except Exception:  # pydicom raises many kinds on broken files; opening the slide says what is wrong
        return DicomFile(path)


class _Beginning:
    """A file that ends after `_HEADER_BYTES`: a header that is longer is not waited for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.name = file.seek, file.tell, str(file.name)

    def read(self, size: int = -1) -> bytes:
        """Read on, at most to the end of the beginning."""
        left = max(0, _HEADER_BYTES - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))


def _text(header: Any, tag: int) -> str:
    """A value as it stands in the file: pydicom's conversion warns of what it does not like."""
    element = header.get_item(tag)
    value = b"" if element is None else element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")


def _number(header: Any, tag: int) -> int:
    element = header.get_item(tag)
    value = b"" if element is None else element.value
    if isinstance(value, bytes):
        return int.from_bytes(value, "little" if element is None or element.is_little_endian else "big")
    return int(value or 0)


@dataclass(frozen=True)
class DicomGroup:
    """Files that make one slide, or one kind of what is none.

    Attributes:
        files: the one to open first, then by path.
        folder: where they lie; of files in several folders, the innermost that holds them all.
        is_spread: whether they lie in several folders.
    """

    files: tuple[DicomFile, ...]
    folder: Path
    is_spread: bool = False

    @property
    def has_level(self) -> bool:
        """Whether there is an image to tile."""
        return any(file.is_level for file in self.files)


def group_files(files: Sequence[DicomFile]) -> list[DicomGroup]:
    """Group files of one class (slides, or what is none) into series.

    Files of one folder are grouped by their series alone, as readers do. Groups of one series in several folders are
    one slide where they are of one study and container, no image size is in both, and all sizes are those of one
    pyramid: levels that were sorted apart. A copy of a series in another folder is a slide of its own.
    """
    by_folder: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    for file in files:
        key = file.series or f"\0{file.path.name}"
        by_folder[os.path.realpath(file.path.parent), key].append(file)
    merged: dict[str, list[list[DicomFile]]] = defaultdict(list)
    for (_, series), members in sorted(by_folder.items()):
        other = next((group for group in merged[series] if _complement(group, members)), None)
        if other is None:
            merged[series].append(members)
        else:
            other += members
    return [_group(members) for groups in merged.values() for members in groups]


def _complement(group: Sequence[DicomFile], members: Sequence[DicomFile]) -> bool:
    """Whether two folders' files of one series can be parts of one slide."""
    if {file.slide for file in group} != {file.slide for file in members}:
        return False
    sizes, others = ({file.size for file in part if file.is_level} for part in (group, members))
    if sizes & others:
        return False
    width, height = max(sizes | others, key=lambda size: size[0] * size[1], default=(0, 0))
    return all(
        abs(across * height - down * width) <= 2 * max(width, height) for across, down in sizes | others
    )  # of one shape, but for a pixel or two


def _group(members: Sequence[DicomFile]) -> DicomGroup:
    folders = {os.path.realpath(file.path.parent) for file in members}
    files = sorted(members, key=lambda file: (not file.is_level, file.path))
    if len(folders) > 1:  # readers see the files of one folder: that of the finest level
        finest = max(files, key=lambda file: (file.is_level, file.size[0] * file.size[1])).path.parent
        files.sort(key=lambda file: (not file.is_level, file.path.parent != finest))
        return DicomGroup(tuple(files), Path(os.path.commonpath([file.path.parent for file in files])), is_spread=True)
    return DicomGroup(tuple(files), files[0].path.parent)
