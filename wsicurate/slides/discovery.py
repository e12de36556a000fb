"""Folders of files -> the slides in them, each with its id and its row of the slide table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wsicurate.errors import ConfigError, NothingToDoError, SlideTableError, in_words
from wsicurate.files import open_file
from wsicurate.slides.dicom.series import DicomGroup, group_files, read_dicom_file
from wsicurate.slides.formats import (
    IMAGE_SUFFIXES,
    SLIDE_SUFFIXES,
    UNREAD_SUFFIXES,
    companions,
    data_folder,
    is_plain_image,
    look_of,
    look_of_bytes,
)
from wsicurate.slides.matching import Candidate, match_rows, unique_sources, with_row
from wsicurate.slides.names import safe_name
from wsicurate.slides.plugin_readers import is_claimed, plugin_readers, plugin_suffixes
from wsicurate.slides.source import SlideSource
from wsicurate.slides.table import SlideRow
from wsicurate.slides.tcga import parse_barcode

__all__ = [
    "IMAGE_SUFFIXES",
    "SLIDE_SUFFIXES",
    "FoundSlides",
    "PassedOver",
    "SlideSource",
    "find_slides",
    "search_slides",
]

#: Files of an input that are named in the error that says that none is a slide.
_EXAMPLES = 5

#: Attributes of a Zarr group that are looked at; a larger file is no NGFF.
_ZARR_BYTES = 2**20


@dataclass(frozen=True)
class PassedOver:
    """A file or folder that looks like a slide, or like a part of one, and is not tiled.

    Attributes:
        name: `<input folder's name>/<path below it>`.
        reason: one word.
        message: what it is, and what would help, in a sentence.
        is_slide: whether a slide may be missing because of it.
    """

    name: str
    reason: str
    message: str
    is_slide: bool = False


class FoundSlides(NamedTuple):
    """What `search_slides` found.

    Attributes:
        slides: sorted by slide_id.
        unmatched: rows of the slide table that match none of them.
        passed_over: what looks like a slide and is not among them, sorted by name.
    """

    slides: list[SlideSource]
    unmatched: list[SlideRow]
    passed_over: list[PassedOver]


def find_slides(
    inputs: Sequence[Path], rows: Sequence[SlideRow] = (), *, table: Path | None = None
) -> tuple[list[SlideSource], list[SlideRow]]:
    """The slides, and the rows that match none of them; see `search_slides`."""
    found = search_slides(inputs, rows, table=table)
    return found.slides, found.unmatched


def search_slides(inputs: Sequence[Path], rows: Sequence[SlideRow] = (), *, table: Path | None = None) -> FoundSlides:
    """Find the slides in files and folders, and give each its row of the slide table.

    A folder is searched to any depth; hidden files are passed over in silence, and so is what has an ending of no
    slide. Plain images count only where a row names them. The files of one DICOM series are one slide, however they
    are called and whichever of them are named. What looks like a slide and cannot be one is among ``passed_over``; a
    file that cannot be opened is a slide like any other, so that opening it says why.

    A row's ``slide`` is a path below an input folder, a slide_id, a file name, a file name without its ending, the last
    part of a path, or the name of any file of a series, tried in this order; where nothing matches, again with both in
    Unicode's form NFC.

    Args:
        inputs: files and folders.
        rows: the slide table.
        table: its path, for messages.

    Raises:
        ConfigError: if an input does not exist, or a reader of another package cannot be used.
        NothingToDoError: if there is no slide.
        SlideTableError: if a row matches several slides, or no row matches any.
        ConfigError: if two slides would have the same slide_id.
    """
    plugin_readers()  # one that cannot be used is said before anything is done
    search = _Search()
    for path in inputs:
        search.add_input(path)
    search.add_dicom()
    candidates = search.candidates
    passed_over = sorted(set(search.passed_over), key=lambda item: (item.name, item.reason))
    matched, unmatched = match_rows(candidates, rows, table)
    slides = [
        candidate._replace(source=with_row(candidate.source, matched.get(index)))
        for index, candidate in enumerate(candidates)
        if not candidate.source.is_image or index in matched
    ]
    if rows and len(unmatched) == len(rows) and candidates:
        example = candidates[0].source.name
        raise SlideTableError(
            f"none of the {len(rows)} rows of {table} matches a slide: it says {rows[0].slide!r}, the inputs hold, for "
            f"example, {example!r}. Write paths below the input folder, or file names"
        )
    if not slides:
        images = f" ({len(candidates)} plain images need a --slide-table that names them)" if candidates else ""
        others = "".join(f"; {item.name}: {item.message}" for item in passed_over[:_EXAMPLES])
        more = f"; and {len(passed_over) - _EXAMPLES} more" if len(passed_over) > _EXAMPLES else ""
        endings = " ".join(sorted({*SLIDE_SUFFIXES, *plugin_suffixes()}))
        raise NothingToDoError(f"no slide in {', '.join(map(str, inputs))}{images}; looked for {endings}{others}{more}")
    return FoundSlides(unique_sources(slides), unmatched, passed_over)


@dataclass
class _Search:
    """Goes through the inputs; DICOM files are gathered and grouped at the end."""

    candidates: list[Candidate] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    _dicom: dict[str, tuple[Path, Path]] = field(default_factory=dict)  # real path -> file, root
    _named: set[str] = field(default_factory=set)  # real paths of DICOM files that the user named

    def add_input(self, path: Path) -> None:
        """Take a file, or all that a folder holds."""
        root = Path(os.path.abspath(path))  # noqa: PTH100 - not resolve(): a link keeps the name that the user gave it
        try:
            root.lstat()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the input {path} does not exist or cannot be reached ({in_words(error)}); "
                "give a slide or a folder of slides"
            ) from error
        if os.path.isdir(root):  # noqa: PTH112 - says no where a link leads nowhere, or back to itself
            self._add_folder(root)
        else:
            self._add_named(root)

    def _add_named(self, file: Path) -> None:
        """A file that the user named: a slide whatever its ending, unless it surely is none."""
        look, root = look_of(file), file.parent
        if look not in ("slide", "image", "dicom") and is_claimed(file):
            look = "slide"
        if look == "other":
            look = look_of_bytes(file)
            if not look:
                message = f"its ending {file.suffix!r} is that of no slide, and neither does it begin as one"
                self._pass(root, file, "not_a_slide", message)
                return
        if look == "dicom":
            self._add_dicom(root, file)
            self._named.add(os.path.realpath(file))
        elif look in ("unread", "archive", "partial", "litter"):
            self._pass_by_look(root, file, look)
        else:
            self._add(root, file, (file, *companions(file)))

    def _add_folder(self, root: Path) -> None:
        visited: set[str] = set()
        for parent, folders, files in os.walk(root, followlinks=True, onerror=lambda error: self._refused(root, error)):
            real = os.path.realpath(parent)
            if real in visited:  # a link back up: everything below was seen
                folders.clear()
                continue
            visited.add(real)
            if any(mark in files for mark in _ZARR_MARKS):  # a store among the slides, or an NGFF
                folders.clear()
                self._add_zarr(root, Path(parent))
                continue
            data = {data_folder(Path(name)) for name in files}
            folders[:] = sorted(name for name in folders if not _is_hidden(name) and name not in data)
            for name in sorted(files):
                if not _is_hidden(name):
                    self._add_found(root, Path(parent) / name)

    def _add_found(self, root: Path, file: Path) -> None:
        """A file that lies in an input folder."""
        look = look_of(file)
        if look in ("slide", "image"):
            self._add(root, file, (file, *companions(file)))
        elif look == "dicom":
            self._add_dicom(root, file)
        elif look not in ("", "other", "litter"):
            self._pass_by_look(root, file, look)

    def _add(self, root: Path, named: Path, files: tuple[Path, ...]) -> None:
        self.candidates.append(Candidate(_source(root, named, files), root))

    def _add_zarr(self, root: Path, folder: Path) -> None:
        if _is_image_pyramid(folder):
            message = "an OME-Zarr image; convert it to a pyramidal TIFF (ngff-zarr, bioformats2raw and raw2ometiff)"
            self._pass(root, folder, "unread_format", message, is_slide=True)

    def _refused(self, root: Path, error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename or root))
        message = f"the folder cannot be searched: {in_words(error)}; make it readable, or leave it out"
        self._pass(root, folder, "unreadable_folder", message, is_slide=True)

    def _pass_by_look(self, root: Path, file: Path, look: str) -> None:
        suffix = file.suffix.lower()
        if look == "unread":
            message = UNREAD_SUFFIXES.get(suffix, UNREAD_SUFFIXES[".isyntax"])
            self._pass(root, file, "unread_format", f"it is {message}", is_slide=True)
        elif look == "archive":
            self._pass(root, file, "archive", "an archive is not looked into; unpack it")
        elif look == "partial":
            self._pass(root, file, "partial", "a copy or download that has not ended; end it, then run again")
        elif look == "litter":
            self._pass(root, file, "not_a_slide", "a file of the operating system's own, not a slide")
        else:
            kind = {"tiff": "a TIFF", "czi": "a CZI", "jp2": "a JPEG 2000 image"}[look]
            message = f"it begins as {kind}, under an ending of no slide; rename it, or name the file itself"
            self._pass(root, file, "unknown_ending", message)

    def _pass(self, root: Path, path: Path, reason: str, message: str, *, is_slide: bool = False) -> None:
        self.passed_over.append(PassedOver(_name(root, path), reason, message, is_slide))

    def _add_dicom(self, root: Path, file: Path) -> None:
        real = os.path.realpath(file)
        if real not in self._dicom or (self._dicom[real][0].is_symlink() and not file.is_symlink()):
            self._dicom[real] = (file, root)

    def add_dicom(self) -> None:
        """Group the DICOM files that were found into slides; to the named ones come the others of their series."""
        files = {real: read_dicom_file(file) for real, (file, _) in self._dicom.items()}
        roots = dict(self._dicom.values())
        wanted = {
            (file.path.parent, file.series) for real, file in files.items() if real in self._named and file.series
        }
        for folder in sorted({folder for folder, _ in wanted}):
            for other in _listed(folder):
                real = os.path.realpath(other)
                if real not in files and not _is_hidden(other.name) and look_of(other) == "dicom":
                    read = read_dicom_file(other)
                    if (folder, read.series) in wanted:
                        files[real], roots[other] = read, folder
        slides = group_files([file for file in files.values() if file.is_whole_slide])
        pyramids = [group for group in slides if group.has_level]
        crowd = Counter(group.folder for group in pyramids)
        for group in pyramids:
            opened = group.files[0]
            root = roots[opened.path]
            alone = not group.is_spread and crowd[group.folder] == 1 and group.folder != root
            base = root if group.is_spread and not group.folder.is_relative_to(root) else group.folder
            named = group.folder if alone else base / (opened.series or opened.path.name)
            self._add(root, named, tuple(file.path for file in group.files))
        folders = {file.path.parent for group in pyramids for file in group.files}
        for group in slides:
            if not group.has_level:
                flavours = ", ".join(sorted({file.flavour for file in group.files}))
                message = f"a DICOM series of {flavours} alone, without an image to tile"
                self._pass_group(roots, group, "no_volume", message, is_slide=group.folder not in folders)
        for group in group_files([file for file in files.values() if not file.is_whole_slide]):
            message = f"{group.files[0].kind}, which are no slides"
            self._pass_group(roots, group, "dicom_object", message)

    def _pass_group(
        self, roots: Mapping[Path, Path], group: DicomGroup, reason: str, message: str, *, is_slide: bool = False
    ) -> None:
        first = group.files[0].path
        count = f" ({len(group.files)} files)" if len(group.files) > 1 else ""
        self._pass(roots[first], first, reason, message + count, is_slide=is_slide)


_ZARR_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def _is_image_pyramid(folder: Path) -> bool:
    """Whether a Zarr group is an OME-NGFF image."""
    for mark in ("zarr.json", ".zattrs"):
        try:
            with open_file(folder / mark) as file:
                attributes = json.loads(file.read(_ZARR_BYTES))
            attributes = attributes.get("attributes", {}) if mark == "zarr.json" else attributes
            if "multiscales" in attributes or "multiscales" in attributes.get("ome", {}):
                return True
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            continue
    return False


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and not name.startswith("..")


def _name(root: Path, named: Path) -> str:
    below = named.relative_to(root).as_posix() if named != root else ""
    return f"{root.name}/{below}" if below else root.name


def _source(root: Path, named: Path, files: tuple[Path, ...]) -> SlideSource:
    name = _name(root, named)
    return SlideSource(
        slide_id=safe_name(name),
        name=name,
        files=files,
        is_image=is_plain_image(files[0]),
        row=None,
        barcode=parse_barcode(named.name),
    )
