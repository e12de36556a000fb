"""Tables as CSV, the same bytes from the same values."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def csv_parts(tables: Iterable[Any]) -> Iterator[bytes]:
    """The bytes of a CSV file (UTF-8, comma, quotes where needed) from pyarrow tables of the same columns.

    Floats have at most six decimals; what is missing is empty.
    """
    from pyarrow import csv

    header = True
    for table in tables:
        sink = io.BytesIO()
        csv.write_csv(_plain(table), sink, csv.WriteOptions(include_header=header, quoting_style="needed"))
        header = False
        yield sink.getvalue()


def _plain(table: Any) -> Any:
    """The same table with texts as texts, and floats as they are read."""
    import pyarrow as pa

    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_floating(column.type):
            values = np.round(column.to_numpy().astype(np.float64), 6)
            column = pa.array(values, mask=np.isnan(values))
        columns[name] = column
    return pa.table(columns)
