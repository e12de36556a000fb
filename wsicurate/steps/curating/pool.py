"""All patches of a store side by side: who they are, what they scored, and their vectors on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, CurationError, EmbeddingMissingError, StoreFormatError, VectorError
from wsicurate.store.embeddings import EmbeddingRecord
from wsicurate.store.layout import SCRATCH
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.int32]

#: Vectors copied at once, and patches decoded at once to see whether they read back.
_BLOCK_ROWS, _READ_ROWS = 65_536, 1_024

#: What is raised where a slide does not read back.
DAMAGE = (CorruptStoreError, StoreFormatError, VectorError)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The patches of a store, in the order of its index: by slide key, then row.

    Attributes:
        store: the open store.
        table: as `Store.table` gives it.
        keys: of the slides that have patches or not, in order.
        starts: int64, (slides + 1,): first patch of each slide.
        slide: int32, (n,): number of the slide in ``keys``.
        patient: int32, (n,): a code per patient; a slide whose patient is not known has a code of its own, so that
            no patient is taken for another.
        site, kind: int32, (n,): codes, -1 where not known.
        site_names, kind_names: what the codes mean.
    """

    store: Store
    table: pa.Table
    keys: tuple[str, ...]
    starts: NDArray[np.int64]
    slide: Codes
    patient: Codes
    site: Codes
    kind: Codes
    site_names: tuple[str, ...]
    kind_names: tuple[str, ...]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def patients_known(self) -> int:
        """Number of patients that have a name."""
        return len({slide.record.patient for slide in self.store.slides.values()} - {None})

    def scores(self, name: str) -> NDArray[np.float32] | None:
        """float32, (n,): a quality score, NaN where a slide has none; None if no slide has it."""
        if name not in self.table.column_names:
            return None
        return np.asarray(self.table[name].to_numpy(), dtype=np.float32)

    def content_hashes(self) -> dict[str, str]:
        """Content hash of each slide, by key."""
        return {key: slide.record.content_hash for key, slide in self.store.slides.items()}


def gather_pool(store: Store) -> Pool:
    """Lay the patches of a store side by side.

    Raises:
        CurationError: if the store holds no patch.
    """
    if not len(store):
        raise CurationError(f"{store.path} holds no patch; tile or import some first")
    slides = list(store.slides.values())
    counts = np.array([len(slide) for slide in slides], dtype=np.int64)
    records = [slide.record for slide in slides]
    patients, _ = _coded([record.patient or f"\0{record.slide_id}" for record in records])
    sites, site_names = _coded([record.site for record in records])
    kinds, kind_names = _coded([record.kind for record in records])
    return Pool(
        store=store,
        table=store.table(),
        keys=tuple(store.slides),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        slide=np.repeat(np.arange(len(slides), dtype=np.int32), counts),
        patient=np.repeat(patients, counts),
        site=np.repeat(sites, counts),
        kind=np.repeat(kinds, counts),
        site_names=site_names,
        kind_names=kind_names,
    )


def _coded(values: Sequence[str | None]) -> tuple[Codes, tuple[str, ...]]:
    """Codes in the order of the sorted names; -1 where there is none."""
    names = tuple(sorted({value for value in values if value is not None}))
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([-1 if value is None else numbers[value] for value in values], dtype=np.int32), names


class Scratch:
    """Arrays of vectors that are larger than memory: files of a work folder, memory-mapped.

    A file is written under another name and renamed, so that a run that still maps an older one keeps what it has.
    """

    def __init__(self, store: LocalBytes, folder: str) -> None:
        self._store = store
        self._folder = folder

    def write(
        self, name: str, shape: tuple[int, int], parts: Iterable[NDArray[np.floating[Any]]]
    ) -> NDArray[np.float16]:
        """Lay parts of an array out as one file, ``<name>.npy``.

        Args:
            name: of the array.
            shape: of the whole, (n, d), n at least 1.
            parts: its rows, (k, d) each, in order.

        Returns:
            float16, (n, d), read-only.

        Raises:
            StoreWriteError: if it cannot be written; a full disk is noticed here and not when the array is read.
        """
        key = f"{self._folder}/{name}{SCRATCH}"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})

        def pieces() -> Iterator[bytes]:
            yield header.getvalue()
            for part in parts:
                yield np.ascontiguousarray(part, dtype="<f2").tobytes()

        self._store.put(key, pieces(), outlasts_power=False)
        array: NDArray[np.float16] = np.load(self._store.path(key), mmap_mode="r")
        return array

    def rows(self, name: str, vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Some rows of vectors as an array of their own, float16 (k, d); all of them are the vectors themselves."""
        if len(rows) == len(vectors):
            return vectors
        blocks = (vectors[rows[start : start + _BLOCK_ROWS]] for start in range(0, len(rows), _BLOCK_ROWS))
        return self.write(name, (len(rows), vectors.shape[1]), blocks)

    def clear(self) -> None:
        """Remove all of them."""
        for key in list(self._store.keys(self._folder)):
            if key.endswith(SCRATCH):
                self._store.delete(key)


def embedding_identity(store: Store, encoder: str) -> EmbeddingRecord:
    """The one embedding that all slides share.

    Returns:
        The record of one slide; its content hash is that slide's.

    Raises:
        EmbeddingMissingError: if a slide was not embedded with the encoder; the message counts them.
        CorruptStoreError: if slides were embedded by different weights or in different ways.
    """
    missing = [key for key, slide in store.slides.items() if encoder not in slide.encoders]
    if missing:
        there = ", ".join(store.encoders) or "none"
        raise EmbeddingMissingError(
            f"{len(missing)} of {len(store.slides)} slides of {store.path}, such as {missing[0]}, have no embedding by "
            f"{encoder!r} (of all slides: {there}); run: wsicurate embed {store.path} --encoder {encoder}, or "
            "curate with --embed-missing"
        )
    records = {key: slide.embedding_record(encoder) for key, slide in store.slides.items()}
    first = next(iter(records.values()))
    for key, record in records.items():
        for what in ("weights_hash", "preprocessing", "pooling", "dim"):
            if getattr(record, what) != getattr(first, what):
                raise CorruptStoreError(
                    f"{store.path}: {key} was embedded by {encoder} with another {what} than {next(iter(records))}; "
                    f"run: wsicurate embed {store.path} --encoder {encoder} --overwrite"
                )
    return first


def vectors_hashes(store: Store, encoder: str) -> dict[str, str]:
    """Hash of each slide's vectors, by key."""
    return {key: slide.embedding_record(encoder).vectors_hash for key, slide in store.slides.items()}


class DamagedSlides(CorruptStoreError):
    """Slides of a store whose vectors or patches do not read back.

    Attributes:
        path: of the store.
        slides: why, by key.
    """

    def __init__(self, path: Path, slides: Mapping[str, str]) -> None:
        self.path = path
        self.slides = slides
        key, reason = next(iter(slides.items()))
        more = f" (and {len(slides) - 1} other slides)" if len(slides) > 1 else ""
        super().__init__(f"{path}: {key}: {reason}{more}")

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedSlides, (self.path, dict(self.slides))


def read_patches(store: Store, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Patches of a store, uint8 (k, s, s, 3), in the order of ``rows``.

    Raises:
        DamagedSlides: if one does not read back.
    """
    try:
        return store[rows]
    except CorruptStoreError as error:
        for row in rows.tolist():
            slide, own = store.locate(row)
            reason = undecodable(slide, np.array([own]))
            if reason:
                raise DamagedSlides(store.path, {slide.key: reason}) from error
        raise


def undecodable(slide: SlidePatches, rows: NDArray[np.intp] | None = None) -> str:
    """Why patches of a slide do not read back; empty if they do. All are tried, or some."""
    rows = np.arange(len(slide)) if rows is None else rows
    try:
        for start in range(0, len(rows), _READ_ROWS):
            slide.read(rows[start : start + _READ_ROWS])
    except DAMAGE as error:
        return str(error)
    return ""


def sound_vectors(store: Store, key: str, encoder: str) -> NDArray[np.float16]:
    """The vectors of a slide's patches, float16 (n, d), each of them finite and not zero.

    Raises:
        CorruptStoreError: if they do not read back, or are of other patches.
        VectorError: if one is zero or not finite; the message names its row.
    """
    vectors = store.slides[key].embedding(encoder)
    again = f"run: wsicurate embed {store.path} --encoder {encoder} --overwrite"
    if len(vectors) != len(store.slides[key]):
        raise CorruptStoreError(
            f"{len(vectors):,} vectors by {encoder} for {len(store.slides[key]):,} patches; {again}"
        )
    bad = np.flatnonzero(~(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)))
    if len(bad):
        raise VectorError(
            f"the vector of row {int(bad[0])} by {encoder} is zero or not finite ({len(bad)} such there); {again}"
        )
    return vectors


def vectors_on_disk(stores: Store | Sequence[Store], encoder: str, scratch: Scratch, name: str) -> NDArray[np.float16]:
    """All vectors of a store, or of several, one after the other, as one memory-mapped array.

    Args:
        stores: open stores that were embedded with the encoder; they hold a patch at least.
        encoder: its name.
        scratch: where the array lies.
        name: of the array there; replaced if it is there.

    Returns:
        float16, (n, d), read-only, in the order of the stores' indices.

    Raises:
        DamagedSlides: if vectors are damaged, of other patches, zero or not finite; all slides are named.
        StoreWriteError: if the disk is full.
    """
    several = [stores] if isinstance(stores, Store) else list(stores)

    def parts() -> Iterator[NDArray[np.float16]]:
        for store in several:
            damaged = {}
            for key in store.slides:
                try:
                    vectors = sound_vectors(store, key, encoder)
                except DAMAGE as error:
                    damaged[key] = str(error)
                    continue
                if not damaged:
                    yield vectors
            if damaged:
                raise DamagedSlides(store.path, damaged)

    count = sum(map(len, several))
    return scratch.write(name, (count, embedding_identity(several[0], encoder).dim), parts())


def digest_of(values: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's bytes: 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def table_digest(table: pa.Table) -> str:
    """BLAKE2b-128 of all that a table of patches says: of its values, however Arrow's version lays them out."""
    import pyarrow as pa

    hasher = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        column = table[name].unify_dictionaries()
        hasher.update(f"{name}\0{len(column)}\0".encode())
        if pa.types.is_dictionary(column.type):
            texts = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
            parts = [chunk.indices.fill_null(-1).to_numpy() for chunk in column.chunks]
            codes = np.concatenate([np.empty(0, np.int32), *parts]).astype("<i4")
            used = sorted(np.unique(codes[codes >= 0]).tolist(), key=lambda code: texts[code])
            place = np.full(len(texts) + 1, -1, dtype="<i4")  # the last is for null, -1
            place[used] = np.arange(len(used))
            _hash_texts(hasher, [texts[code] for code in used])
            hasher.update(place[codes].tobytes())
        elif pa.types.is_string(column.type):
            _hash_texts(hasher, [] if column.null_count == len(column) else column.to_pylist())
        else:
            values = column.to_numpy()
            hasher.update(values.dtype.str.encode())
            hasher.update(np.ascontiguousarray(values).tobytes())
    return hasher.hexdigest()


def _hash_texts(hasher: hashlib.blake2b, texts: Sequence[str | None]) -> None:
    for text in texts:
        hasher.update(b"\1" if text is None else b"\0" + text.encode() + b"\0")


def describe(pool: Pool) -> Mapping[str, Any]:
    """Counts for a run's record."""
    return {
        "patches": len(pool),
        "slides": len(pool.keys),
        "patients": pool.patients_known,
        "sites": len(pool.site_names),
        "kinds": list(pool.kind_names),
    }
