"""The survey of a slide, by a worker of `materialise`: is it there, where do its patches lie, what is carried along."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsicurate.engine.findings import Findings, FindingsPlace
from wsicurate.engine.pieces import made_by
from wsicurate.slides.identity import FileStamp, check_unchanged, stamp
from wsicurate.slides.kept_open import opened
from wsicurate.slides.source import SlideSource
from wsicurate.steps.materialising.chosen_slide import ChosenSlide
from wsicurate.steps.materialising.pixels import Taken, cut_patches, take_patches
from wsicurate.store.arrays import attribute, read_metadata
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.layout import slide_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import MATERIALISED, SlideRecord, StoreRecord, as_committed, fingerprint_of
from wsicurate.tiling.plan import SEGMENT_CELLS, segments

#: Stored patches that are taken as one segment.
SEGMENT_PATCHES = 1024

#: Patches that a dry run encodes per slide to estimate sizes.
_DRY_RUN_PATCHES = 8


@dataclass(frozen=True)
class ChosenSurveyTask:
    """Look at a slide whose patches are to be taken.

    Attributes:
        source: which.
        store_record: patch size and codec of the new store.
        store: the new store, fenced by the lease on the slide; None where nothing is to be written of it.
        committed: what the new store already holds of it, or None.
        is_dry: whether sizes are to be estimated.
    """

    source: ChosenSlide
    store_record: StoreRecord
    store: ByteStore | None
    committed: SlideRecord | None
    is_dry: bool


@dataclass(frozen=True)
class ChosenSurvey:
    """A slide whose patches are to be taken, or were.

    Attributes:
        record: attributes for the new store; counts and hash are still to come unless ``is_committed``.
        is_committed: the new store holds these patches already.
        patches: how many are taken.
        slide, stamp: the slide and its files when it was looked at; None where its pixels are in the store.
        segments: number of patches of each segment. Which these are is in the slide's `Findings`.
        bytes_per_patch: estimated in a dry run, else 0.
    """

    record: SlideRecord
    is_committed: bool
    patches: int
    slide: SlideSource | None = None
    stamp: FileStamp | None = None
    segments: tuple[int, ...] = ()
    bytes_per_patch: float = 0.0


def survey_chosen(task: ChosenSurveyTask) -> ChosenSurvey:
    """Look at a slide whose patches are to be taken.

    Raises:
        SlideError: if the slide cannot be used, or the store that its patches are taken from is damaged.
        LeaseLostError: if another run took the slide over.
        StoreWriteError: if the new store cannot be written.
    """
    source = task.source
    record = _record(source, task.store_record)
    if task.committed is not None:  # the slide is not needed for that
        now = dataclasses.replace(record, source={**record.source, "path": task.committed.source["path"]})
        return ChosenSurvey(as_committed(task.committed, now, "materialise"), True, len(source.rows))
    slide: SlideSource | None = None
    before: FileStamp | None = None
    if source.is_cut:
        slide = source.slide()
        before = stamp(slide.files)
        path = str(slide.path.absolute())
        record = dataclasses.replace(
            record, reader=opened(slide, before).reader, source={**record.source, "path": path}
        )
    place = None if task.store is None else FindingsPlace(task.store, source.key, made_by(record))
    findings = None if place is None else place.read()
    if findings is None:
        findings = _look(source)
        if place is not None:
            place.write(findings)
    survey = ChosenSurvey(
        record, False, len(source.rows), slide, before, tuple(len(rows) for rows in segments(findings.cells))
    )
    if task.is_dry:
        survey = dataclasses.replace(survey, bytes_per_patch=_estimate(task, survey, findings.xy))
    if slide is not None and before is not None:
        check_unchanged(slide.files, before)
    return survey


def _record(source: ChosenSlide, store_record: StoreRecord) -> SlideRecord:
    """The record of the new slide: everything that was known of the old one, but for its counts and arrays."""
    before = source.record
    settings = {
        **before.settings,
        "codec": store_record.codec,
        "quality": store_record.quality,
        MATERIALISED: source.setting(),
    }
    facts = {
        "mpp": before.resolution["mpp"],
        "bytes": before.source["bytes"],
        "hash": before.source["quick_hash"],
    }
    return dataclasses.replace(
        before,
        settings=settings,
        fingerprint=fingerprint_of(settings, facts),
        counts={name: before.counts[name] for name in ("lattice", "below_min_tissue")},
        messages={},
        content_hash="",
        patch_fields=(),
        version="",
        arrays={},
    )


def _look(source: ChosenSlide) -> Findings:
    """Where the chosen patches lie, and the slide's pictures, from the store that they are taken from."""
    with source.being_read() as patches:
        xy = patches.xy[source.rows]
        return Findings(
            cells=_cells(source, xy),
            xy=xy,
            tissue=np.empty(0, np.float32),  # among the scores
            unsampled_xy=np.empty((0, 2), np.int32),
            overview=patches.overview,
            overview_downsample=_downsample(source, "overview"),
            mask=patches.tissue,
            mask_downsample=_downsample(source, "tissue"),
        )


def _cells(source: ChosenSlide, xy: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32, (k, 2): by which segments are cut.

    What is read from a slide is cut in square blocks of it, as `tile` does: neighbours share the
    slide's tiles. What is read from the store is cut in runs of patches that follow each other.
    """
    if source.is_cut:
        return np.asarray(np.rint(xy / float(source.record.reading["pitch"])), dtype=np.int32)
    runs = np.arange(len(xy), dtype=np.int32) // SEGMENT_PATCHES * SEGMENT_CELLS
    return np.stack([np.zeros_like(runs), runs], axis=1)


def _downsample(source: ChosenSlide, picture: str) -> tuple[float, float]:
    path = f"{slide_path(source.key)}/{picture}"
    x, y = attribute(read_metadata(LocalBytes(source.parent), path), "downsample", path)
    return float(x), float(y)


def _estimate(task: ChosenSurveyTask, survey: ChosenSurvey, xy: NDArray[np.int32]) -> float:
    """Mean size of a few patches as they would be stored, bytes."""
    picks = np.unique(np.linspace(0, len(xy) - 1, _DRY_RUN_PATCHES).astype(np.intp))
    if survey.slide is not None and survey.stamp is not None:
        slide = opened(survey.slide, survey.stamp)
        taken: Taken = cut_patches(slide, survey.record.reading, picks, xy[picks], task.store_record)
    else:
        taken = take_patches(task.source, picks, task.source.rows[picks], task.store_record)
    return float(np.mean([len(patch) for patch in taken.patches])) if taken.patches else 0.0
