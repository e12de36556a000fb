"""What workers do for `import` of coordinates: look at a slide, read a segment, commit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import ImportConfig
from wsicurate.engine.findings import Findings, FindingsPlace
from wsicurate.engine.pieces import made_by
from wsicurate.errors import NoResolutionError, PatchImportError, UnreadableRegionError
from wsicurate.formats.coordinates import Coordinates
from wsicurate.slides.base import Slide
from wsicurate.slides.identity import FileStamp, check_unchanged, quick_hash, stamp
from wsicurate.slides.kept_open import opened
from wsicurate.slides.overview import read_overview, shrink
from wsicurate.slides.resolution import resolve
from wsicurate.slides.source import SlideSource
from wsicurate.steps.importing.image_source import BEYOND_SLIDE
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.commit import commit_slide
from wsicurate.store.records import SlideRecord, StoreRecord, as_committed, fingerprint_of
from wsicurate.store.segments import Segment, write_segment
from wsicurate.tiling.geometry import TOLERANCE, ReadPlan
from wsicurate.tiling.plan import segment_rows, segments
from wsicurate.tiling.windows import cut_window, free_window, plan_windows, window_tissue
from wsicurate.tissue.find import find_mask
from wsicurate.tissue.scores import SCORES, SCORES_VERSION, patch_scores

_MASK = "otsu"


@dataclass(frozen=True, kw_only=True)
class PlacedSource:
    """A slide and the coordinates that were chosen on it.

    Attributes:
        slide: the slide.
        coordinates: where patches lie.
        mpp: target resolution of the patches, µm per pixel: half of the slide's key.
    """

    slide: SlideSource
    coordinates: Coordinates
    mpp: float

    @property
    def slide_id(self) -> str:
        """Safe name of the slide."""
        return self.slide.slide_id

    @property
    def name(self) -> str:
        """Readable name of the slide."""
        return self.slide.name


@dataclass(frozen=True)
class PlacedSurveyTask:
    """Look at a slide and the coordinates on it.

    Attributes:
        source: which.
        config: settings.
        store_record: patch size and codec.
        key: of its group.
        store: the store, fenced by the lease on the slide; None where nothing is to be written of it.
        committed: what the store already holds of it, or None.
    """

    source: PlacedSource
    config: ImportConfig
    store_record: StoreRecord
    key: str
    store: ByteStore | None
    committed: SlideRecord | None


@dataclass(frozen=True)
class PlacedSurvey:
    """A slide with its patches, in raster order, each once.

    Attributes:
        record: attributes for the store; counts and hash are still to come unless ``is_committed``.
        is_committed: the store holds these patches already.
        stamp: of the slide's files when it was looked at.
        patches: number of coordinates.
        read_plan: how they are read; None where committed.
        segments: number of patches of each segment. Which these are is in the slide's `Findings`.
        bytes_per_patch: 0; sizes are not estimated.
    """

    record: SlideRecord
    is_committed: bool
    stamp: FileStamp
    patches: int
    read_plan: ReadPlan | None = None
    segments: tuple[int, ...] = ()
    bytes_per_patch: float = 0.0


@dataclass(frozen=True)
class PlacedSegmentTask:
    """Read some patches of a slide and write them as a segment.

    Attributes:
        slide, stamp: the slide, which must not have changed.
        read_plan: how patches are read.
        findings: where the survey's findings lie, which say where the patches do.
        number: of the segment.
        store_record: codec.
        segment: where the segment goes.
    """

    slide: SlideSource
    stamp: FileStamp
    read_plan: ReadPlan
    findings: FindingsPlace
    number: int
    store_record: StoreRecord
    segment: str


@dataclass(frozen=True)
class PlacedCommitTask:
    """Turn a slide's segments into its arrays.

    Attributes:
        slide, stamp: the slide, which must not have changed.
        findings: where the survey's findings lie.
        record, segments, store_record: what to write besides.
    """

    slide: SlideSource
    stamp: FileStamp
    findings: FindingsPlace
    record: SlideRecord
    segments: Sequence[str]
    store_record: StoreRecord


def slide_resolution(slide: Slide, coordinates: Coordinates, mpp: float | None) -> dict[str, Any]:
    """The slide's resolution for the record: ``--mpp``, else the slide's own, else what the coordinates say.

    Raises:
        NoResolutionError: if none is stated.
    """
    if coordinates.um is not None:
        return _own_resolution(slide, coordinates)
    per_patch_px = coordinates.source_px / coordinates.patch_px
    power = slide.metadata.objective_power
    if mpp is not None:
        return {"mpp": mpp / per_patch_px, "origin": "--mpp", "objective_power": power, "warnings": []}
    try:
        found = resolve(slide.metadata, size=(slide.levels[0].width, slide.levels[0].height))
    except NoResolutionError as error:
        if coordinates.mpp is None:
            raise NoResolutionError(
                f"neither the slide nor {coordinates.path} says how large a pixel is; give --mpp, that of the patches"
            ) from error
        own = coordinates.mpp / per_patch_px
        return {"mpp": own, "origin": "coordinates", "objective_power": power, "warnings": []}
    warnings = list(found.warnings)
    effective = found.mpp * per_patch_px
    if coordinates.mpp is not None and abs(effective - coordinates.mpp) > TOLERANCE * coordinates.mpp:
        warnings.append(
            f"{coordinates.path.name} speaks of patches of {coordinates.mpp:g} µm/px, and on this slide they have "
            f"{effective:.4g}"
        )
    return {**dataclasses.asdict(found), "warnings": warnings}


def _own_resolution(slide: Slide, coordinates: Coordinates) -> dict[str, Any]:
    """The slide's own resolution: nothing else says where coordinates in µm lie.

    Raises:
        NoResolutionError: if it states none.
    """
    try:
        found = resolve(slide.metadata, size=(slide.levels[0].width, slide.levels[0].height))
    except NoResolutionError as error:
        raise NoResolutionError(
            f"{coordinates.path} gives coordinates in µm, and where they lie on the slide is not known: {error}"
        ) from error
    return {**dataclasses.asdict(found), "warnings": list(found.warnings)}


def survey_placed(task: PlacedSurveyTask) -> PlacedSurvey:
    """Look at a slide and the coordinates on it.

    Raises:
        SlideError: if the slide cannot be used.
        PatchImportError: if no patch lies on it.
    """
    source, slide_source, coordinates = task.source, task.source.slide, task.source.coordinates
    before = stamp(slide_source.files)
    slide = opened(slide_source, before)
    resolution = slide_resolution(slide, coordinates, task.config.mpp)
    coordinates = coordinates.on_slide(float(resolution["mpp"]))
    size = task.store_record.patch_px
    plan = plan_windows(
        [level.downsample for level in slide.levels], float(resolution["mpp"]), coordinates.source_px, size
    )
    xy = np.unique(coordinates.xy[:, ::-1], axis=0)[:, ::-1].astype(np.int32)  # raster order: by y, then x
    repeated = len(coordinates.xy) - len(xy)
    full = slide.levels[0]
    if len(xy) and not any(_lies_within(slide, plan, x, y) for x, y in xy.tolist()):
        example = xy[0].tolist()
        raise PatchImportError(
            f"none of the {len(xy):,} patches of {coordinates.path} lies on {slide_source.path}, which has "
            f"{full.width}x{full.height} pixels: the first is at x={example[0]} y={example[1]}, "
            f"{coordinates.source_px} pixels wide. Are they coordinates of another slide, or of another level?"
        )
    settings = {
        "mpp": float(source.mpp),
        "patch_px": size,
        "codec": task.store_record.codec,
        "quality": task.store_record.quality,
        "import": coordinates.format,
        "source_px": coordinates.source_px,
        "coordinates": hashlib.blake2b(xy.astype("<i4").tobytes(), digest_size=16).hexdigest(),
        "mask": find_mask(_MASK).recorded,
        "scores": SCORES_VERSION,
    }
    source_record = {
        "path": str(slide_source.path.absolute()),
        "bytes": sum(before.sizes),
        "files": len(before.sizes),
        "quick_hash": quick_hash(slide_source.files),
    }
    facts = {"mpp": resolution["mpp"], "bytes": source_record["bytes"], "hash": source_record["quick_hash"]}
    if repeated:
        resolution["warnings"].append(
            f"{repeated:,} coordinates of {coordinates.path.name} stand there twice; kept once"
        )
    record = SlideRecord(
        slide_id=slide_source.slide_id,
        name=slide_source.name,
        mpp=float(source.mpp),
        patch_px=size,
        source=source_record,
        reader=slide.reader,
        resolution=resolution,
        reading={"width": full.width, "height": full.height, **dataclasses.asdict(plan), "lattice": "none"},
        tcga=dataclasses.asdict(slide_source.barcode) if slide_source.barcode else None,
        patient=slide_source.patient,
        site=slide_source.site,
        kind=slide_source.kind,
        label=None,
        settings=settings,
        fingerprint=fingerprint_of(settings, facts),
        counts={"lattice": len(xy), "below_min_tissue": 0},
        content_hash="",
    )
    if task.committed is not None:
        return PlacedSurvey(as_committed(task.committed, record, "import"), True, before, len(xy))
    place = None if task.store is None else FindingsPlace(task.store, task.key, made_by(record))
    findings = None if place is None else place.read()
    if findings is None:
        findings = _look(slide, float(resolution["mpp"]), plan, xy, coordinates.source_px)
        check_unchanged(slide_source.files, before)
        if place is not None:
            place.write(findings)
    pieces = tuple(len(rows) for rows in segments(findings.cells))
    return PlacedSurvey(record, False, before, len(xy), plan, pieces)


def _look(slide: Slide, slide_mpp: float, plan: ReadPlan, xy: NDArray[np.int32], source_px: int) -> Findings:
    """Read the overview and find the tissue below patches of ``source_px`` level-0 pixels at ``xy``, int32 (n, 2)."""
    overview = read_overview(slide, slide_mpp)
    mask = find_mask(_MASK).mask(overview.pixels, slide_mpp * overview.downsample[0])
    small, small_downsample = shrink(overview, slide.levels[0].width, slide.levels[0].height)
    return Findings(
        cells=(xy // round(plan.pitch)).astype(np.int32),
        xy=xy,
        tissue=window_tissue(mask, overview.downsample, xy, source_px),
        unsampled_xy=np.empty((0, 2), dtype=np.int32),
        overview=small,
        overview_downsample=small_downsample,
        mask=mask,
        mask_downsample=overview.downsample,
    )


def _lies_within(slide: Slide, plan: ReadPlan, x: int, y: int) -> bool:
    window, level = free_window(plan, x, y), slide.levels[plan.level]
    return (
        x >= 0
        and y >= 0
        and x + plan.pitch <= slide.levels[0].width
        and y + plan.pitch <= slide.levels[0].height
        and window.x + window.width <= level.width
        and window.y + window.height <= level.height
    )


def read_placed(task: PlacedSegmentTask) -> None:
    """Read, score and encode the patches of a segment, and write it.

    Raises:
        SlideError: if the slide vanished or changed.
        LeaseLostError: if another run took the slide over.
        CorruptStoreError: if the survey's findings are damaged.
        StoreWriteError: if the segment cannot be written.
    """
    cells, xy = task.findings.read_places()
    plan_rows = segment_rows(cells, task.number)
    check_unchanged(task.slide.files, task.stamp)
    slide = opened(task.slide, task.stamp)
    codec = None if task.store_record.codec == "none" else task.store_record.chunk_codec()
    rows: list[int] = []
    scores: list[NDArray[np.float32]] = []
    patches: list[bytes] = []
    dropped: dict[int, str] = {}
    messages: dict[str, str] = {}
    edge = round(task.read_plan.pitch)
    for row, (x, y) in zip(plan_rows.tolist(), xy[plan_rows].tolist(), strict=True):
        if not _lies_within(slide, task.read_plan, x, y):
            full = slide.levels[0]
            dropped[row] = BEYOND_SLIDE
            messages.setdefault(
                BEYOND_SLIDE, f"x={x} y={y} and {edge} pixels on reach beyond {full.width}x{full.height} pixels"
            )
            continue
        try:
            patch = cut_window(slide.read, task.read_plan, x, y, task.store_record.patch_px)
        except UnreadableRegionError as error:
            dropped[row] = error.reason
            messages.setdefault(error.reason, str(error))
            continue
        rows.append(row)
        scores.append(patch_scores(patch))
        if codec is not None:
            patches.append(codec.encode(patch))
    check_unchanged(task.slide.files, task.stamp)
    segment = Segment(
        rows=np.array(rows, dtype=np.int32),
        scores=np.array(scores, dtype=np.float32).reshape(len(rows), len(SCORES)),
        lengths=np.array([len(patch) for patch in patches] or [0] * len(rows), dtype=np.int64),
        dropped=np.array(list(dropped), dtype=np.int32),
        dropped_reasons=tuple(dropped.values()),
        messages=messages,
    )
    write_segment(task.findings.store, task.segment, segment, patches)


def commit_placed(task: PlacedCommitTask) -> SlideRecord:
    """Turn a slide's segments into its arrays and write its mark.

    Raises:
        SlideError: if the slide vanished or changed meanwhile.
        StoreError: as `commit_slide` does.
    """
    check_unchanged(task.slide.files, task.stamp)
    place, content = task.findings, task.findings.read_own().content(task.segments, SCORES)
    return commit_slide(place.store, place.key, task.record, content, task.store_record)
