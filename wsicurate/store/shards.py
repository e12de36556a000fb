"""Shards: many chunks in one value, with an index at the end.

To the letter of the ``sharding_indexed`` codec (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/):
chunks, then for each slot in C order its offset and length as little-endian uint64, both 2^64-1 where the slot is
empty, then the CRC-32C of that index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum, verify_checksum

_EMPTY = 2**64 - 1


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


def read_chunk(store: ByteStore, key: str, index: NDArray[np.uint64], slot: int) -> bytes:
    """Read one encoded chunk of a shard whose index is known.

    Raises:
        KeyError: if the shard is gone.
        CorruptStoreError: if the slot is empty or reaches beyond the shard.
    """
    offset, length = (int(value) for value in index[slot])
    if length == _EMPTY:
        raise CorruptStoreError(f"chunk {slot} of the shard {key} is missing")
    data = store.get(key, offset, length)
    if len(data) != length:
        raise CorruptStoreError(f"chunk {slot} of the shard {key} reaches beyond its end")
    return data
