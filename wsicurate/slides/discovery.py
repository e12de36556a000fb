"""Folders of files -> the slides in them, each with its id and its row of the slide table."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from wsicurate.errors import ConfigError, NothingToDoError, SlideTableError
from wsicurate.slides.names import safe_name
from wsicurate.slides.table import SlideRow
from wsicurate.slides.tcga import Barcode, parse_barcode

#: Endings of files that are taken for slides wherever they lie: those of the formats that OpenSlide reads, and of
#: those that TIAToolbox reads besides.
SLIDE_SUFFIXES = frozenset(
    [".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".jp2", ".qptiff"]
)

#: Endings of plain images, slides only where the slide table names them.
IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp"])


@dataclass(frozen=True)
class SlideSource:
    """A slide to be tiled, not opened yet.

    Attributes:
        slide_id: safe and unique within the run, `<input folder's name>/<path below it>` percent-encoded.
        name: the same, readable.
        files: its files; the first is the one to open.
        is_image: whether it is a plain image.
        row: its row of the slide table, or None.
        barcode: its TCGA barcode, or None.
    """

    slide_id: str
    name: str
    files: tuple[Path, ...]
    is_image: bool
    row: SlideRow | None
    barcode: Barcode | None

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]

    @property
    def patient(self) -> str | None:
        """From the slide table, else from the barcode."""
        return (self.row.patient if self.row else None) or (self.barcode.patient if self.barcode else None)

    @property
    def site(self) -> str | None:
        """From the slide table, else the barcode's tissue source site."""
        return (self.row.site if self.row else None) or (self.barcode.site if self.barcode else None)

    @property
    def kind(self) -> str | None:
        """From the slide table, else from the barcode: DX, TS, MS, BS."""
        return (self.row.kind if self.row else None) or (self.barcode.kind if self.barcode else None)


def find_slides(
    inputs: Sequence[Path], rows: Sequence[SlideRow] = (), *, table: Path | None = None
) -> tuple[list[SlideSource], list[SlideRow]]:
    """Find the slides in files and folders, and give each its row of the slide table.

    A folder is searched to any depth; hidden files are passed over. Plain images count only where a row names
    them. The files of one DICOM series are one slide. A row's ``slide`` is a path below an input folder, a slide_id, a
    file name, or a file name without its ending, tried in this order.

    Args:
        inputs: files and folders.
        rows: the slide table.
        table: its path, for messages.

    Returns:
        The slides, sorted by slide_id, and the rows that match none of them.

    Raises:
        ConfigError: if an input does not exist.
        NothingToDoError: if there is no slide.
        SlideTableError: if a row matches several slides, or no row matches any.
        ConfigError: if two slides would have the same slide_id.
    """
    candidates = [candidate for path in inputs for candidate in _candidates(path)]
    matched, unmatched = _match(candidates, rows, table)
    slides = [
        _apply(candidate, matched.get(index))
        for index, candidate in enumerate(candidates)
        if not candidate.is_image or index in matched
    ]
    if rows and len(unmatched) == len(rows) and candidates:
        example = candidates[0].name
        raise SlideTableError(
            f"none of the {len(rows)} rows of {table} matches a slide: it says {rows[0].slide!r}, the inputs hold, for "
            f"example, {example!r}. Write paths below the input folder, or file names"
        )
    if not slides:
        images = f" ({len(candidates)} plain images need a --slide-table that names them)" if candidates else ""
        raise NothingToDoError(
            f"no slide in {', '.join(map(str, inputs))}{images}; looked for {' '.join(sorted(SLIDE_SUFFIXES))}"
        )
    return _unique(slides), unmatched


def _unique(slides: list[SlideSource]) -> list[SlideSource]:
    """Sorted by slide_id; a file that is reached twice, through overlapping inputs or links, counts once."""
    by_id: dict[str, SlideSource] = {}
    seen: set[Path] = set()
    for slide in slides:
        file = slide.path.resolve()
        if file in seen:
            continue
        seen.add(file)
        other = by_id.setdefault(slide.slide_id, slide)
        if other is not slide:
            raise ConfigError(
                f"{other.path} and {slide.path} would both be called {slide.slide_id!r}; "
                "give one of them another slide_id in --slide-table"
            )
    return [by_id[slide_id] for slide_id in sorted(by_id)]


def _apply(slide: SlideSource, row: SlideRow | None) -> SlideSource:
    if row is None:
        return slide
    return replace(slide, row=row, slide_id=slide.slide_id if row.slide_id is None else safe_name(row.slide_id))


def _match(
    candidates: list[SlideSource], rows: Sequence[SlideRow], table: Path | None
) -> tuple[dict[int, SlideRow], list[SlideRow]]:
    """Row of each candidate by index, and the rows that are left."""
    keys = (
        lambda slide: slide.name.split("/", 1)[-1],  # path below the input folder
        lambda slide: slide.slide_id,
        lambda slide: PurePosixPath(slide.name).name,
        lambda slide: PurePosixPath(slide.name).stem,
    )
    lookups: list[dict[str, set[int]]] = []
    for key in keys:
        lookup: dict[str, set[int]] = defaultdict(set)
        for index, candidate in enumerate(candidates):
            lookup[key(candidate)].add(index)
        lookups.append(lookup)
    matched: dict[int, SlideRow] = {}
    unmatched: list[SlideRow] = []
    for row in rows:
        written = row.slide.replace("\\", "/")
        found = next((lookup[written] for lookup in lookups if written in lookup), set())
        files = {candidates[index].path.resolve() for index in found}
        if not found:
            unmatched.append(row)
        elif len(files) > 1:
            names = ", ".join(sorted(candidates[index].name for index in found))
            raise SlideTableError(
                f"{table}, line {row.line}: {row.slide!r} may be any of {names}; write the path below the input folder"
            )
        else:
            for index in found:
                if index in matched:
                    raise SlideTableError(
                        f"{table}, lines {matched[index].line} and {row.line}: {matched[index].slide!r} and "
                        f"{row.slide!r} are both {candidates[index].name}; keep one"
                    )
                matched[index] = row
    return matched, unmatched


def _candidates(path: Path) -> Iterator[SlideSource]:
    if not path.exists():
        raise ConfigError(f"the input {path} does not exist; give a slide or a folder of slides")
    root = Path(os.path.abspath(path))  # noqa: PTH100 - not resolve(): a link keeps the name that the user gave it
    if root.is_file():
        yield _source(root.parent, root, (root,))
        return
    series: dict[Path, list[Path]] = defaultdict(list)
    for file in _files_below(root):
        suffix = file.suffix.lower()
        if suffix == ".dcm":
            series[file.parent].append(file)
        elif suffix in SLIDE_SUFFIXES or suffix in IMAGE_SUFFIXES:
            yield _source(root, file, (file, *_companions(file)))
    for folder, files in series.items():
        yield from _dicom_series(root, folder, files)


def _companions(file: Path) -> list[Path]:
    """The other files of a MIRAX slide: they lie in a folder of its name."""
    if file.suffix.lower() != ".mrxs":
        return []
    return sorted(path for path in file.with_suffix("").glob("*") if path.is_file())


def _files_below(folder: Path) -> Iterator[Path]:
    visited: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise ConfigError(
            f"the folder {error.filename} cannot be searched: {error.strerror}; mend that or leave it out"
        )

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = Path(parent).resolve()
        if real in visited:  # a link back up: everything below was seen
            folders.clear()
            continue
        visited.add(real)
        if "zarr.json" in files:  # a store that somebody put among the slides
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(files):
            if not _is_hidden(name):
                yield Path(parent) / name


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and not name.startswith("..")


def _dicom_series(root: Path, folder: Path, files: Iterable[Path]) -> Iterator[SlideSource]:
    """One source per DICOM series: named after its folder, or after its UID where the folder holds several."""
    by_uid: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_uid[_series_uid(file)].append(file)
    for uid, members in by_uid.items():
        named = folder if len(by_uid) == 1 and folder != root else folder / (uid or members[0].name)
        yield _source(root, named, tuple(members))


def _series_uid(file: Path) -> str:
    """The file's SeriesInstanceUID; empty where it is no DICOM file, so that opening it says so."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (InvalidDicomError, OSError, ValueError):
        return ""
    return str(header.get("SeriesInstanceUID", ""))


def _source(root: Path, named: Path, files: tuple[Path, ...]) -> SlideSource:
    name = f"{root.name}/{named.relative_to(root).as_posix()}"
    return SlideSource(
        slide_id=safe_name(name),
        name=name,
        files=files,
        is_image=files[0].suffix.lower() in IMAGE_SUFFIXES,
        row=None,
        barcode=parse_barcode(named.name),
    )
