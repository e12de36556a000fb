"""Vectors that others computed -> embeddings of the slides that a store holds."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import ImportConfig
from wsicurate.engine.progress import Progress, ProgressCallback, SlideOutcome
from wsicurate.errors import CorruptStoreError, PatchImportError, StoreError, StoreNotFoundError
from wsicurate.formats.vectors import Vectors, find_vector_files, read_vectors
from wsicurate.slides.names import safe_name
from wsicurate.store.embeddings import (
    EmbeddingRecord,
    hash_vectors,
    read_embedding_record,
    write_embedding,
)
from wsicurate.store.layout import work_path
from wsicurate.store.leases import Holder, Leases
from wsicurate.store.records import fingerprint_of
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store

#: What the record of imported vectors says of what is not known.
UNKNOWN = "unknown"


def import_vectors(
    patches: Path,
    store_path: Path,
    config: ImportConfig,
    progress: ProgressCallback,
    *,
    only: Collection[str] | None = None,
) -> list[SlideOutcome]:
    """Give the slides of a store vectors that others computed.

    Files that hold coordinates are matched to the slide of their name, and their vectors to the patches by coordinates.
    Files without (`.npy`) hold one vector per patch: of the slide of their name, or, if the input is a single file, of
    the whole store, in the order of its index.

    Args:
        patches: the files.
        store_path: the store's folder.
        config: settings.
        progress: called after each slide.
        only: ids of the slides that are given vectors; files about others are passed over. None: all are.

    Returns:
        What became of each slide that vectors are about, and of each file that fits none: ``failed`` where counts or
        coordinates do not match, or the file cannot be read.

    Raises:
        StoreNotFoundError: if there is no store.
        NothingToDoError: if there is no file of vectors.
        PatchImportError: if no encoder is named, or a single file does not hold one vector per patch of the store.
    """
    if config.encoder_name is None:
        raise PatchImportError(f"{patches} holds vectors; --encoder-name says which encoder made them")
    try:
        store = Store(store_path, skip_damaged=True)
    except StoreNotFoundError as error:
        raise StoreNotFoundError(
            f"there is no store at {store_path}, and vectors are of patches that are in one: import the patches first"
        ) from error
    files = find_vector_files(patches)
    work: list[tuple[SlidePatches, Path, NDArray[np.floating[Any]] | None]] = []
    outcomes: list[SlideOutcome] = []
    if len(files) == 1 and files[0].suffix.lower() == ".npy":
        work = _whole_store(store, read_vectors(files[0]))
    else:
        by_name = _slides_by_name(store, only)
        for file in files:
            try:
                work += [(slide, file, None) for slide in _slides_of(by_name, file)]
            except PatchImportError as error:
                if only is None:
                    outcomes.append(_failed(safe_name(file.stem), file.name, error))
    leases = Leases(store.bytes)
    try:
        for slide, file, values in work:
            try:
                outcomes.append(_import(store, leases, slide, file, values, config))
            except PatchImportError as error:
                outcomes.append(_failed(slide.slide_id, slide.record.name, error))
            progress(Progress(slides_done=len(outcomes), slides_total=len(work), outcome=outcomes[-1]))
    finally:
        leases.close()
    return outcomes


def _failed(slide_id: str, name: str, error: PatchImportError) -> SlideOutcome:
    return SlideOutcome(slide_id=slide_id, name=name, status="failed", reason="vectors", message=str(error))


def _whole_store(store: Store, vectors: Vectors) -> list[tuple[SlidePatches, Path, NDArray[np.floating[Any]] | None]]:
    """Cut the vectors of a single file without coordinates into those of each slide."""
    if len(vectors.values) != len(store):
        dropped = sum(len(slide.dropped_xy) for slide in store.slides.values())
        lost = f" ({dropped:,} more were dropped)" if dropped else ""
        raise PatchImportError(
            f"{vectors.path} holds {len(vectors.values):,} vectors and the store {store.path} {len(store):,} patches"
            f"{lost}; give one vector per patch, in the order of the store's table"
        )
    work: list[tuple[SlidePatches, Path, NDArray[np.floating[Any]] | None]] = []
    start = 0
    for slide in store.slides.values():
        work.append((slide, vectors.path, vectors.values[start : start + len(slide)]))
        start += len(slide)
    return work


def _slides_by_name(store: Store, only: Collection[str] | None) -> dict[str, list[SlidePatches]]:
    by_name: dict[str, list[SlidePatches]] = defaultdict(list)
    for slide in store.slides.values():
        if only is not None and slide.slide_id not in only:
            continue
        name = PurePosixPath(slide.record.name)
        for key in {slide.key, slide.slide_id, slide.record.name, name.name, name.stem}:
            by_name[key].append(slide)
    return by_name


def _slides_of(by_name: dict[str, list[SlidePatches]], file: Path) -> Sequence[SlidePatches]:
    names = (file.stem, file.stem.removesuffix("_patches"), file.stem.removesuffix("_features"))
    found: list[SlidePatches] = next((by_name[name] for name in names if name in by_name), [])
    if not found:
        raise PatchImportError(
            f"{file}: the store holds no slide {file.stem!r}; it holds, for example, {next(iter(by_name), 'none')!r}. "
            "Call the file after its slide"
        )
    if len(found) > 1:
        raise PatchImportError(
            f"{file} may be about any of {', '.join(slide.key for slide in found[:5])}; call it after the slide's key"
        )
    return found


def _import(
    store: Store,
    leases: Leases,
    slide: SlidePatches,
    file: Path,
    values: NDArray[np.floating[Any]] | None,
    config: ImportConfig,
) -> SlideOutcome:
    began = time.monotonic()
    encoder = str(config.encoder_name)
    if values is None:
        values = _aligned(slide, read_vectors(file))
    vectors = values.astype(np.float16)
    record = EmbeddingRecord(
        encoder=encoder,
        dim=int(vectors.shape[1]),
        # The weights are not known: equal names stand for equal weights, and for nothing that was embedded here.
        weights_hash=hashlib.sha256(f"imported\0{encoder}".encode()).hexdigest(),
        preprocessing={},
        pooling=UNKNOWN,
        mpp=None,
        licence=UNKNOWN,
        terms="",
        content_hash=slide.record.content_hash,
        settings={"imported": file.name},
        fingerprint=fingerprint_of(
            {"imported": hash_vectors(vectors), "encoder": encoder, "patches": slide.record.content_hash}
        ),
    )

    def outcome(status: Any, message: str = "") -> SlideOutcome:
        return SlideOutcome(
            slide_id=slide.slide_id,
            name=slide.record.name,
            status=status,
            message=message,
            patches=len(slide),
            megabytes=vectors.nbytes / 1e6,
            seconds=time.monotonic() - began,
            details={"encoder": encoder, "dim": record.dim},
        )

    there = None
    with contextlib.suppress(CorruptStoreError):  # what cannot be read is imported again
        there = read_embedding_record(store.bytes, slide.key, encoder)
    if there is not None and there.fingerprint == record.fingerprint and not config.overwrite:
        with contextlib.suppress(StoreError):
            slide.embedding(encoder)
            return outcome("unchanged")
        there = None
    if there is not None and not config.overwrite:
        raise PatchImportError(
            f"{slide.key} has other vectors by {encoder!r} than {file}; give another --encoder-name, or --overwrite"
        )
    if config.dry_run:
        return outcome("planned")
    lease = leases.claim(work_path(slide.key))
    if isinstance(lease, Holder):
        raise PatchImportError(f"{slide.key} is being worked on by {lease}; run again when that is done")
    try:
        write_embedding(store.bytes.fenced(lease.fence), slide.key, record, vectors)
    finally:
        leases.release(lease)
    return outcome("imported")


def _aligned(slide: SlidePatches, vectors: Vectors) -> NDArray[np.floating[Any]]:
    """The vectors of the slide's patches, in its order.

    Raises:
        PatchImportError: if a patch has none, or, without coordinates, if there are more or fewer vectors than patches.
    """
    corners = vectors.corners(float(slide.record.resolution["mpp"]))
    if corners is None:
        if len(vectors.values) != len(slide):
            lost = len(slide.dropped_xy)
            raise PatchImportError(
                f"{vectors.path} holds {len(vectors.values):,} vectors, and {slide.key} {len(slide):,} patches"
                f"{f' ({lost:,} more were dropped)' if lost else ''}; give one per patch, in the store's order, or a "
                "file with coordinates"
            )
        return vectors.values
    row_of: dict[tuple[int, int], int] = {}
    for row, (x, y) in enumerate(corners.tolist()):
        row_of.setdefault((x, y), row)
    wanted = [(x, y) for x, y in slide.xy.tolist()]
    missing = [corner for corner in wanted if corner not in row_of]
    if missing:
        x, y = missing[0]
        raise PatchImportError(
            f"{vectors.path} holds {len(vectors.values):,} vectors, and none for {len(missing):,} of the "
            f"{len(slide):,} patches of {slide.key}, such as the one at x={x} y={y}; are they of another tiling?"
        )
    return vectors.values[[row_of[corner] for corner in wanted]]
