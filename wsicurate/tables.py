"""Tables as people make them: CSV and TSV by Excel, R, pandas or hand, read one way wherever the command takes one.

The separator (comma, semicolon, tab) is the one that finds the wanted columns in the header. Only line feeds, carriage
returns and both end a line: a cell keeps every other character, and line ends too where it is quoted. A table that
cannot be read for certain is refused, with the line, what stands there and what to change; nothing is repaired.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsicurate.errors import WsicurateError, in_words
from wsicurate.files import open_file

#: Separators, in the order in which they are preferred where several find the same columns.
SEPARATORS = (",", ";", "\t")

#: Larger files are refused: a table is read as a whole.
MAX_BYTES = 2**30

_SAVE_AS = "save it as CSV in UTF-8"

#: How files begin that are given for tables and are none.
_NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or another zip file"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"SQLite format 3", "a database"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
)

_ENCODINGS = (  # marks at the beginning, longest first
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_IN_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[.,' \u00a0\u202f][0-9]{3})+")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: where it begins in the file, from 1.
        cells: text by column, without blanks around it; every column of the header is there.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table, its rows to come.

    Attributes:
        path: the file.
        columns: named ones, in the file's order; those that were asked for as they were asked for, whatever their case.
        rows: those that are not empty, in the file's order; read as one goes through them, once.
    """

    path: Path
    columns: Sequence[str]
    rows: Iterator[Row]


def read_table(
    path: Path,
    *,
    what: str,
    columns: Sequence[str],
    required: Sequence[str] = (),
    error: type[WsicurateError] = WsicurateError,
) -> Table:
    """Read a table with a header.

    Args:
        path: the file: UTF-8, or UTF-16 as Excel writes it; separated by commas, semicolons or tabs.
        what: how messages call it: ``the slide table``.
        columns: those with a meaning. The header may write them in any case, with blanks or hyphens for underscores.
        required: those of them without which it is not such a table.
        error: what is raised.

    Returns:
        The table. Columns without a name and rows without a filled cell are left out; cells that a row lacks are
        empty.

    Raises:
        error: if the file cannot be read, is no text, lacks a required column, or names one twice; while rows are read,
            if one has more cells than columns or quotes that are not closed. One line that names the file, the line
            and what to change.
    """
    name = f"{what} {path}"
    separator, text, skipped = _announced(read_text(path, what=what, error=error))
    known = {_plain(column): column for column in columns}
    separator = separator or _separator(text, known, {_plain(column) for column in required})
    records = _records(text, separator, name, skipped, error)
    header_line, header = next(records, (1, []))
    names = [known.get(_plain(cell), cell.strip()) for cell in header]
    missing = [column for column in required if column not in names]
    if missing:
        first = next((line for line in io.StringIO(text, newline="") if line.strip()), "").rstrip("\r\n")
        raise error(
            f"{name} has no column {missing[0]!r}; its header is {_shown(first)}. Name the column {missing[0]!r} "
            f"(known columns: {', '.join(columns)})"
        )
    twice = next((column for column in names if column and names.count(column) > 1), None)
    if twice is not None:
        raise error(f"{name}, line {header_line}: the header names the column {twice!r} twice; rename one")

    def rows() -> Iterator[Row]:
        for line, cells in records:
            if any(cells[len(names) :]):
                raise error(
                    f"{name}, line {line}: more cells than the header has columns ({_shown(separator.join(cells))}); "
                    "quote cells that hold the separator"
                )
            filled = dict(zip(names, cells, strict=False))
            yield Row(line, {column: filled.get(column, "") for column in names if column})

    return Table(path, tuple(column for column in names if column), rows())


def read_lines(path: Path, *, what: str, error: type[WsicurateError] = WsicurateError) -> list[str]:
    """The lines of a list, one name a line; encodings as in `read_table`.

    Separators and blanks at a line's end, and quotes around all of it, are left out, as Excel may write them.

    Raises:
        error: if the file cannot be read, or is no text.
    """
    lines = []
    for line in re.split(r"\r\n|\r|\n", read_text(path, what=what, error=error)):
        bare = line.rstrip(" \t,;")
        is_quoted = len(bare) > 1 and bare[0] == bare[-1] == '"'
        lines.append(bare[1:-1].replace('""', '"') if is_quoted else bare)
    return lines


def read_text(path: Path, *, what: str, error: type[WsicurateError] = WsicurateError) -> str:
    """The text of a file: UTF-8 with or without a mark, or UTF-16 or UTF-32 with one; line ends as they are.

    Raises:
        error: if the file is not there, is no regular file, is larger than `MAX_BYTES`, or is no such text.
    """
    name = f"{what} {path}"
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read() if size <= MAX_BYTES else b""
    except (OSError, ValueError) as problem:  # ValueError: a name with a NUL
        raise error(f"{name} cannot be read: {in_words(problem)}") from problem
    if size > MAX_BYTES:
        raise error(
            f"{name} has {size:,} bytes, and at most {MAX_BYTES:,} are read; give a table of names, not of data"
        )
    for magic, kind in _NO_TEXT:
        if data.startswith(magic):
            raise error(f"{name} is no text: it is {kind}; {_SAVE_AS}")
    encoding = next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), None) or _unmarked(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        kind = encoding.replace("utf-", "UTF-").removesuffix("-sig")
        line = data[: problem.start].count(b"\n") + 1
        hint = ", as in files of an older encoding such as Windows-1252" if kind == "UTF-8" else ""
        raise error(
            f"{name} is not {kind} text: line {line} holds the byte 0x{data[problem.start]:02x}{hint}; {_SAVE_AS}"
        ) from problem
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise error(f"{name} is no text: line {line} holds a NUL character; {_SAVE_AS}")
    return text.lstrip("\ufeff")


def parse_number(text: str) -> float | None:
    """A number as people write it, with a decimal point or a decimal comma; None for anything else.

    ``0.499``, ``0,499`` and ``4.99e-1`` are one number. Thousands separators (``1.234,5``), ``nan``, ``inf`` and what
    only Python takes for a number (``1_000``) are none.
    """
    text = text.strip()
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def parse_whole_number(text: str) -> int | None:
    """A whole number; None for anything else, and for what may hold a thousands separator: ``1.000`` and ``1,000``."""
    value = parse_number(text)
    if value is None or not value.is_integer() or abs(value) >= 2**53 or _IN_THOUSANDS.fullmatch(text.strip()):
        return None
    return int(value)


def _unmarked(data: bytes) -> str:
    """The encoding of text without a mark: UTF-16 where every other byte of its beginning is zero."""
    start = data[:200]
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if len(start) >= 8 and zeros.count(0) > 0.9 * len(zeros) and start.count(0) < 0.6 * len(start):
            return encoding
    return "utf-8"


def _announced(text: str) -> tuple[str | None, str, int]:
    """The separator that a first line ``sep=;``, as Excel takes it, announces; the text without that line."""
    found = re.match(r'"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', text, re.IGNORECASE)
    return (found[1], text[found.end() :], 1) if found else (None, text, 0)


def _separator(text: str, known: Container[str], required: Container[str]) -> str:
    """The separator with which the header names most of the wanted columns, then most columns at all."""

    def found(separator: str) -> tuple[int, int, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            header = {_plain(cell) for cell in next((cells for cells in reader if any(map(str.strip, cells))), [])}
        except csv.Error:
            return (-1, -1, -1)
        return (sum(cell in required for cell in header), sum(cell in known for cell in header), len(header))

    return max(SEPARATORS, key=found)


def _records(
    text: str, separator: str, name: str, skipped: int, error: type[WsicurateError]
) -> Iterator[tuple[int, list[str]]]:
    """The records that are not empty, each with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader, None)
        except csv.Error as problem:
            raise error(
                f"{name}, line {line}: {problem}; close the quotes that open there, double those within a quoted cell, "
                f"or keep cells below {csv.field_size_limit():,} characters"
            ) from problem
        if cells is None:
            return
        cells = [cell.strip(" \t") for cell in cells]
        if any(cells):
            yield line, cells


def _plain(column: str) -> str:
    """A column's name without case, blanks around it, and differences of blank, hyphen and underscore."""
    return re.sub(r"[\s_-]+", "_", column.strip()).casefold()


def _shown(text: str, most: int = 200) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}...")
