"""Embeddings of a slide's patches: one float16 array per encoder below its group, its ``zarr.json`` written last."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError
from wsicurate.store.arrays import read_array, read_metadata, write_array
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.layout import ROOT, embedding_path, slide_path
from wsicurate.store.records import ATTRIBUTE, known_fields


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecord:
    """Attributes of an embedding array.

    Attributes:
        encoder: name of the encoder, which is the array's name as well.
        dim: length of a vector.
        weights_hash: SHA-256 of the weights; of name and version for descriptors that have none.
        preprocessing: what was done to a patch before the encoder saw it: ``input_px``, ``mean``, ``std``, ...
        pooling: how tokens became one vector.
        mpp: µm per pixel that the encoder was made for, or None where it does not matter.
        licence: of the weights, as SPDX has it where it does.
        terms: what the licence says of derived data; empty where nothing is known.
        content_hash: of the patches, from the slide's record.
        settings: what the bytes depend on besides: device, precision, batch size.
        fingerprint: of all of the above.
        vectors_hash: BLAKE2b-128 of the vectors, little-endian float16 in C order.
    """

    encoder: str
    dim: int
    weights_hash: str
    preprocessing: Mapping[str, Any]
    pooling: str
    mpp: float | None
    licence: str
    terms: str
    content_hash: str
    settings: Mapping[str, Any]
    fingerprint: str
    vectors_hash: str = ""

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], name: str) -> Self:
        """Parse an array's attributes; ``name`` is for messages.

        Raises:
            CorruptStoreError: if they are not those of an embedding.
        """
        record: Self = known_fields(cls, attributes.get(ATTRIBUTE, {}), name)
        return record


def hash_vectors(vectors: NDArray[np.float16]) -> str:
    """BLAKE2b-128 of vectors, little-endian float16 in C order: 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(vectors, dtype="<f2").tobytes(), digest_size=16).hexdigest()


def write_embedding(
    store: ByteStore, key: str, record: EmbeddingRecord, vectors: NDArray[np.floating[Any]]
) -> EmbeddingRecord:
    """Write the vectors of a slide's patches; the array's ``zarr.json`` comes last and is its commit mark.

    The caller holds the lease on the slide.

    Args:
        store: where.
        key: name of the slide's group.
        record: attributes; the hash of the vectors is filled in here.
        vectors: (n, dim), finite, stored as float16.

    Returns:
        The record as written.

    Raises:
        ValueError: if the vectors are not (n, dim), or are not finite as float16.
        StoreWriteError: if the store cannot be written.
    """
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float16)
    if stored.ndim != 2 or stored.shape[1] != record.dim or not np.isfinite(stored).all():
        raise ValueError(f"{record.encoder}: {vectors.shape} vectors are not finite float16 of {record.dim} dimensions")
    record = dataclasses.replace(record, vectors_hash=hash_vectors(stored))
    path = embedding_path(key, record.encoder)
    remove_embedding(store, key, record.encoder)
    write_array(
        store,
        path,
        stored,
        dimension_names=("patch", "feature"),
        attributes={ATTRIBUTE: dataclasses.asdict(record)},
    )
    return record


def remove_embedding(store: ByteStore, key: str, encoder: str) -> None:
    """Remove an embedding, its mark first."""
    path = embedding_path(key, encoder)
    store.delete(f"{path}/{ROOT}")
    for value in list(store.keys(path)):
        store.delete(value)


def embedding_names(store: ByteStore, key: str) -> tuple[str, ...]:
    """Encoders whose embedding of the slide is finished, sorted."""
    folder = f"{slide_path(key)}/embeddings"
    names = (name for name in store.children(folder) if name != ROOT)
    return tuple(sorted(name for name in names if ROOT in store.children(f"{folder}/{name}")))


def read_embedding_record(store: ByteStore, key: str, encoder: str) -> EmbeddingRecord | None:
    """Attributes of an embedding, or None if it is not finished.

    Raises:
        CorruptStoreError: if they cannot be read.
    """
    path = embedding_path(key, encoder)
    if ROOT not in store.children(path):
        return None
    return EmbeddingRecord.from_attributes(read_metadata(store, path).attributes, path)


def read_embedding(store: ByteStore, key: str, encoder: str) -> NDArray[np.float16]:
    """The vectors of a slide's patches, float16, (n, dim), in the order of its patches.

    Raises:
        CorruptStoreError: if they are missing, damaged, or not those of the record.
    """
    path = embedding_path(key, encoder)
    vectors = np.asarray(read_array(store, path), dtype=np.float16)
    record = EmbeddingRecord.from_attributes(read_metadata(store, path).attributes, path)
    if record.vectors_hash and hash_vectors(vectors) != record.vectors_hash:
        raise CorruptStoreError(f"{path}: its vectors are not those of its hash; embed it again")
    return vectors
