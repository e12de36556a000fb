"""Sharded arrays of one item per chunk: the patches of a slide."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.arrays import ArrayMetadata, read_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.checksums import digest
from wsicurate.store.codecs import Values
from wsicurate.store.shards import compact, index_bytes, read_chunk, read_chunks, read_index, shard_parts

#: Patches per shard.
SHARD_ITEMS = 1024

#: Shards that are being written at once.
_SHARDS_IN_FLIGHT = 2


class ItemArray:
    """A sharded array whose chunks are single items along the first axis: the patches of a slide.

    Reads are thread-safe. The index of each shard is read once and kept, in 8 bytes an item.

    Attributes:
        metadata: of the array.
        slots: items of a full shard.
    """

    def __init__(self, store: ByteStore, path: str, metadata: ArrayMetadata) -> None:
        item = (1, *metadata.shape[1:])
        if metadata.shard is None or metadata.chunk != item or metadata.shard[1:] != item[1:]:
            raise StoreFormatError(f"the array {path} is not sharded by single items along its first axis")
        self.metadata = metadata
        self._store = store
        self._path = path
        self.slots = metadata.shard[0]
        self._dtype = np.dtype(metadata.dtype)
        self._indices: dict[int, Any] = {}
        self._tail = "/0" * (len(metadata.shape) - 1)

    @classmethod
    def open(cls, store: ByteStore, path: str) -> ItemArray:
        """Open the array at ``path``; raises as `read_metadata` does."""
        return cls(store, path, read_metadata(store, path))

    def __len__(self) -> int:
        return self.metadata.shape[0]

    def encoded(self, item: int) -> bytes:
        """The stored bytes of an item, checksum included.

        Raises:
            CorruptStoreError: if the shard or the item is missing.
        """
        shard, slot = divmod(item, self.slots)
        key = self.key(shard)
        index = self._index(shard)
        try:
            return read_chunk(self._store, key, index, slot)
        except KeyError:
            raise CorruptStoreError(f"{key} is missing") from None

    def encoded_items(self, items: NDArray[np.integer[Any]]) -> Iterator[bytes]:
        """The stored bytes of ascending items, checksums included, in few long reads (see `shards.read_chunks`).

        Raises:
            CorruptStoreError: if a shard or an item is missing.
        """
        shards = items // self.slots
        for shard in np.unique(shards).tolist():
            try:
                yield from read_chunks(
                    self._store, self.key(shard), self._index(shard), items[shards == shard] % self.slots
                )
            except KeyError:
                raise CorruptStoreError(f"{self.key(shard)} is missing") from None

    def __getitem__(self, item: int) -> Values:
        return self.decode(item, self.encoded(item))

    def decode(self, item: int, data: bytes) -> Values:
        """The values of an item from its stored bytes.

        Raises:
            CorruptStoreError: if they are damaged; the message names the item.
        """
        try:
            values = self.metadata.codec.decode(data, self.metadata.chunk, self._dtype)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._path}, item {item}: {error}") from error
        return np.asarray(values[0])

    def read_into(self, item: int, out: Values) -> None:
        """The values of an item into memory that is there, contiguous and of an item's shape and type.

        Raises:
            CorruptStoreError: if the item is damaged or gone; the message names it.
        """
        data = self.encoded(item)
        try:
            self.metadata.codec.decode_into(data, out)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._path}, item {item}: {error}") from error

    def key(self, shard: int) -> str:
        """Key of a shard."""
        return f"{self._path}/c/{shard}{self._tail}"

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self) // self.slots)

    def check_layout(self) -> None:
        """Check that the shards hold their chunks one after the other and nothing else.

        Raises:
            CorruptStoreError: if a byte of a shard belongs to no chunk, or a chunk to two slots.
        """
        for shard in range(self.shards):
            key = self.key(shard)
            index = read_index(self._store, key, self.slots).astype(np.int64)
            filled = min(self.slots, len(self) - shard * self.slots)
            ends = np.cumsum(index[:filled, 1])
            begins = np.concatenate([[0], ends[:-1]])
            size = int(ends[-1]) + index_bytes(self.slots)
            if (index[filled:] != -1).any() or (index[:filled, 0] != begins).any() or self._store.size(key) != size:
                raise CorruptStoreError(f"{key} holds more than its chunks, or not in their order")

    def _index(self, shard: int) -> Any:
        if shard not in self._indices:
            try:
                self._indices[shard] = compact(read_index(self._store, self.key(shard), self.slots))
            except KeyError:
                raise CorruptStoreError(f"{self.key(shard)} is missing") from None
        return self._indices[shard]


def write_items(store: ByteStore, path: str, items: Iterable[bytes], metadata: ArrayMetadata) -> str:
    """Write a sharded array of single items from their encoded chunks, then its metadata.

    Shards are written by threads, so that the next is being made while one waits for the disk; at most
    `_SHARDS_IN_FLIGHT` of them are in memory, and the one that is being made.

    Args:
        store: where.
        path: of the array.
        items: encoded chunks in order; as many as ``metadata.shape[0]``.
        metadata: with a ``shard``.

    Returns:
        The digest of its metadata; a content hash speaks of the items.
    """
    if metadata.shard is None:
        raise ValueError("write_items needs sharded metadata")
    slots = metadata.shard[0]
    stream = iter(items)
    flying: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_SHARDS_IN_FLIGHT) as threads:
        for key, part in metadata.parts():
            chunks = list(itertools.islice(stream, part[0].stop - part[0].start))
            if len(flying) == _SHARDS_IN_FLIGHT:
                flying.popleft().result()
            flying.append(threads.submit(store.put, f"{path}/{key}", shard_parts(chunks, slots)))
        for shard in flying:
            shard.result()
    document = metadata.to_json()
    store.put(f"{path}/zarr.json", [document])
    return digest([document])
