"""What a curation knows of classes: labels of patches, from the store or from a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError
from wsicurate.steps.curating.pool import Pool
from wsicurate.tables import parse_number, parse_whole_number, read_table

#: ``--labels`` with this word takes the labels that the store holds.
FROM_STORE = "store"

#: Columns that say which patches a line labels, as text and as numbers.
_NAMES = ("slide_id", "slide", "patient")
_NUMBERS = ("mpp", "row", "x", "y")


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
                f"{pool.keys[0].rpartition('@')[0]!r}; correct the name or delete the line"
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
    table = read_table(path, what="the labels", columns=("label", *_NAMES, *_NUMBERS), error=CurationError)
    if "label" not in table.columns or not set(table.columns) & {"slide_id", "slide", "row", "patient"}:
        raise CurationError(
            f"the labels {path} have the columns {sorted(table.columns)}; name 'label' and one or more of 'slide_id', "
            "'slide', 'row', 'x', 'y', 'patient'"
        )
    for row in table.rows:
        named = {column: row.cells[column] for column in (*_NAMES, *_NUMBERS) if row.cells.get(column)}
        if not row.cells["label"] or not named:
            raise CurationError(f"{path}, line {row.line}: no label, or nothing that it labels; fill the cells")
        for column in _NUMBERS:
            read = parse_number if column == "mpp" else parse_whole_number
            if column in named and read(named[column]) is None:
                raise CurationError(
                    f"{path}, line {row.line}: no patch with {column} {named[column]!r}: give a "
                    f"{'number' if column == 'mpp' else 'whole number, without a thousands separator'}"
                )
        yield row.line, {"label": row.cells["label"], **named}


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
        if "mpp" in record:
            keys = self._pool.keys
            slides = {slide for slide in slides if keys[slide].rpartition("@")[2] == f"{parse_number(record['mpp']):g}"}
        wanted = {
            column: int(parse_whole_number(record[column]) or 0) for column in ("row", "x", "y") if column in record
        }
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
