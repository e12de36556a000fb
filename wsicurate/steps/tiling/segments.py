"""Pieces of a surveyed slide, by a worker of `tile`: cut a segment, commit them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.engine.findings import FindingsPlace
from wsicurate.errors import UnreadableRegionError, UnreadableSlideError
from wsicurate.slides.base import ReadCounts, Slide
from wsicurate.slides.identity import FileStamp, check_unchanged
from wsicurate.slides.kept_open import opened
from wsicurate.slides.source import SlideSource
from wsicurate.store.codecs import append_checksum
from wsicurate.store.commit import commit_slide
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.segments import Segment, write_segment
from wsicurate.tiling.geometry import Grid, ReadPlan, Window
from wsicurate.tiling.patches import cut_patch
from wsicurate.tiling.plan import segment_rows
from wsicurate.tissue.scores import SCORES, Scorer


@dataclass(frozen=True)
class SegmentTask:
    """Cut some patches of a surveyed slide and write them as a segment.

    Attributes:
        source, stamp: the slide, which must not have changed.
        read_plan, grid: where patches lie and how they are read.
        findings: where the survey's findings lie, which say where the patches do.
        number: of the segment.
        store_record: codec.
        segment: where the segment goes.
    """

    source: SlideSource
    stamp: FileStamp
    read_plan: ReadPlan
    grid: Grid
    findings: FindingsPlace
    number: int
    store_record: StoreRecord
    segment: str


@dataclass(frozen=True)
class SegmentCost:
    """What cutting a segment took.

    Attributes:
        reader: which read it.
        seconds: of the worker's time.
        patches: stored and dropped.
        counts: tiles decoded, bytes read, regions handed over.
    """

    reader: str
    seconds: float
    patches: int
    counts: ReadCounts


@dataclass(frozen=True)
class CommitTask:
    """Turn a slide's segments into its arrays.

    Attributes:
        source, stamp: the slide, which must not have changed.
        findings: where the survey's findings lie.
        record, segments, store_record: what to write besides.
    """

    source: SlideSource
    stamp: FileStamp
    findings: FindingsPlace
    record: SlideRecord
    segments: Sequence[str]
    store_record: StoreRecord


def cut_segment(task: SegmentTask) -> SegmentCost:
    """Read, score and encode the patches of a segment, and write it.

    Returns:
        What it took.

    Raises:
        SlideError: if the slide vanished or changed.
        LeaseLostError: if another run took the slide over.
        CorruptStoreError: if the survey's findings are damaged.
        StoreWriteError: if the segment cannot be written.
    """
    began = time.perf_counter()
    cells, _ = task.findings.read_places()
    rows = segment_rows(cells, task.number)
    check_unchanged(task.source.files, task.stamp)
    try:
        slide = opened(task.source, task.stamp)
        before = slide.counts
        segment, patches = _cut(task, slide, rows, cells[rows])
    except UnreadableSlideError:
        check_unchanged(task.source.files, task.stamp)  # a better reason, if there is one
        raise
    check_unchanged(task.source.files, task.stamp)
    write_segment(task.findings.store, task.segment, segment, patches)
    return SegmentCost(slide.reader, time.perf_counter() - began, len(rows), slide.counts - before)


def _cut(
    task: SegmentTask, slide: Slide, plan_rows: NDArray[np.intp], cells: NDArray[np.int32]
) -> tuple[Segment, list[bytes]]:
    """The segment of some rows of the plan, which lie in ``cells``, and its encoded patches."""
    codec = None if task.store_record.codec == "none" else task.store_record.chunk_codec()
    rows: list[int] = []
    scorer = Scorer()
    patches: list[bytes] = []
    dropped: list[int] = []
    reasons: list[str] = []
    messages: dict[str, str] = {}
    for row, (column, line) in zip(plan_rows.tolist(), cells.tolist(), strict=True):
        window = task.grid.window(column, line)
        try:
            patch, own = cut_or_pass(slide, task.read_plan, window, task.store_record)
        except UnreadableRegionError as error:
            dropped.append(row)
            reasons.append(error.reason)
            messages.setdefault(error.reason, str(error))
            continue
        rows.append(row)
        scorer.add(patch)
        if codec is not None:
            patches.append(codec.encode(patch) if own is None else append_checksum(own))
    segment = Segment(
        rows=np.array(rows, dtype=np.int32),
        scores=scorer.scores(),
        lengths=np.array([len(patch) for patch in patches] or [0] * len(rows), dtype=np.int64),
        dropped=np.array(dropped, dtype=np.int32),
        dropped_reasons=tuple(reasons),
        messages=messages,
    )
    return segment, patches


def cut_or_pass(
    slide: Slide, plan: ReadPlan, window: Window, store_record: StoreRecord
) -> tuple[NDArray[np.uint8], bytes | None]:
    """A patch, and its JPEG where it is one tile of the slide, to be stored as it lies in the file (ADR 11).

    Args:
        slide: an open slide.
        plan: how patches are read.
        window: level-0 pixels of the patch.
        store_record: patch size and codec.

    Returns:
        Pixels, (patch_px, patch_px, 3), and the JPEG, or None where the pixels are to be encoded.

    Raises:
        UnreadableRegionError: if it cannot be decoded.
    """
    patch_px = store_record.patch_px
    if store_record.codec == "jpeg" and plan.reduction == 1:
        source = window.at(plan.downsample)
        if (source.width, source.height) == (patch_px, patch_px):
            found = slide.read_jpeg(plan.level, source.x, source.y, source.width, source.height)
            if found is not None:
                return found
    return cut_patch(slide.read, plan, window, patch_px), None


def commit(task: CommitTask) -> SlideRecord:
    """Turn a slide's segments into its arrays and write its mark.

    Raises:
        SlideError: if the slide vanished or changed meanwhile.
        StoreError: as `commit_slide` does.
    """
    check_unchanged(task.source.files, task.stamp)
    place, content = task.findings, task.findings.read_own().content(task.segments, SCORES)
    return commit_slide(place.store, place.key, task.record, content, task.store_record)
