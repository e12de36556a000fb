"""The slide table: what a lab knows of its slides and the files do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsicurate.config import MPP_RANGE, is_plausible_mpp
from wsicurate.errors import SlideTableError
from wsicurate.tables import Row, parse_number, read_table

#: Columns with a meaning; all but ``slide`` are optional, others are kept as they are.
COLUMNS = ("slide", "mpp", "patient", "slide_id", "label", "site", "kind")


@dataclass(frozen=True)
class SlideRow:
    """One row of the slide table.

    Attributes:
        slide: which slide it is about, as written.
        line: its line in the file, for messages.
        mpp: µm per level-0 pixel, or None.
        patient, slide_id, label, site, kind: text, or None where the cell is empty.
        extra: the other columns, as text.
    """

    slide: str
    line: int
    mpp: float | None = None
    patient: str | None = None
    slide_id: str | None = None
    label: str | None = None
    site: str | None = None
    kind: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def read_slide_table(path: Path) -> list[SlideRow]:
    """Read a slide table, as `wsicurate.tables` reads all tables.

    Args:
        path: the file. Its header names at least ``slide``; see `COLUMNS`.

    Returns:
        Its rows in file order.

    Raises:
        SlideTableError: if the file is missing, is not such a table, lacks the column ``slide``, has an empty
            ``slide``, an ``mpp`` that is no resolution, or names a slide twice.
    """
    table = read_table(path, what="the slide table", columns=COLUMNS, required=("slide",), error=SlideTableError)
    rows: list[SlideRow] = []
    seen: dict[str, int] = {}
    for found in table.rows:
        row = _row(path, found)
        if row.slide in seen:
            raise SlideTableError(
                f"{path}, lines {seen[row.slide]} and {row.line}: the slide {row.slide!r} stands there twice; keep one"
            )
        seen[row.slide] = row.line
        rows.append(row)
    return rows


def _row(path: Path, row: Row) -> SlideRow:
    cells = row.cells
    if not cells["slide"]:
        raise SlideTableError(
            f"{path}, line {row.line}: the column 'slide' is empty; name the slide or delete the line"
        )
    return SlideRow(
        slide=cells["slide"],
        line=row.line,
        mpp=_mpp(path, row.line, cells.get("mpp", "")),
        patient=cells.get("patient") or None,
        slide_id=cells.get("slide_id") or None,
        label=cells.get("label") or None,
        site=cells.get("site") or None,
        kind=(cells.get("kind") or "").upper() or None,
        extra={key: value for key, value in cells.items() if key not in COLUMNS},
    )


def _mpp(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    mpp = parse_number(text)
    if mpp is None or not is_plausible_mpp(mpp):
        raise SlideTableError(
            f"{path}, line {line}: mpp is {text!r}; give µm per pixel from {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g}, "
            "or leave the cell empty"
        )
    return mpp
