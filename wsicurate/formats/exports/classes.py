"""The classes of patches: what a column says of each, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsicurate.errors import ConfigError


def check_column(name: str, columns: Sequence[str]) -> None:
    """Raise `ConfigError` if there is no such column to take classes from."""
    if name not in columns:
        raise ConfigError(f"--by is {name!r}, and there is no such column; there are {', '.join(columns)}")


def class_texts(table: Any, name: str) -> list[str | None]:
    """The class of each row of a pyarrow table; None where it has none.

    Raises:
        ConfigError: if the column holds numbers with decimals, which are no classes.
    """
    import pyarrow as pa

    column = table[name]
    if pa.types.is_floating(column.type):
        raise ConfigError(f"--by is {name!r}, which holds numbers with decimals; give a column of texts or clusters")
    return [None if value is None else str(value) for value in column.to_pylist()]


def coarsest_cluster(columns: Sequence[str]) -> str | None:
    """The column of the coarsest clusters, or None where there are no clusters."""
    levels = [int(name.removeprefix("cluster_")) for name in columns if name.startswith("cluster_")]
    return f"cluster_{max(levels)}" if levels else None
