"""Embeddings of a slide's patches: one float16 array per encoder below its group, its ``zarr.json`` written last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, StoreFormatError
from wsicurate.store.arrays import ArrayMetadata, read_array, write_array
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.checksums import CHECKSUM, UNSEALED, digest
from wsicurate.store.layout import ROOT, embedding_path, slide_path
from wsicurate.store.records import ATTRIBUTE, our_attributes
from wsicurate.store.schema import check_format, known_fields, require

#: The latest format of an embedding that is known.
_FORMAT = 1

#: What the settings of an embedding may have.
_SETTINGS = {"device": str, "precision": str, "batch_size": int}


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
        is_sealed: whether the attributes had a checksum when they were read. Not stored.
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
    is_sealed: bool = field(default=True, compare=False)

    def attributes(self) -> dict[str, Any]:
        """The attributes of the array, to be sealed."""
        fields = dataclasses.asdict(self)
        del fields["is_sealed"]
        return {ATTRIBUTE: {**fields, CHECKSUM: UNSEALED}}

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """Parse an array's ``zarr.json``; ``name`` is for messages.

        Raises:
            StoreFormatError: if it is that of an embedding of a later format.
            CorruptStoreError: if it is not that of an embedding, does not fit its checksum, or a field is missing or of
                another type; the message names it.
        """
        attributes = our_attributes(data, name)
        check_format(attributes, _FORMAT, name)
        attributes.pop("is_sealed", None)
        record: Self = known_fields(cls, attributes, name)
        require(record.settings, {}, name, below="settings", optional=_SETTINGS)
        return dataclasses.replace(record, is_sealed=CHECKSUM in attributes)


def hash_vectors(vectors: NDArray[np.float16]) -> str:
    """BLAKE2b-128 of vectors, little-endian float16 in C order: 32 hexadecimal digits."""
    return digest([np.ascontiguousarray(vectors, dtype="<f2").tobytes()])


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
    store.delete(f"{path}/{ROOT}")
    write_array(
        store,
        path,
        stored,
        dimension_names=("patch", "feature"),
        attributes=record.attributes(),
        is_sealed=True,
    )
    return record


def remove_embedding(store: ByteStore, key: str, encoder: str) -> None:
    """Remove an embedding, its mark first."""
    path = embedding_path(key, encoder)
    store.delete(f"{path}/{ROOT}")
    for value in list(store.keys(path)):
        store.delete(value)


def remove_stale_embeddings(store: ByteStore, key: str, content_hash: str) -> None:
    """Remove the embeddings of a slide that are of other patches than those of ``content_hash``, or cannot be read."""
    for name in store.children(f"{slide_path(key)}/embeddings"):
        if name == ROOT:
            continue
        try:
            record = read_embedding_record(store, key, name)
        except (CorruptStoreError, StoreFormatError):
            record = None
        if record is None or record.content_hash != content_hash:
            remove_embedding(store, key, name)


def embedding_names(store: ByteStore, key: str) -> tuple[str, ...]:
    """Encoders whose embedding of the slide is finished, sorted."""
    folder = f"{slide_path(key)}/embeddings"
    names = (name for name in store.children(folder) if name != ROOT)
    return tuple(sorted(name for name in names if ROOT in store.children(f"{folder}/{name}")))


def read_embedding_record(store: ByteStore, key: str, encoder: str) -> EmbeddingRecord | None:
    """Attributes of an embedding, or None if it is not finished.

    Raises:
        StoreFormatError: if they are of a later format.
        CorruptStoreError: if they cannot be read, or are those of another encoder.
    """
    path = embedding_path(key, encoder)
    try:
        data = store.get(f"{path}/{ROOT}")
    except KeyError:
        return None
    return _record(data, path, encoder)


def _record(data: bytes, path: str, encoder: str) -> EmbeddingRecord:
    """Attributes of the embedding at a path, once they say that they are this encoder's."""
    record = EmbeddingRecord.from_json(data, path)
    if record.encoder != encoder:
        raise CorruptStoreError(f"{path}: its attributes call it {record.encoder!r}; embed it again")
    return record


def read_embedding(store: ByteStore, key: str, encoder: str) -> NDArray[np.float16]:
    """The vectors of a slide's patches, float16, (n, dim), in the order of its patches.

    Raises:
        CorruptStoreError: if they are missing, damaged, not finite, or not those of the record.
        StoreFormatError: if the array is not of the store's profile.
    """
    path = embedding_path(key, encoder)
    try:
        data = store.get(f"{path}/{ROOT}")
    except KeyError:
        raise CorruptStoreError(f"the array {path} has no {ROOT}") from None
    record, metadata = _record(data, path, encoder), ArrayMetadata.from_json(data, path)
    if metadata.dtype != "float16" or len(metadata.shape) != 2 or metadata.shape[1] != record.dim:
        raise CorruptStoreError(f"{path}: its values are {metadata.dtype} {metadata.shape}; embed it again")
    vectors: NDArray[np.float16] = read_array(store, path)
    if record.vectors_hash and hash_vectors(vectors) != record.vectors_hash:
        raise CorruptStoreError(f"{path}: its vectors are not those of its hash; embed it again")
    if not np.isfinite(vectors).all():
        raise CorruptStoreError(f"{path}: some of its values are not finite; embed it again")
    return vectors
