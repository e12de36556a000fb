"""Zarr v3 arrays of the store's profile: metadata, whole small arrays, and sharded arrays of one item per chunk."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import ChunkCodec, Values, ZstdCodec, codec_from_json
from wsicurate.store.shards import read_chunk, read_index, shard_parts

#: Patches per shard.
SHARD_ITEMS = 1024

#: Shards that are being written at once.
_SHARDS_IN_FLIGHT = 2

_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def to_json(document: Mapping[str, Any]) -> bytes:
    """A JSON document as the store writes it: indented, in the order given, in ASCII with escapes."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The ``zarr.json`` of a group."""
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


@dataclass(frozen=True, kw_only=True)
class ArrayMetadata:
    """What the ``zarr.json`` of an array says.

    Attributes:
        shape: of the array.
        dtype: numpy's name, which is Zarr's.
        chunk: shape of what is encoded as one.
        shard: shape of what is stored under one key, or None where that is the chunk.
        codec: of the chunks.
        dimension_names: one per axis.
        attributes: free.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None = None
    codec: ChunkCodec = field(default_factory=ZstdCodec)
    dimension_names: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The ``zarr.json``."""
        codecs = self.codec.to_json()
        if self.shard is not None:
            configuration = {
                "chunk_shape": list(self.chunk),
                "codecs": codecs,
                "index_codecs": _INDEX_CODECS,
                "index_location": "end",
            }
            codecs = [{"name": "sharding_indexed", "configuration": configuration}]
        document: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shard or self.chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if self.dtype == "bool" else 0,
            "codecs": codecs,
            "attributes": dict(self.attributes),
            "storage_transformers": [],
        }
        if self.dimension_names:
            document["dimension_names"] = list(self.dimension_names)
        return to_json(document)

    @classmethod
    def from_json(cls, data: bytes, name: str) -> ArrayMetadata:
        """Parse a ``zarr.json``.

        Raises:
            StoreFormatError: if it is not an array of the store's profile; ``name`` says which.
        """
        try:
            document = json.loads(data)
            grid = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
            chain = document["codecs"]
            sharding = chain[0]["configuration"] if chain[0]["name"] == "sharding_indexed" else None
            if document["zarr_format"] != 3 or document["node_type"] != "array":
                raise StoreFormatError("it is not a Zarr v3 array")
            if sharding is not None and sharding["index_location"] != "end":
                raise StoreFormatError("its shards keep their index at the start")
            return cls(
                shape=tuple(document["shape"]),
                dtype=document["data_type"],
                chunk=grid if sharding is None else tuple(sharding["chunk_shape"]),
                shard=None if sharding is None else grid,
                codec=codec_from_json(chain if sharding is None else sharding["codecs"]),
                dimension_names=tuple(document.get("dimension_names") or ()),
                attributes=document.get("attributes", {}),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreFormatError(f"the metadata of the array {name} cannot be used: {error}") from error

    def parts(self) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """The stored keys below the array (``c/0/0``, ...) and the part of the array that each holds."""
        stored = self.shard or self.chunk
        counts = [-(-length // step) for length, step in zip(self.shape, stored, strict=True)]
        for position in itertools.product(*(range(count) for count in counts)):
            part = tuple(
                slice(index * step, min((index + 1) * step, length))
                for index, step, length in zip(position, stored, self.shape, strict=True)
            )
            yield "/".join(["c", *map(str, position)]), part


def read_metadata(store: ByteStore, path: str) -> ArrayMetadata:
    """Metadata of the array at ``path``.

    Raises:
        CorruptStoreError: if there is none.
        StoreFormatError: if it is not of the store's profile.
    """
    try:
        data = store.get(f"{path}/zarr.json")
    except KeyError:
        raise CorruptStoreError(f"the array {path} has no zarr.json") from None
    return ArrayMetadata.from_json(data, path)


def write_array(
    store: ByteStore,
    path: str,
    values: Values,
    *,
    dimension_names: Sequence[str],
    codec: ChunkCodec | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a small array as one chunk, then its metadata."""
    metadata = ArrayMetadata(
        shape=values.shape,
        dtype=str(values.dtype),
        chunk=tuple(max(1, length) for length in values.shape),
        codec=codec or ZstdCodec(),
        dimension_names=tuple(dimension_names),
        attributes=attributes or {},
    )
    for key, part in metadata.parts():
        store.put(f"{path}/{key}", [metadata.codec.encode(values[part])])
    store.put(f"{path}/zarr.json", [metadata.to_json()])


def read_array(store: ByteStore, path: str) -> Values:
    """Read a whole array that is not sharded.

    Raises:
        CorruptStoreError: if a chunk is missing or damaged.
        StoreFormatError: if its metadata is not of the store's profile.
    """
    metadata = read_metadata(store, path)
    dtype = np.dtype(metadata.dtype)
    values = np.empty(metadata.shape, dtype=dtype)
    for key, part in metadata.parts():
        try:
            data = store.get(f"{path}/{key}")
        except KeyError:
            raise CorruptStoreError(f"{path}/{key} is missing") from None
        try:
            chunk = metadata.codec.decode(data, metadata.chunk, dtype)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{path}/{key}: {error}") from error
        values[part] = chunk[tuple(slice(0, piece.stop - piece.start) for piece in part)]
    return values


class ItemArray:
    """A sharded array whose chunks are single items along the first axis: the patches of a slide.

    Reads are thread-safe. The index of each shard is read once and kept.
    """

    def __init__(self, store: ByteStore, path: str, metadata: ArrayMetadata) -> None:
        item = (1, *metadata.shape[1:])
        if metadata.shard is None or metadata.chunk != item or metadata.shard[1:] != item[1:]:
            raise StoreFormatError(f"the array {path} is not sharded by single items along its first axis")
        self.metadata = metadata
        self._store = store
        self._path = path
        self._slots = metadata.shard[0]
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
        shard, slot = divmod(item, self._slots)
        key = self.key(shard)
        try:
            if shard not in self._indices:
                self._indices[shard] = read_index(self._store, key, self._slots)
            return read_chunk(self._store, key, self._indices[shard], slot)
        except KeyError:
            raise CorruptStoreError(f"{key} is missing") from None

    def __getitem__(self, item: int) -> Values:
        try:
            values = self.metadata.codec.decode(self.encoded(item), self.metadata.chunk, self._dtype)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._path}, item {item}: {error}") from error
        return np.asarray(values[0])

    def key(self, shard: int) -> str:
        """Key of a shard."""
        return f"{self._path}/c/{shard}{self._tail}"

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self) // self._slots)


def write_items(store: ByteStore, path: str, items: Iterable[bytes], metadata: ArrayMetadata) -> None:
    """Write a sharded array of single items from their encoded chunks, then its metadata.

    Shards are written by threads, so that the next is being made while one waits for the disk; at most
    `_SHARDS_IN_FLIGHT` of them are in memory, and the one that is being made.

    Args:
        store: where.
        path: of the array.
        items: encoded chunks in order; as many as ``metadata.shape[0]``.
        metadata: with a ``shard``.
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
    store.put(f"{path}/zarr.json", [metadata.to_json()])
