"""The commit of a slide, by a worker of `materialise`: its arrays, then the vectors of its patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsicurate.engine.findings import FindingsPlace
from wsicurate.errors import EmbeddingMissingError, LeaseLostError, SlideError
from wsicurate.slides.identity import FileStamp, check_unchanged
from wsicurate.slides.source import SlideSource
from wsicurate.steps.materialising.chosen_slide import ChosenSlide
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.commit import commit_slide
from wsicurate.store.committed import read_slide_record
from wsicurate.store.embeddings import embedding_names, write_embedding
from wsicurate.store.layout import slide_path
from wsicurate.store.patch_fields import LABEL, NAME, PARENT_ROW, read_parent_rows
from wsicurate.store.records import SlideRecord, StoreRecord, fingerprint_of


@dataclass(frozen=True)
class ChosenCommitTask:
    """Turn a slide's segments into its arrays, and take its vectors along.

    Attributes:
        source: where its patches are taken from.
        slide, stamp: the slide, which must not have changed; None where its pixels were in the store.
        findings: where the survey's findings lie.
        record, segments, store_record: what to write besides.
    """

    source: ChosenSlide
    slide: SlideSource | None
    stamp: FileStamp | None
    findings: FindingsPlace
    record: SlideRecord
    segments: Sequence[str]
    store_record: StoreRecord


@dataclass(frozen=True)
class VectorsTask:
    """Take vectors along of a slide that is committed.

    Attributes:
        source: where its patches were taken from.
        store: the new store, fenced by the lease on the slide.
        record: the slide's attributes in it.
    """

    source: ChosenSlide
    store: ByteStore
    record: SlideRecord


def commit_chosen(task: ChosenCommitTask) -> SlideRecord:
    """Turn a slide's segments into its arrays, write its mark, and take its vectors along.

    Raises:
        SlideError: if the slide vanished or changed meanwhile, or the store its patches are taken from is damaged.
        StoreError: as `commit_slide` does.
    """
    if task.slide is not None and task.stamp is not None:
        check_unchanged(task.slide.files, task.stamp)
    source, place, rows = task.source, task.findings, task.source.rows
    findings = place.read_own()
    with source.being_read() as patches:
        quality, columns, fields = patches.quality[rows], patches.quality_columns, patches.record.patch_fields
        labels = [patches.labels[row] for row in rows.tolist()] if LABEL in fields else None
        names = [patches.names[row] for row in rows.tolist()] if NAME in fields and patches.names else None
    content = dataclasses.replace(
        findings.content(task.segments, columns),
        tissue=None,
        quality=quality,
        labels=labels,
        names=names,
        parent_rows=rows,
    )
    written = commit_slide(place.store, place.key, task.record, content, task.store_record)
    carry_vectors(VectorsTask(source, place.store, written))
    return written


def missing_vectors(source: ChosenSlide, store: ByteStore) -> tuple[str, ...]:
    """Encoders that embedded the patches in the store that they are taken from, and not in the new one."""
    there = embedding_names(store, source.key)
    return tuple(name for name in source.patches.encoders if name not in there)


def carry_vectors(task: VectorsTask) -> tuple[str, ...]:
    """Write the vectors that a slide's patches have in the store that they were taken from.

    Vectors that the new store has stay as they are; damaged ones are left out, and the patches can be embedded again.

    Returns:
        The encoders whose vectors were written.

    Raises:
        LeaseLostError: if another run redid the slide.
        StoreWriteError: if the new store cannot be written.
    """
    source, key, record = task.source, task.source.key, task.record
    names = missing_vectors(source, task.store)
    if not names:
        return ()
    now = read_slide_record(task.store, key)
    if now is None or now.content_hash != record.content_hash:
        raise LeaseLostError(f"{record.name} was redone by another run")
    rows = read_parent_rows(task.store, f"{slide_path(key)}/{PARENT_ROW}").astype(np.intp)
    written = []
    for name in names:
        try:
            with source.being_read() as patches:
                there, vectors = patches.embedding_record(name), patches.embedding(name)[rows]
        except (SlideError, EmbeddingMissingError):
            continue
        parts = {part: getattr(there, part) for part in ("weights_hash", "preprocessing", "pooling", "dim")}
        fingerprint = fingerprint_of(parts, {"content_hash": record.content_hash}, there.settings)
        carried = dataclasses.replace(there, content_hash=record.content_hash, fingerprint=fingerprint)
        write_embedding(task.store, key, carried, vectors)
        written.append(name)
    return tuple(written)
