"""What must not be trained on: patients, samples, slides or sites of a list, patches like an evaluation set's.

A line of a list names one of: a slide (its ``slide_id``, its file's name with or without folders and extension), a
patient, a sample, a site, or a TCGA barcode of any length. A barcode matches by whole components from the left:
``TCGA-A2-A1G0`` all slides of that patient, ``TCGA-A2-A1G0-01`` those of its sample type 01 whatever the vial,
``TCGA-A2`` those of that tissue source site. Case does not matter; empty lines and what follows a ``#`` are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import Vectors
from wsicurate.curation.neighbours.search import nearest_rows
from wsicurate.errors import CurationError

#: DINOv2's threshold against evaluation sets (arXiv 2304.07193, App. A): made for web images and SSCD vectors. On H&E
#: it takes what only looks alike.
DINOV2_SIMILARITY = 0.45

_BARCODE = re.compile(r"TCGA(-[0-9A-Z]+)+")
_LONGER_COMPONENT = {3: 2, 4: 2}  # sample type and vial (01Z), portion and analyte (01D): two digits, then a letter


@dataclass(frozen=True, kw_only=True)
class SlideNames:
    """By what a slide can be named in a list; None where not known.

    Attributes:
        slide_id: the store's name for it.
        name: its file's name, folders before it allowed.
        patient: of the slide table, or of the barcode.
        sample: likewise.
        site: likewise.
        barcode: its full TCGA barcode.
    """

    slide_id: str
    name: str | None = None
    patient: str | None = None
    sample: str | None = None
    site: str | None = None
    barcode: str | None = None


@dataclass(frozen=True, kw_only=True)
class ListLine:
    """A line of a list, and what it matched.

    Attributes:
        number: from 1.
        text: as it stands there, without comment and blanks.
        slides: rows of the slides that it matched, ascending.
        matched_by: for each of them ``slide_id``, ``name``, ``patient``, ``sample``, ``site`` or ``barcode``.
    """

    number: int
    text: str
    slides: tuple[int, ...]
    matched_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ListMatch:
    """A list, matched.

    Attributes:
        listed: bool, (slides,).
        line_of: int64, (slides,), position in ``lines`` of the first that matched; -1 for none.
        lines: every line that names something.
    """

    listed: NDArray[np.bool_]
    line_of: NDArray[np.int64]
    lines: tuple[ListLine, ...]

    @property
    def unmatched(self) -> tuple[ListLine, ...]:
        """The lines that matched nothing."""
        return tuple(line for line in self.lines if not line.slides)


@dataclass(frozen=True, kw_only=True)
class Similar:
    """Patches beside an evaluation set.

    Attributes:
        similar: bool, (n,), the largest similarity is above the threshold.
        nearest: int64, (n,), row of the most similar evaluation patch.
        similarity: float32, (n,), cosine to it.
    """

    similar: NDArray[np.bool_]
    nearest: NDArray[np.int64]
    similarity: NDArray[np.float32]


def match_list(lines: Iterable[str], slides: Sequence[SlideNames]) -> ListMatch:
    """Match the lines of a list to slides.

    Args:
        lines: of a text file.
        slides: the store's.

    Returns:
        What matched what; see ``unmatched`` for lines that are misspelt or of another cohort.

    Raises:
        CurationError: if the list is empty, or if not one line matches.
    """
    texts = [
        (number, text)
        for number, line in enumerate(lines, start=1)
        if (text := re.sub(r"(^|\s)#.*", "", line.lstrip("\ufeff")).strip())
    ]
    if not texts:
        raise CurationError("the list of what to leave out names nothing: all lines are empty or comments")
    index = _index(slides)
    found: list[ListLine] = []
    line_of = np.full(len(slides), -1, dtype=np.int64)
    for number, text in texts:
        matched = _matched(text, index)
        for row in matched:
            if line_of[row] < 0:
                line_of[row] = len(found)
        rows = tuple(sorted(matched))
        found.append(ListLine(number=number, text=text, slides=rows, matched_by=tuple(matched[r] for r in rows)))
    if not bool((line_of >= 0).any()):
        examples = ", ".join(repr(text) for _, text in texts[:3])
        raise CurationError(
            f"none of the {len(texts)} lines of the list names a patient, sample, slide or site of this store "
            f"({examples}{', ...' if len(texts) > 3 else ''}); is it the list of another cohort?"
        )
    return ListMatch(listed=line_of >= 0, line_of=line_of, lines=tuple(found))


def similar_to(evaluation_vectors: Vectors, vectors: Vectors, threshold: float = DINOV2_SIMILARITY) -> Similar:
    """Patches whose similarity to any evaluation patch is above a threshold: DINOv2's rule, with no look at the pixels.

    Args:
        evaluation_vectors: (e, d).
        vectors: (n, d), of the same encoder.
        threshold: cosine, -1 to 1.

    Returns:
        The verdict and its evidence; ties to the lower evaluation row.

    Raises:
        CurationError: if the evaluation set is empty or the threshold cannot be.
        VectorError: if vectors differ in length, are zero or not finite.
    """
    if not len(evaluation_vectors):
        raise CurationError("the evaluation set is empty: it holds no vector to compare with")
    if not -1 <= threshold <= 1:
        raise CurationError(f"the threshold is {threshold}; a cosine lies between -1 and 1")
    near = nearest_rows(vectors, evaluation_vectors, 1)
    similarity = near.similarity[:, 0]
    return Similar(similar=similarity > threshold, nearest=near.index[:, 0], similarity=similarity)


def _index(slides: Sequence[SlideNames]) -> dict[str, list[tuple[int, str]]]:
    """Everything that a line may say -> slides and by what; the most telling first."""
    index: dict[str, list[tuple[int, str]]] = {}
    for row, slide in enumerate(slides):
        keys: list[tuple[str, str]] = []
        for by, value in (("slide_id", slide.slide_id), ("slide_id", unquote(slide.slide_id)), ("name", slide.name)):
            if value:
                keys += [(key, by) for key in _names(value)]
        for by, value in (("sample", slide.sample), ("patient", slide.patient), ("site", slide.site)):
            if value:
                keys.append((value.strip().upper(), by))
        if slide.barcode:
            keys += [(prefix, "barcode") for prefix in _prefixes(slide.barcode.strip().upper())]
        first: dict[str, str] = {}
        for key, by in keys:
            first.setdefault(key, by)
        for key, by in first.items():
            index.setdefault(key, []).append((row, by))
    return index


def _names(value: str) -> list[str]:
    """A file's name with its folders, without them, and without its extension."""
    path = PurePosixPath(value.strip().replace("\\", "/").upper())
    return [str(path), path.name, str(path.with_suffix("")), path.stem] if path.name else [str(path)]


def _prefixes(barcode: str) -> list[str]:
    """All that names this barcode: its components from the left, and vial and analyte left off."""
    parts = barcode.split("-")
    prefixes = []
    for count in range(2, len(parts) + 1):
        prefixes.append("-".join(parts[:count]))
        digits = _LONGER_COMPONENT.get(count - 1)
        if digits and len(parts[count - 1]) > digits:
            prefixes.append("-".join([*parts[: count - 1], parts[count - 1][:digits]]))
    return prefixes


def _matched(text: str, index: Mapping[str, list[tuple[int, str]]]) -> dict[int, str]:
    """Row of each slide that a line names -> by what."""
    path = PurePosixPath(text.replace("\\", "/").upper())
    # A path of another machine is known by its file's name, unless it is one of this store's.
    matched = dict(index.get(str(path), ()) or index.get(path.name, ()))
    if barcode := _BARCODE.match(path.name):
        # TCGA-..-DX1.UUID.svs is the slide TCGA-..-DX1, whichever release the file is of.
        for row, by in index.get(barcode.group(), ()):
            matched.setdefault(row, by)
    return matched
