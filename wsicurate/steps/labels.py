"""What a curation knows of classes: labels of patches, from the store or from a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError
from wsicurate.steps.pool import Pool

#: ``--labels`` with this word takes the labels that the store holds.
FROM_STORE = "store"


@dataclass(frozen=True)
class Labels:
    """Classes of patches.

    Attributes:
        codes: int32, (n,), -1 for patches without a label.
        names: what the codes mean, sorted.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]


def labels_of(pool: Pool, source: Path | str) -> Labels:
    """Labels of a pool.

    Args:
        pool: the patches.
        source: ``store``, or a CSV with a header: the column ``label``, and one or more of ``slide_id`` (or ``slide``:
            the readable name or its last part), ``row``, ``x``, ``y``, ``patient``. A line labels every patch that
            has all that it names; what no line names has no label.

    Raises:
        CurationError: if the table cannot be read, has no such columns, names patches that the store does not hold, or
            labels a patch twice in different ways; if the store holds no label.
    """
    if str(source) == FROM_STORE:
        values: Sequence[str | None] = pool.table["label"].to_pylist()
        if not any(values):
            raise CurationError(f"{pool.store.path} holds no label; give --labels a CSV, or tile with a slide table")
        return _coded(values)
    return _from_table(pool, Path(source))


def _coded(values: Sequence[str | None]) -> Labels:
    names = tuple(sorted({value for value in values if value}))
    numbers = {name: number for number, name in enumerate(names)}
    return Labels(np.array([numbers[value] if value else -1 for value in values], dtype=np.int32), names)


def _from_table(pool: Pool, path: Path) -> Labels:
    labels: list[str | None] = [None] * len(pool)
    found: dict[int, int] = {}
    index = _Index(pool)
    for line, record in _lines(path):
        label = record.pop("label")
        rows = index.find(record)
        if not len(rows):
            if pool.store.left_out:  # the line may be about a slide that does not read back
                continue
            what = ", ".join(f"{column} {value!r}" for column, value in record.items())
            raise CurationError(
                f"{path}, line {line}: the store holds no patch with {what}, for example "
                f"{pool.keys[0].rpartition('@')[0]!r}; mend the name or take the line out"
            )
        for row in rows.tolist():
            if labels[row] is not None and labels[row] != label:
                raise CurationError(
                    f"{path}, lines {found[row]} and {line}: a patch is {labels[row]!r} and {label!r}; keep one"
                )
            labels[row], found[row] = label, line
    return _coded(labels)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and filled cells of each line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CurationError(
            f"the labels {path} cannot be read: {error}; give a CSV in UTF-8, or the word store"
        ) from error
    reader = csv.DictReader(text.splitlines())
    columns = {name.strip() for name in reader.fieldnames or []}
    if "label" not in columns or not columns & {"slide_id", "slide", "row", "patient"}:
        raise CurationError(
            f"the labels {path} have the columns {sorted(columns)}; name 'label' and one or more of 'slide_id', "
            "'slide', 'row', 'x', 'y', 'patient'"
        )
    for record in _records(path, reader):
        cells = {str(key).strip(): str(value or "").strip() for key, value in record.items() if key is not None}
        named = {
            column: cells[column]
            for column in ("slide_id", "slide", "mpp", "row", "x", "y", "patient")
            if cells.get(column)
        }
        if not cells.get("label") or not named:
            raise CurationError(f"{path}, line {reader.line_num}: no label, or nothing that it labels; fill the cells")
        yield reader.line_num, {"label": cells["label"], **named}


def _records(path: Path, reader: csv.DictReader[str]) -> Iterator[dict[str | Any, str | Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise CurationError(f"the labels {path}, line {reader.line_num}: {error}; mend or take the line out") from error


class _Index:
    """Finds patches by what a line names."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._by: dict[str, dict[str, list[int]]] = {"slide_id": {}, "slide": {}, "patient": {}}
        for number, slide in enumerate(pool.store.slides.values()):
            known = slide.record
            for name in {known.slide_id, known.name, known.name.rpartition("/")[2], Path(known.name).stem}:
                self._by["slide"].setdefault(name, []).append(number)
            self._by["slide_id"].setdefault(known.slide_id, []).append(number)
            if known.patient:
                self._by["patient"].setdefault(known.patient, []).append(number)

    def find(self, record: dict[str, str]) -> NDArray[np.intp]:
        """Patches that have all that a line names."""
        named = [set(numbers.get(record[column], ())) for column, numbers in self._by.items() if column in record]
        slides = set.intersection(*named) if named else set(range(len(self._pool.keys)))
        try:
            numbers = {column: float(record[column]) for column in ("row", "x", "y", "mpp") if column in record}
        except ValueError:
            return np.empty(0, dtype=np.intp)
        if "mpp" in numbers:
            keys = self._pool.keys
            slides = {slide for slide in slides if keys[slide].rpartition("@")[2] == f"{numbers['mpp']:g}"}
        wanted = {column: int(value) for column, value in numbers.items() if column != "mpp" and value == int(value)}
        if len(wanted) < len(numbers) - ("mpp" in numbers):
            return np.empty(0, dtype=np.intp)
        parts = [np.empty(0, dtype=np.intp)]
        for slide in sorted(slides):
            start, stop = (int(value) for value in self._pool.starts[slide : slide + 2])
            rows = np.arange(start, stop)
            if "row" in wanted:
                rows = rows[wanted["row"] : wanted["row"] + 1] if wanted["row"] >= 0 else rows[:0]
            for axis, column in enumerate(("x", "y")):
                if column in wanted:
                    corners = self._pool.store.slides[self._pool.keys[slide]].xy[:, axis]
                    rows = rows[corners[rows - start] == wanted[column]]
            parts.append(rows)
        return np.concatenate(parts)
