"""Which row of the slide table is about which slide, and which slides are one."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wsicurate.errors import ConfigError, SlideTableError
from wsicurate.slides.names import safe_name
from wsicurate.slides.source import SlideSource
from wsicurate.slides.table import SlideRow


class Candidate(NamedTuple):
    """A slide, and the input folder, or the folder of the input file, that it was found in."""

    source: SlideSource
    root: Path

    @property
    def path(self) -> Path:
        """The path that its name stands for: its file, or the folder or series that it is called after."""
        return self.root.parent / self.source.name


def unique_sources(slides: list[Candidate]) -> list[SlideSource]:
    """Sorted by slide_id; a file that is reached twice, through overlapping inputs or links, counts once."""
    by_id: dict[str, Candidate] = {}
    seen: set[str] = set()
    for slide in slides:
        file = os.path.realpath(slide.source.path)
        if file in seen:
            continue
        seen.add(file)
        other = by_id.setdefault(slide.source.slide_id, slide)
        if other is not slide:
            raise ConfigError(_collision(other, slide))
    return [by_id[slide_id].source for slide_id in sorted(by_id)]


def _collision(one: Candidate, other: Candidate) -> str:
    """What is wrong about two slides of one slide_id, and what helps."""
    what = f"{one.path} and {other.path} would both be called {one.source.slide_id!r}; "
    if one.source.name != other.source.name:  # by the table
        return f"{what}give one of them another slide_id in --slide-table"
    above = [one.root.parent, other.root.parent]
    while above[0].name == above[1].name and above[0] != above[0].parent and above[1] != above[1].parent:
        above = [path.parent for path in above]
    instead = "" if above[0].name == above[1].name else f"name the folders {above[0]} and {above[1]} instead, or "
    return (
        f"{what}{instead}give one of them another slide_id in --slide-table, in a row whose slide is "
        f"{_distinct(other.path, [one.path])!r}"
    )


def _distinct(path: Path, others: Iterable[Path]) -> str:
    """The shortest end of a path, from its name on, that is not the end of any of the others."""
    parts, rest = path.parts, [other.parts for other in others]
    for count in range(2, len(parts)):
        if not any(other[-count:] == parts[-count:] for other in rest):
            return "/".join(parts[-count:])
    return path.as_posix()


def with_row(slide: SlideSource, row: SlideRow | None) -> SlideSource:
    """The slide with its row of the slide table, and the slide_id that it gives."""
    if row is None:
        return slide
    return replace(slide, row=row, slide_id=slide.slide_id if row.slide_id is None else safe_name(row.slide_id))


def match_rows(
    candidates: list[Candidate], rows: Sequence[SlideRow], table: Path | None
) -> tuple[dict[int, SlideRow], list[SlideRow]]:
    """Row of each candidate by index, and the rows that are left."""
    lookups = _Lookups(candidates)
    matched: dict[int, SlideRow] = {}
    unmatched: list[SlideRow] = []
    for row in rows:
        found = lookups.find(row.slide)
        files = {os.path.realpath(candidates[index].source.path): index for index in sorted(found, reverse=True)}
        if not found:
            unmatched.append(row)
        elif len(files) > 1:
            paths = [candidates[index].path for index in sorted(files.values())]
            names = ", ".join(_distinct(path, [other for other in paths if other != path]) for path in paths)
            raise SlideTableError(
                f"{table}, line {row.line}: {row.slide!r} may be any of {names}; write more of the path, as here"
            )
        else:
            for index in found:
                if index in matched:
                    raise SlideTableError(
                        f"{table}, lines {matched[index].line} and {row.line}: {matched[index].slide!r} and "
                        f"{row.slide!r} are both {candidates[index].source.name}; keep one"
                    )
                matched[index] = row
    return matched, unmatched


class _Lookups:
    """Finds candidates by what a row of the slide table calls them."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self._made: dict[tuple[int, bool], dict[str, set[int]]] = {}

    def find(self, written: str) -> set[int]:
        """Indices of the candidates that a row names."""
        written = written.replace("\\", "/").removeprefix("./")
        for is_composed in (False, True):
            wanted = unicodedata.normalize("NFC", written) if is_composed else written
            for number in range(len(_KEYS)):
                found = self._lookup(number, is_composed).get(wanted)
                if found:
                    return found
        return set()

    def _lookup(self, number: int, is_composed: bool) -> dict[str, set[int]]:
        lookup = self._made.get((number, is_composed))
        if lookup is None:
            lookup = self._made[number, is_composed] = defaultdict(set)
            for index, candidate in enumerate(self._candidates):
                for key in _KEYS[number](candidate):
                    lookup[unicodedata.normalize("NFC", key) if is_composed else key].add(index)
        return lookup


def _ends(candidate: Candidate) -> list[str]:
    """All ends of a candidate's path of more than one part, and the path."""
    parts = candidate.path.parts
    return [*("/".join(parts[-count:]) for count in range(2, len(parts))), candidate.path.as_posix()]


_KEYS: tuple[Callable[[Candidate], list[str]], ...] = (
    lambda candidate: [candidate.source.name.split("/", 1)[-1]],  # path below the input folder
    lambda candidate: [candidate.source.slide_id],
    lambda candidate: [PurePosixPath(candidate.source.name).name],
    lambda candidate: [PurePosixPath(candidate.source.name).stem],
    _ends,
    lambda candidate: [file.name for file in candidate.source.files],  # any file of a DICOM series
)
