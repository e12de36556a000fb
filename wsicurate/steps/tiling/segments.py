"""What workers do for `tile`: survey a slide, cut a segment, commit. Plain functions of one picklable argument."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.config import TileConfig
from wsicurate.errors import SlideChangedError, TooCoarseError, UnreadableRegionError, UnreadableSlideError
from wsicurate.pixels.resample import resample_area
from wsicurate.slides.base import ReadCounts, Slide
from wsicurate.slides.discovery import SlideSource
from wsicurate.slides.guard import check_colours
from wsicurate.slides.identity import FileStamp, check_unchanged, quick_hash, stamp
from wsicurate.slides.opening import open_slide
from wsicurate.slides.overview import Overview, read_overview
from wsicurate.slides.resolution import Resolution, resolve
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import append_checksum
from wsicurate.store.commit import SlideContent, commit_slide
from wsicurate.store.records import SlideRecord, StoreRecord, differences, fingerprint_of
from wsicurate.store.segments import Segment, write_segment
from wsicurate.store.verify import is_sound
from wsicurate.tiling.geometry import Lattice, ReadPlan, Window, plan_reading
from wsicurate.tiling.patches import cut_patch
from wsicurate.tiling.plan import Plan, plan_patches, spread_sample
from wsicurate.tissue.brightfield import check_brightfield
from wsicurate.tissue.masks import find_mask
from wsicurate.tissue.scores import SCORES_VERSION, Scorer

#: Longest side of the overview that is stored, pixels.
STORED_OVERVIEW_PX = 1024

#: Patches that a dry run encodes per slide to estimate sizes.
DRY_RUN_PATCHES = 8


@dataclass(frozen=True)
class SurveyTask:
    """Look at a slide and plan it.

    Attributes:
        source: the slide.
        config: settings.
        store_record: the store's codec.
        committed: what the store already holds of it, or None.
    """

    source: SlideSource
    config: TileConfig
    store_record: StoreRecord
    committed: SlideRecord | None = None


@dataclass(frozen=True)
class Survey:
    """A slide, looked at and planned; or found in the store as it should be.

    Attributes:
        record: attributes for the store; counts and hash are still to come unless ``is_committed``.
        stamp: of its files when it was looked at.
        is_committed: the store holds these patches already; ``record`` is theirs, with the slide table's words of
            today.
        plan, read_plan, lattice: what to read; None where committed.
        overview, overview_downsample, mask, mask_downsample: pictures; None where committed.
        bytes_per_patch: estimated in a dry run, else 0.
        tile_px: width and height of the compressed tiles of the level that is read; None where the reader does not
            count tiles: then nobody has checked what the file says of them.
    """

    record: SlideRecord
    stamp: FileStamp
    is_committed: bool
    plan: Plan | None = None
    read_plan: ReadPlan | None = None
    lattice: Lattice | None = None
    overview: NDArray[np.uint8] | None = None
    overview_downsample: tuple[float, float] = (1.0, 1.0)
    mask: NDArray[np.bool_] | None = None
    mask_downsample: tuple[float, float] = (1.0, 1.0)
    bytes_per_patch: float = 0.0
    tile_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class SegmentTask:
    """Cut some patches of a surveyed slide and write them as a segment.

    Attributes:
        source, stamp: the slide, which must not have changed.
        read_plan, lattice: where patches lie and how they are read.
        rows: int, (k,): indices into the slide's plan.
        cells: int32, (k, 2): column and row in the lattice.
        store_record: codec.
        store: where it is written, fenced by the lease on the slide.
        segment: where the segment goes.
    """

    source: SlideSource
    stamp: FileStamp
    read_plan: ReadPlan
    lattice: Lattice
    rows: NDArray[np.intp]
    cells: NDArray[np.int32]
    store_record: StoreRecord
    store: ByteStore
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
        key: of its group.
        record, content, store_record: what to write.
        store: where, fenced by the lease on the slide.
    """

    source: SlideSource
    stamp: FileStamp
    key: str
    record: SlideRecord
    content: SlideContent
    store_record: StoreRecord
    store: ByteStore


@dataclass(frozen=True)
class SoundTask:
    """Find out whether the store holds a slide as this version of wsicurate made it.

    Attributes:
        store: where.
        key: of the slide's group.
        store_record: the store's patch size and codec.
        committed: the slide's record.
    """

    store: ByteStore
    key: str
    store_record: StoreRecord
    committed: SlideRecord


def is_as_made(task: SoundTask) -> bool:
    """Whether all bytes of a slide are those that this version of wsicurate wrote."""
    return task.committed.version == __version__ and is_sound(task.store, task.key, task.store_record)


def tile_settings(config: TileConfig) -> dict[str, Any]:
    """All settings that a slide's arrays depend on, versions of the mask and the scores included."""
    return {
        "mpp": float(config.mpp),
        "patch_px": config.patch_px,
        "codec": config.codec,
        "quality": config.quality if config.codec == "jpeg" else None,
        **store_settings(config),
    }


def store_settings(config: TileConfig) -> dict[str, Any]:
    """Those that all slides of a store share, besides patch size and codec."""
    _, mask_version = find_mask(config.mask)
    return {**config.store_settings(), "mask": f"{config.mask}-{mask_version}", "scores": SCORES_VERSION}


def survey(task: SurveyTask) -> Survey:
    """Look at a slide: identity, resolution, overview, mask, plan.

    Raises:
        SlideError: if the slide cannot or should not be tiled; its class says why.
    """
    source, config = task.source, task.config
    before = stamp(source.files)
    source_record = {
        "path": str(source.path.absolute()),
        "bytes": sum(before.sizes),
        "files": len(source.files),
        "quick_hash": quick_hash(source.files),
    }
    slide = opened(source, before)
    resolution = resolve(
        slide.metadata,
        table_mpp=source.row.mpp if source.row else None,
        default_mpp=config.default_mpp,
        size=(slide.levels[0].width, slide.levels[0].height),
        target_mpp=config.mpp,
    )
    settings = tile_settings(config)
    fingerprint = fingerprint_of(
        settings, {"mpp": resolution.mpp, "bytes": source_record["bytes"], "hash": source_record["quick_hash"]}
    )
    record = _record(source, config, slide, resolution, source_record, settings, fingerprint)
    if task.committed is not None:
        return Survey(as_committed(task.committed, record), before, is_committed=True)
    try:
        planned = _plan(slide, resolution, record, before, config)
    except TooCoarseError as error:
        if not resolution.warnings:
            raise
        raise TooCoarseError(f"{error}. Its resolution is in doubt: {'; '.join(resolution.warnings)}") from error
    if config.dry_run:
        planned = dataclasses.replace(planned, bytes_per_patch=_estimate(slide, planned, task.store_record))
    check_unchanged(source.files, before)
    return planned


def _plan(slide: Slide, resolution: Resolution, record: SlideRecord, before: FileStamp, config: TileConfig) -> Survey:
    full = slide.levels[0]
    read_plan = plan_reading(
        [level.downsample for level in slide.levels],
        resolution.mpp,
        config.mpp,
        config.patch_px,
        allow_upsampling=config.allow_upsampling,
    )
    level = slide.levels[read_plan.level]
    lattice = Lattice.over(read_plan, full.width, full.height, level.width, level.height)
    overview = read_overview(slide, resolution.mpp)
    mask_function, _ = find_mask(config.mask)
    mask = mask_function(overview.pixels, resolution.mpp * overview.downsample[0])
    check_brightfield(overview.pixels, mask)
    suspicions = (*slide.metadata.warnings, *check_colours(slide, overview, read_plan.level))
    warned = {**record.resolution, "warnings": (*record.resolution["warnings"], *suspicions)}
    mask |= overview.unreadable  # planned, so that what cannot be read is dropped on record, not passed over
    plan = plan_patches(
        lattice,
        mask,
        overview.downsample,
        min_tissue=config.min_tissue,
        max_patches=config.max_patches_per_slide,
        seed=config.seed,
        name=record.slide_id,
    )
    small, small_downsample = shrink(overview, full.width, full.height)
    reading = {"width": full.width, "height": full.height, **dataclasses.asdict(read_plan)}
    counts = {"lattice": lattice.columns * lattice.rows, "below_min_tissue": plan.below_min_tissue}
    return Survey(
        record=dataclasses.replace(record, resolution=warned, reading=reading, counts=counts),
        stamp=before,
        is_committed=False,
        plan=plan,
        read_plan=read_plan,
        lattice=lattice,
        overview=small,
        overview_downsample=small_downsample,
        mask=mask,
        mask_downsample=overview.downsample,
        tile_px=None if slide.counts.tiles_decoded is None else level.tile_px,
    )


def _record(
    source: SlideSource,
    config: TileConfig,
    slide: Slide,
    resolution: Resolution,
    source_record: Mapping[str, Any],
    settings: Mapping[str, Any],
    fingerprint: str,
) -> SlideRecord:
    return SlideRecord(
        slide_id=source.slide_id,
        name=source.name,
        mpp=float(config.mpp),
        patch_px=config.patch_px,
        source=source_record,
        reader=slide.reader,
        resolution=dataclasses.asdict(resolution),
        reading={},
        tcga=dataclasses.asdict(source.barcode) if source.barcode else None,
        patient=source.patient,
        site=source.site,
        kind=source.kind,
        label=source.row.label if source.row else None,
        table=dict(source.row.extra) if source.row else {},
        settings=settings,
        fingerprint=fingerprint,
        counts={},
        content_hash="",
    )


def as_committed(committed: SlideRecord, now: SlideRecord, verb: str = "tile") -> SlideRecord:
    """The store's record with today's words, provided that the patches would be the same.

    Raises:
        SlideChangedError: if file, resolution or settings differ.
    """
    if committed.fingerprint != now.fingerprint:
        found = differences(committed.settings, now.settings)
        found += differences({"mpp": committed.resolution["mpp"]}, {"mpp": now.resolution["mpp"]})
        for part in ("bytes", "quick_hash"):
            found += [
                f"the file's {sentence}"
                for sentence in differences({part: committed.source[part]}, {part: now.source[part]})
            ]
        raise SlideChangedError(
            f"the store holds it otherwise: {'; '.join(found)}. Redo it with --overwrite, or {verb} into a new store"
        )
    words = ("name", "tcga", "patient", "site", "kind", "label", "table")
    return dataclasses.replace(
        committed,
        **{word: getattr(now, word) for word in words},
        source={**committed.source, "path": now.source["path"]},
    )


def shrink(overview: Overview, width: int, height: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The overview that is stored, and its level-0 pixels per pixel along x and y."""
    rows, columns = overview.pixels.shape[:2]
    scale = max(1.0, max(rows, columns) / STORED_OVERVIEW_PX)
    small = resample_area(overview.pixels, max(1, round(rows / scale)), max(1, round(columns / scale)))
    return small, (width / small.shape[1], height / small.shape[0])


def _estimate(slide: Slide, planned: Survey, store_record: StoreRecord) -> float:
    """Mean size of a few encoded patches."""
    if planned.plan is None or planned.lattice is None or planned.read_plan is None or store_record.codec == "none":
        return 0.0
    codec, sizes = store_record.chunk_codec(), []
    cells = planned.plan.cells
    for index in spread_sample(cells, min(DRY_RUN_PATCHES, len(cells)), seed=0, name="dry run"):
        window = planned.lattice.window(*(int(value) for value in cells[index]))
        try:
            patch = cut_patch(slide.read, planned.read_plan, window, store_record.patch_px)
        except UnreadableRegionError:
            continue
        sizes.append(len(codec.encode(patch)))
    return float(np.mean(sizes)) if sizes else 0.0


def cut_segment(task: SegmentTask) -> SegmentCost:
    """Read, score and encode the patches of a segment, and write it.

    Returns:
        What it took.

    Raises:
        SlideError: if the slide vanished or changed.
        StoreWriteError: if the segment cannot be written.
    """
    began = time.perf_counter()
    check_unchanged(task.source.files, task.stamp)
    try:
        slide = opened(task.source, task.stamp)
        before = slide.counts
        segment, patches = _cut(task, slide)
    except UnreadableSlideError:
        check_unchanged(task.source.files, task.stamp)  # a better reason, if there is one
        raise
    check_unchanged(task.source.files, task.stamp)
    write_segment(task.store, task.segment, segment, patches)
    return SegmentCost(slide.reader, time.perf_counter() - began, len(task.rows), slide.counts - before)


def _cut(task: SegmentTask, slide: Slide) -> tuple[Segment, list[bytes]]:
    codec = None if task.store_record.codec == "none" else task.store_record.chunk_codec()
    rows: list[int] = []
    scorer = Scorer()
    patches: list[bytes] = []
    dropped: list[int] = []
    reasons: list[str] = []
    messages: dict[str, str] = {}
    for row, (column, line) in zip(task.rows.tolist(), task.cells.tolist(), strict=True):
        window = task.lattice.window(column, line)
        own: bytes | None = None
        try:
            found = _own_jpeg(slide, task, window)
            if found is None:
                patch = cut_patch(slide.read, task.read_plan, window, task.store_record.patch_px)
            else:
                patch, own = found
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


def _own_jpeg(slide: Slide, task: SegmentTask, window: Window) -> tuple[NDArray[np.uint8], bytes] | None:
    """A patch that is one JPEG tile of the slide: stored as it lies in the file (ADR 11)."""
    plan, patch_px = task.read_plan, task.store_record.patch_px
    if task.store_record.codec != "jpeg" or plan.reduction != 1:
        return None
    source = window.at(plan.downsample)
    if (source.width, source.height) != (patch_px, patch_px):
        return None
    return slide.read_jpeg(plan.level, source.x, source.y, source.width, source.height)


def commit(task: CommitTask) -> SlideRecord:
    """Turn a slide's segments into its arrays and write its mark.

    Raises:
        SlideError: if the slide vanished or changed meanwhile.
        StoreError: as `commit_slide` does.
    """
    check_unchanged(task.source.files, task.stamp)
    return commit_slide(task.store, task.key, task.record, task.content, task.store_record)


class _Kept(threading.local):
    """The slide that a thread of a worker has open between its tasks: readers are not shared by threads."""

    identity: tuple[Path, FileStamp] | None = None
    slide: Slide | None = None


_kept = _Kept()


def opened(source: SlideSource, wanted: FileStamp) -> Slide:
    """The slide, open; the last one stays open between the tasks of a thread."""
    identity = (source.path, wanted)
    if _kept.slide is not None and _kept.identity == identity:
        return _kept.slide
    if _kept.slide is not None:
        _kept.slide.close()
        _kept.slide = None
    _kept.slide = open_slide(source.path, plain_images=source.row is not None)
    _kept.identity = identity
    return _kept.slide
