"""Zarr v3 arrays of the store's profile: metadata, and whole small arrays."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.checksums import digest, seal
from wsicurate.store.codecs import ChunkCodec, Values, ZstdCodec, codec_from_json
from wsicurate.store.schema import check_format

#: The latest format of arrays that is known; a kind of array that gets another is read by its own number.
_FORMAT = 1

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
            StoreFormatError: if it is not an array of the store's profile, or of a later format; ``name`` says which.
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
            shape = tuple(document["shape"])
            chunk = grid if sharding is None else tuple(sharding["chunk_shape"])
            attributes = document.get("attributes", {})
            _check_shapes(shape, chunk, grid)
            if np.dtype(str(document["data_type"])).kind not in "biuf" or not isinstance(attributes, dict):
                raise StoreFormatError(f"its data type {document['data_type']!r} is not a plain number's")
            metadata = cls(
                shape=shape,
                dtype=document["data_type"],
                chunk=chunk,
                shard=None if sharding is None else grid,
                codec=codec_from_json(chain if sharding is None else sharding["codecs"]),
                dimension_names=tuple(document.get("dimension_names") or ()),
                attributes=attributes,
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise StoreFormatError(f"the metadata of the array {name} cannot be used: {error!r}") from error
        check_format(attributes, _FORMAT, f"the array {name}")
        return metadata

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


def _check_shapes(*shapes: tuple[Any, ...]) -> None:
    for shape in shapes:
        if (
            len(shape) != len(shapes[0])
            or any(type(length) is not int for length in shape)
            or min(shape, default=0) < 0
        ):
            raise StoreFormatError(f"its shapes {shapes} do not fit together")
    if 0 in (*shapes[1], *shapes[2]):
        raise StoreFormatError("its chunks are empty")


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


def attribute(metadata: ArrayMetadata, name: str, path: str) -> list[Any]:
    """An attribute of an array that must be a list.

    Raises:
        CorruptStoreError: if it is missing or something else; ``path`` says of which array.
    """
    value = metadata.attributes.get(name)
    if not isinstance(value, list):
        raise CorruptStoreError(f"the array {path} has no list {name!r} among its attributes")
    return value


def write_array(
    store: ByteStore,
    path: str,
    values: Values,
    *,
    dimension_names: Sequence[str],
    codec: ChunkCodec | None = None,
    attributes: Mapping[str, Any] | None = None,
    is_sealed: bool = False,
) -> str:
    """Write a small array as one chunk, then its metadata.

    Args:
        store: where.
        path: of the array.
        values: what.
        dimension_names: one per axis.
        codec: of the chunk; Zstandard by default.
        attributes: free.
        is_sealed: whether the attributes end in a checksum to be filled in.

    Returns:
        Its digest, as `array_digest` computes it.
    """
    metadata = ArrayMetadata(
        shape=values.shape,
        dtype=str(values.dtype),
        chunk=tuple(max(1, length) for length in values.shape),
        codec=codec or ZstdCodec(),
        dimension_names=tuple(dimension_names),
        attributes=attributes or {},
    )
    chunks = [(key, metadata.codec.encode(values[part])) for key, part in metadata.parts()]
    for key, chunk in chunks:
        store.put(f"{path}/{key}", [chunk])
    document = seal(metadata.to_json()) if is_sealed else metadata.to_json()
    store.put(f"{path}/zarr.json", [document])
    return digest([document, *(chunk for _, chunk in chunks)])


def array_digest(store: ByteStore, path: str, *, metadata_only: bool = False) -> str:
    """BLAKE2b-128 of an array's ``zarr.json`` and, unless ``metadata_only``, of its chunks in C order.

    Raises:
        CorruptStoreError: if something of it is missing.
        StoreFormatError: if its metadata is not of the store's profile.
    """
    metadata = read_metadata(store, path)
    names = ["zarr.json", *(() if metadata_only else (key for key, _ in metadata.parts()))]
    try:
        return digest(store.get(f"{path}/{name}") for name in names)
    except KeyError as error:
        raise CorruptStoreError(f"{error.args[0]} is missing") from None


def read_array(store: ByteStore, path: str) -> Values:
    """Read a whole array that is not sharded.

    Raises:
        CorruptStoreError: if a chunk is missing or damaged.
        StoreFormatError: if its metadata is not of the store's profile.
    """
    metadata = read_metadata(store, path)
    dtype = np.dtype(metadata.dtype)
    chunks = []
    for key, part in metadata.parts():
        try:
            data = store.get(f"{path}/{key}")
        except KeyError:
            raise CorruptStoreError(f"{path}/{key} is missing") from None
        try:
            chunk = metadata.codec.decode(data, metadata.chunk, dtype)
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{path}/{key}: {error}") from error
        chunks.append((part, chunk[tuple(slice(0, piece.stop - piece.start) for piece in part)]))
    if len(chunks) == 1:
        return chunks[0][1]
    values = np.empty(metadata.shape, dtype=dtype)  # no larger than what was read, whatever the metadata claims
    for part, chunk in chunks:
        values[part] = chunk
    return values
