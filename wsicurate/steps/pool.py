"""All patches of a store side by side: who they are, what they scored, and their vectors on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CorruptStoreError, CurationError, EmbeddingMissingError, VectorError
from wsicurate.store.embeddings import EmbeddingRecord
from wsicurate.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.int32]

#: Rows copied at once.
_BLOCK_ROWS = 65_536


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
            nobody is taken for another.
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
            f"{encoder!r} (of all slides: {there}); run: wsicurate embed {store.path} --encoder {encoder}"
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


def vectors_on_disk(store: Store, encoder: str, path: Path) -> NDArray[np.float16]:
    """All vectors of a store as one memory-mapped array.

    Args:
        store: an open store that was embedded with the encoder.
        encoder: its name.
        path: the ``.npy`` file to write; replaced if it is there.

    Returns:
        float16, (n, d), read-only, in the order of the store's index.

    Raises:
        CorruptStoreError: if vectors are damaged or of other patches.
        VectorError: if one is zero or not finite; the message names slide and row.
    """

    def parts() -> Iterator[NDArray[np.float16]]:
        for key, slide in store.slides.items():
            vectors = slide.embedding(encoder)
            bad = np.flatnonzero(~(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)))
            if len(bad):
                raise VectorError(
                    f"{key}: the vector of row {int(bad[0])} by {encoder} is zero or not finite ({len(bad)} such in "
                    f"the slide); run: wsicurate embed {store.path} --encoder {encoder} --overwrite"
                )
            yield vectors

    return _written(path, (len(store), embedding_identity(store, encoder).dim), parts())


def rows_on_disk(vectors: NDArray[np.float16], rows: NDArray[np.int64], path: Path) -> NDArray[np.float16]:
    """Some rows of vectors as a memory-mapped array of their own: float16, (k, d), read-only, written to ``path``."""
    blocks = (vectors[rows[start : start + _BLOCK_ROWS]] for start in range(0, len(rows), _BLOCK_ROWS))
    return _written(path, (len(rows), vectors.shape[1]), blocks)


def _written(path: Path, shape: tuple[int, int], parts: Iterable[NDArray[np.float16]]) -> NDArray[np.float16]:
    """Parts of an array as one ``.npy`` file, then mapped. Written, so that a full disk is an error and no signal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype="<f2").tobytes())
    readable: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return readable


def digest_of(values: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's bytes: 32 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def table_digest(table: pa.Table) -> str:
    """BLAKE2b-128 of everything that a table of patches says."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()


def describe(pool: Pool) -> Mapping[str, Any]:
    """Counts for a run's record."""
    return {
        "patches": len(pool),
        "slides": len(pool.keys),
        "patients": pool.patients_known,
        "sites": len(pool.site_names),
        "kinds": list(pool.kind_names),
    }
