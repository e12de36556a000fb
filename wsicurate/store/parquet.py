"""Parquet files as values of a store: the same table, the same bytes; read whole, or a few columns alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsicurate.store.bytestore import ByteStore

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that are compressed together: what is read for a few rows of a column.
_GROUP_ROWS = 131_072


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file, each of whose pages has a checksum; the same table gives the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS, write_page_checksum=True)
    return bytes(sink.getvalue())


def read_parquet(data: bytes) -> pa.Table:
    """The table of a Parquet file, read by the calling thread alone.

    Raises:
        pyarrow.ArrowInvalid, OSError: if it is none, or damaged.
    """
    return _read(io.BytesIO(data), None)


def read_columns(store: ByteStore, path: str, columns: Sequence[str]) -> pa.Table:
    """A few columns of a Parquet file; of the rest of it, nothing is read.

    Raises:
        KeyError: if there is no such file.
        pyarrow.ArrowInvalid, OSError: if it is none, or if a page of theirs is damaged.
    """
    return _read(_opened(store, path), list(columns))


def column_names(store: ByteStore, path: str) -> list[str]:
    """Names of the columns of a Parquet file; raises as `read_columns` does."""
    import pyarrow.parquet as pq

    return list(pq.ParquetFile(_opened(store, path), pre_buffer=False).schema_arrow.names)


def _opened(store: ByteStore, path: str) -> io.BufferedReader:
    return io.BufferedReader(_Value(store, path), 1 << 20)


def _read(file: io.BufferedIOBase, columns: list[str] | None) -> pa.Table:
    # `pyarrow.parquet.read_table` starts pools of threads, even with ``use_threads=False``; with pyarrow 26.0.1 a
    # script that ends soon after aborted at its end (status 134) as often as not.
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
    return parquet.read(columns=columns, use_threads=False)


class _Value(io.RawIOBase):
    """A value of a store as a file that is read in ranges."""

    def __init__(self, store: ByteStore, key: str) -> None:
        self._store = store
        self._key = key
        self._size = store.size(key)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._place))
        data = self._store.get(self._key, self._place, wanted) if wanted else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
