"""Shards: many chunks in one value, with an index at the end.

To the letter of the ``sharding_indexed`` codec (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/):
chunks, then for each slot in C order its offset and length as little-endian uint64, both 2^64-1 where the slot is
empty, then the CRC-32C of that index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum, verify_checksum

_EMPTY = 2**64 - 1
_EMPTY_COMPACT = 2**32 - 1

#: Bytes that are read for nothing rather than left out: a seek costs more.
_GAP = 1 << 17

#: The longest read.
_LONGEST = 1 << 22


def index_bytes(slots: int) -> int:
    """Length of the index of a shard of ``slots`` chunks, checksum included."""
    return 16 * slots + 4


def shard_parts(chunks: Iterable[bytes], slots: int) -> Iterator[bytes]:
    """A shard, part by part: its chunks as they come, then the index.

    Args:
        chunks: encoded chunks of the first slots, at most ``slots`` of them.
        slots: number of slots; those beyond the chunks are empty.
    """
    index = np.full((slots, 2), _EMPTY, dtype="<u8")
    offset = 0
    for slot, chunk in enumerate(chunks):
        index[slot] = offset, len(chunk)
        offset += len(chunk)
        yield chunk
    yield append_checksum(index.tobytes())


def read_index(store: ByteStore, key: str, slots: int) -> NDArray[np.uint64]:
    """Read the index of a shard.

    Returns:
        uint64, (slots, 2): offset and length of each chunk.

    Raises:
        KeyError: if there is no such shard.
        CorruptStoreError: if the index is cut short or its checksum fails.
    """
    data = store.get(key, start=-index_bytes(slots))
    try:
        if len(data) != index_bytes(slots):
            raise CorruptStoreError("it is too short to hold its index")
        return np.frombuffer(verify_checksum(data), dtype="<u8").reshape(slots, 2)
    except CorruptStoreError as error:
        raise CorruptStoreError(f"the index of the shard {key} is damaged: {error}") from error


def compact(index: NDArray[np.uint64]) -> NDArray[np.unsignedinteger[Any]]:
    """The same index in half the memory, where the shard is shorter than 4 GiB."""
    if (index[index != _EMPTY] >= _EMPTY_COMPACT).any():
        return index
    return np.minimum(index, _EMPTY_COMPACT).astype(np.uint32)


def read_chunk(store: ByteStore, key: str, index: NDArray[np.unsignedinteger[Any]], slot: int) -> bytes:
    """Read one encoded chunk of a shard whose index is known, compact or not.

    Raises:
        KeyError: if the shard is gone.
        CorruptStoreError: if the slot is empty or reaches beyond the shard.
    """
    offset, length = _span(key, index, slot)
    data = store.get(key, offset, length)
    if len(data) != length:
        raise CorruptStoreError(f"chunk {slot} of the shard {key} reaches beyond its end")
    return data


def read_chunks(
    store: ByteStore, key: str, index: NDArray[np.unsignedinteger[Any]], slots: NDArray[np.integer[Any]]
) -> Iterator[bytes]:
    """Read encoded chunks of a shard in few long reads.

    What lies between two chunks is read with them where that is less than `_GAP`; one read is `_LONGEST` bytes long at
    most, or one chunk.

    Args:
        store: where.
        key: of the shard.
        index: of the shard, compact or not.
        slots: which, ascending.

    Raises:
        KeyError: if the shard is gone.
        CorruptStoreError: if a slot is empty or reaches beyond the shard.
    """
    run: list[tuple[int, int]] = []
    for slot in slots.tolist():
        offset, length = _span(key, index, slot)
        if run and not (0 <= offset - sum(run[-1]) < _GAP and offset + length - run[0][0] <= _LONGEST):
            yield from _read_run(store, key, run)
            run = []
        run.append((offset, length))
    if run:
        yield from _read_run(store, key, run)


def _read_run(store: ByteStore, key: str, run: list[tuple[int, int]]) -> Iterator[bytes]:
    begin = run[0][0]
    data = store.get(key, begin, sum(run[-1]) - begin)
    for offset, length in run:
        chunk = data[offset - begin : offset - begin + length]
        if len(chunk) != length:
            raise CorruptStoreError(f"a chunk of the shard {key} reaches beyond its end")
        yield chunk


def _span(key: str, index: NDArray[np.unsignedinteger[Any]], slot: int) -> tuple[int, int]:
    offset, length = (int(value) for value in index[slot])
    if length in (_EMPTY, _EMPTY_COMPACT):
        raise CorruptStoreError(f"chunk {slot} of the shard {key} is missing")
    return offset, length
