"""The pixels of a segment, by a worker of `materialise`: cut from the slide as `tile` does, or taken as stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.engine.findings import FindingsPlace
from wsicurate.errors import CorruptStoreError, UnreadableRegionError, UnreadableSlideError
from wsicurate.slides.base import Slide
from wsicurate.slides.identity import FileStamp, check_unchanged
from wsicurate.slides.kept_open import opened
from wsicurate.slides.source import SlideSource
from wsicurate.steps.materialising.chosen_slide import ChosenSlide
from wsicurate.steps.tiling.segments import cut_or_pass
from wsicurate.store.codecs import append_checksum, verify_checksum
from wsicurate.store.records import StoreRecord
from wsicurate.store.segments import Segment, write_segment
from wsicurate.tiling.geometry import Grid, ReadPlan
from wsicurate.tiling.plan import segment_rows
from wsicurate.tiling.windows import cut_window


@dataclass(frozen=True)
class CutTask:
    """Cut some patches from a slide, and write them as a segment.

    Attributes:
        slide, stamp: the slide, which must not have changed.
        reading: how its patches are read, of its record.
        findings: where the survey's findings lie, which say where the patches do.
        number: of the segment.
        store_record: codec of the new store.
        segment: where the segment goes.
    """

    slide: SlideSource
    stamp: FileStamp
    reading: Mapping[str, Any]
    findings: FindingsPlace
    number: int
    store_record: StoreRecord
    segment: str


@dataclass(frozen=True)
class TakeTask:
    """Take some patches from the store that holds them, and write them as a segment.

    Attributes:
        source: the slide, its rows those of the segment alone.
        first: position of the first of them among all that are taken of the slide.
        findings: whose store the segment is written to.
        store_record: codec of the new store.
        segment: where the segment goes.
    """

    source: ChosenSlide
    first: int
    findings: FindingsPlace
    store_record: StoreRecord
    segment: str


@dataclass(frozen=True)
class Taken:
    """Encoded patches with their positions, and those that cannot be had: position, reason, message."""

    positions: list[int]
    patches: list[bytes]
    dropped: list[tuple[int, str, str]]


def cut_segment(task: CutTask) -> None:
    """Cut and encode the patches of a segment, and write it.

    Raises:
        SlideError: if the slide vanished or changed.
        LeaseLostError: if another run took the slide over.
        CorruptStoreError: if the survey's findings are damaged.
        StoreWriteError: if the segment cannot be written.
    """
    cells, xy = task.findings.read_places()
    rows = segment_rows(cells, task.number)
    check_unchanged(task.slide.files, task.stamp)
    try:
        taken = cut_patches(opened(task.slide, task.stamp), task.reading, rows, xy[rows], task.store_record)
    except UnreadableSlideError:
        check_unchanged(task.slide.files, task.stamp)  # a better reason, if there is one
        raise
    check_unchanged(task.slide.files, task.stamp)
    _write(task.findings, task.segment, taken)


def take_segment(task: TakeTask) -> None:
    """Take the patches of a segment, and write it.

    Raises:
        SlideError: if the store that they are taken from is damaged or changed.
        LeaseLostError: if another run took the slide over.
        StoreWriteError: if the segment cannot be written.
    """
    rows = task.source.rows
    positions = np.arange(task.first, task.first + len(rows))
    _write(task.findings, task.segment, take_patches(task.source, positions, rows, task.store_record))


def cut_patches(
    slide: Slide,
    reading: Mapping[str, Any],
    positions: NDArray[np.intp],
    xy: NDArray[np.int32],
    store_record: StoreRecord,
) -> Taken:
    """Cut patches from a slide and encode them, to the bytes that `tile` or `import` would have stored.

    Args:
        slide: an open slide.
        reading: how its patches are read, of its record.
        positions: (k,): of the patches among all that are taken of the slide.
        xy: int32, (k, 2): their level-0 corners.
        store_record: patch size and codec.
    """
    names = ("level", "downsample", "reduction", "pitch", "effective_mpp", "upsampled")
    plan = ReadPlan(**{name: reading[name] for name in names})
    grid = Grid.over(plan, int(reading["width"]), int(reading["height"]))
    is_free, codec = reading.get("lattice") == "none", store_record.chunk_codec()
    taken = Taken([], [], [])
    for position, (x, y) in zip(positions.tolist(), xy.tolist(), strict=True):
        own: bytes | None = None
        try:
            if is_free:
                patch = cut_window(slide.read, plan, x, y, store_record.patch_px)
            else:
                window = grid.window(grid.index(x), grid.index(y))
                patch, own = cut_or_pass(slide, plan, window, store_record)
        except UnreadableRegionError as error:
            taken.dropped.append((position, error.reason, str(error)))
            continue
        taken.positions.append(position)
        taken.patches.append(codec.encode(patch) if own is None else append_checksum(own))
    return taken


def take_patches(
    source: ChosenSlide, positions: NDArray[np.intp], rows: NDArray[np.int32], store_record: StoreRecord
) -> Taken:
    """Take patches from the store that holds them: their bytes where the codec is the same, else encoded anew.

    Args:
        source: whose patches.
        positions: (k,): of the patches among all that are taken of the slide.
        rows: int32, (k,), ascending: their rows in that store.
        store_record: patch size and codec of the new store.

    Raises:
        SlideError: if the store that they are taken from is damaged or changed.
    """
    before, codec = source.parent_record, store_record.chunk_codec()
    is_same = (before.codec, before.quality) == (store_record.codec, store_record.quality)
    taken: list[bytes] = []
    with source.being_read() as patches:
        images = patches.images
        if images is None:
            raise CorruptStoreError(f"{source.key} has no images")
        for row, data in zip(rows.tolist(), images.encoded_items(rows), strict=True):
            if not is_same:
                taken.append(codec.encode(images.decode(row, data)))
                continue
            try:
                verify_checksum(data)
            except CorruptStoreError as error:
                raise CorruptStoreError(f"slides/{source.key}/images, item {row}: {error}") from error
            taken.append(data)
    return Taken(positions.tolist(), taken, [])


def _write(findings: FindingsPlace, segment: str, taken: Taken) -> None:
    """Write a segment; its patches' scores are known already, and not in it."""
    messages: dict[str, str] = {}
    for _, reason, message in taken.dropped:
        messages.setdefault(reason, message)
    content = Segment(
        rows=np.array(taken.positions, dtype=np.int32),
        scores=np.empty((len(taken.positions), 0), dtype=np.float32),
        lengths=np.array([len(patch) for patch in taken.patches], dtype=np.int64),
        dropped=np.array([position for position, _, _ in taken.dropped], dtype=np.int32),
        dropped_reasons=tuple(reason for _, reason, _ in taken.dropped),
        messages=messages,
    )
    write_segment(findings.store, segment, content, taken.patches)
