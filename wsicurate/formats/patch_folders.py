"""Folders of patch images that others cut: which file belongs to which slide, patient and label, and where it lies."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from wsicurate.config import MPP_RANGE, is_plausible_mpp
from wsicurate.errors import NothingToDoError, PatchImportError, in_words
from wsicurate.formats.name_patterns import match_names
from wsicurate.tables import parse_number, parse_whole_number, read_table

#: Endings of files that are taken for patches.
PATCH_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"])

#: What a folder, a group of the name pattern or a column of the table may say of a patch, as text.
WORDS = ("label", "patient", "slide", "site", "kind")

#: And as numbers: level-0 pixels of its corner; µm per pixel.
NUMBERS = ("x", "y", "mpp")

#: A level of folders that says nothing.
_NOTHING = ("*", "_", "")

#: The convention of many published sets: the class, three underscores, the rest of the name.
_CLASS_PREFIX = re.compile(r"(?P<label>[^_].*?)___.+")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPatch:
    """A patch image and what is known of it before it is opened.

    Attributes:
        name: path below the input folder, with ``/``.
        label, patient, slide, site, kind: text, or None where it is not specified.
        x, y: level-0 pixel of its top-left corner on its slide, or None.
        mpp: µm per pixel of the image, or None.
    """

    name: str
    label: str | None = None
    patient: str | None = None
    slide: str | None = None
    site: str | None = None
    kind: str | None = None
    x: int | None = None
    y: int | None = None
    mpp: float | None = None


@dataclass(frozen=True, kw_only=True)
class FoundPatches:
    """The patch images of a folder.

    Attributes:
        root: the folder.
        patches: sorted by name.
        notes: what was assumed or passed over, in sentences.
        unreadable: folders below it that cannot be searched, by their path below it, and why.
    """

    root: Path
    patches: Sequence[FoundPatch]
    notes: Sequence[str] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)


def find_patches(
    folder: Path, *, layout: str | None = None, name_pattern: str | None = None, table: Path | None = None
) -> FoundPatches:
    """Find the patch images below a folder and what is known of each.

    Without ``layout`` the folder that an image lies in is its label where all images lie one level deep, and the part
    of the name before ``___`` is where they lie directly in ``folder`` and all names have one. What the name pattern
    says goes before what the folders say, and what the table says before both.

    Args:
        folder: searched to any depth; hidden files and stores are passed over.
        layout: what each level of folders is, such as ``label/slide``; braces may stand around the words, ``*`` is a
            level that says nothing.
        name_pattern: a regular expression, searched for in each file name, whose named groups are `WORDS` or `NUMBERS`.
        table: CSV or TSV with the column ``path`` and any of `WORDS` and `NUMBERS`; the images that it names are
            imported, no others.

    Raises:
        NothingToDoError: if there is no image.
        PatchImportError: if layout, pattern or table are wrong, or do not fit a file; the message names it.
    """
    names, others, unreadable = _image_names(folder)
    if not names:
        closed = "".join(f"; {folder / name} cannot be searched: {reason}" for name, reason in unreadable.items())
        raise NothingToDoError(
            f"no image in {folder}; looked for {' '.join(sorted(PATCH_SUFFIXES))}. "
            f"Coordinates of TRIDENT, CLAM, HEST, STAMP or hs2p need --slides{closed}"
        )
    notes: list[str] = []
    if others:
        listed = ", ".join(f"{count:,} {suffix or 'without ending'}" for suffix, count in sorted(others.items()))
        notes.append(f"files that are no patch images by their ending are passed over: {listed}")
    rows: dict[str, Mapping[str, str]] = {}
    if table is not None:
        rows = _table_rows(table, names)
        if len(rows) < len(names):
            notes.append(f"{len(names) - len(rows):,} images of {folder} are not in {table} and are left out")
        names = [name for name in names if name in rows]
    levels = None if layout is None else _layout(layout)
    by_pattern = None if name_pattern is None else _by_pattern(folder, names, name_pattern)
    by_folder = levels is None and all(name.count("/") == 1 for name in names)
    by_prefix = (
        levels is None
        and by_pattern is None
        and not by_folder
        and all("/" not in name and _CLASS_PREFIX.fullmatch(PurePosixPath(name).stem) for name in names)
    )
    patches = []
    for name in names:
        facts: dict[str, str] = {}
        if levels is not None:
            facts |= _by_layout(folder, name, levels)
        elif by_folder:
            facts["label"] = name.partition("/")[0]
        elif by_prefix:
            facts["label"] = name.partition("___")[0]
        if by_pattern is not None:
            facts |= by_pattern[name]
        where = f"{folder / name}"
        if name in rows:
            facts |= {key: value for key, value in rows[name].items() if value}
            where = f"{table}, the row of {name!r}"
        patches.append(_patch(name, facts, where))
    if any(patch.label for patch in patches):
        source = (
            "the folders"
            if by_folder
            else "the names, up to ___"
            if by_prefix
            else "--layout, --name-pattern or --table"
        )
        notes.append(f"labels are from {source}: {_listed(sorted({patch.label or 'none' for patch in patches}))}")
    elif levels is None and by_pattern is None and table is None:
        notes.append("no labels: images lie in no class folders; --layout, --name-pattern or --table say what is what")
    return FoundPatches(root=folder, patches=patches, notes=notes, unreadable=unreadable)


def _image_names(folder: Path) -> tuple[list[str], Counter[str], dict[str, str]]:
    """Paths of the images below a folder, sorted; other files by ending; folders that cannot be searched, and why."""
    unreadable: dict[str, str] = {}

    def refuse(error: OSError) -> None:
        below = Path(os.fsdecode(error.filename or folder)).relative_to(folder).as_posix()
        unreadable[below] = in_words(error)

    found: list[str] = []
    others: Counter[str] = Counter()
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        if real in visited:  # a link back up, or to what was seen
            folders.clear()
            continue
        visited.add(real)
        if "zarr.json" in files:  # a store among the patches
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - speed
            if name.startswith("."):
                continue
            if suffix in PATCH_SUFFIXES:
                found.append(prefix + name)
            else:
                others[suffix] += 1
    return sorted(found), others, unreadable


def _layout(layout: str) -> list[str]:
    levels = [level.strip().strip("{}") for level in layout.strip("/").split("/")]
    for level in levels:
        if level not in (*WORDS, *_NOTHING):
            raise PatchImportError(
                f"--layout is {layout!r} and {level!r} says nothing of a patch; name each level of folders one of "
                f"{', '.join(WORDS)} or *, such as label/slide"
            )
    return levels


def _by_layout(folder: Path, name: str, levels: Sequence[str]) -> dict[str, str]:
    parts = name.split("/")[:-1]
    if len(parts) != len(levels):
        raise PatchImportError(
            f"{folder / name} lies {len(parts)} folders deep and --layout has {len(levels)} levels "
            f"({'/'.join(levels)}); give as many as there are, with * for those that say nothing"
        )
    return {level: part for level, part in zip(levels, parts, strict=True) if level not in _NOTHING}


def _by_pattern(folder: Path, names: Sequence[str], pattern: str) -> dict[str, dict[str, str]]:
    """What the name pattern says of each image."""
    matches = match_names(pattern, [PurePosixPath(name).name for name in names])
    unknown = [group for group in matches.groups if group not in (*WORDS, *NUMBERS)]
    if unknown or not matches.groups:
        raise PatchImportError(
            f"--name-pattern is {pattern!r}, with the named groups {unknown or 'none'}; name groups "
            f"{', '.join((*WORDS, *NUMBERS))}, such as (?P<slide>.+)_(?P<x>\\d+)_(?P<y>\\d+)"
        )
    facts = {}
    for name, match in zip(names, matches.found, strict=True):
        if match is None:
            raise PatchImportError(
                f"the name of {folder / name} does not match --name-pattern {pattern!r}; correct the pattern, "
                "or move the file away"
            )
        facts[name] = {key: value for key, value in match.items() if value}
    return facts


def _patch(name: str, facts: Mapping[str, str], where: str) -> FoundPatch:
    words: dict[str, Any] = {word: facts[word] for word in WORDS if facts.get(word)}
    patch = FoundPatch(name=name, **words)
    if facts.get("x") or facts.get("y"):
        patch = replace(patch, x=_corner(facts, "x", where), y=_corner(facts, "y", where))
    if facts.get("mpp"):
        patch = replace(patch, mpp=_mpp(facts["mpp"], where))
    return patch


def _corner(facts: Mapping[str, str], axis: str, where: str) -> int:
    text = facts.get(axis, "")
    value = parse_whole_number(text)
    if value is None or not 0 <= value < 2**31:
        raise PatchImportError(f"{where}: {axis} is {text!r}; give both x and y, whole level-0 pixels from 0")
    return value


def _mpp(text: str, where: str) -> float:
    value = parse_number(text)
    if value is None or not is_plausible_mpp(value):
        raise PatchImportError(f"{where}: mpp is {text!r}; give µm per pixel from {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g}")
    return value


def _table_rows(table: Path, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """Rows of the table by the name of the image that each is about."""
    lookups: list[dict[str, list[str]]] = [{}, {}, {}]
    for name in names:
        path = PurePosixPath(name)
        for lookup, key in zip(lookups, (name, path.name, path.stem), strict=True):
            lookup.setdefault(key, []).append(name)
    rows: dict[str, Mapping[str, str]] = {}
    lines: dict[str, int] = {}
    found_table = read_table(
        table, what="the table", columns=("path", *WORDS, *NUMBERS), required=("path",), error=PatchImportError
    )
    for found_row in found_table.rows:
        line, row = found_row.line, found_row.cells
        if not row["path"]:
            raise PatchImportError(f"{table}, line {line}: the column 'path' is empty; name the image")
        written = row["path"].replace("\\", "/").removeprefix("./")
        found = next((lookup[written] for lookup in lookups if written in lookup), [])
        if not found:
            raise PatchImportError(
                f"{table}, line {line}: there is no image {row['path']!r}; write paths below the input folder, such as "
                f"{names[0]!r}, or delete the line"
            )
        if len(found) > 1:
            raise PatchImportError(
                f"{table}, line {line}: {row['path']!r} may be any of {_listed(found)}; write the path below the "
                "input folder"
            )
        if found[0] in rows:
            raise PatchImportError(
                f"{table}, lines {lines[found[0]]} and {line}: {found[0]!r} stands there twice; keep one"
            )
        rows[found[0]] = row
        lines[found[0]] = line
    return rows


def _listed(words: Sequence[str], most: int = 8) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
