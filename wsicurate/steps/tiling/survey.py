"""The survey of a slide, by a worker of `tile`: identity, resolution, overview, mask, plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import TileConfig
from wsicurate.engine.findings import Findings, FindingsPlace
from wsicurate.engine.pieces import made_by
from wsicurate.errors import TooCoarseError, UnreadableRegionError
from wsicurate.slides.base import Slide
from wsicurate.slides.guard import check_colours
from wsicurate.slides.identity import FileStamp, check_unchanged, quick_hash, stamp
from wsicurate.slides.kept_open import opened
from wsicurate.slides.overview import read_overview, shrink
from wsicurate.slides.resolution import Resolution, resolve
from wsicurate.slides.source import SlideSource
from wsicurate.steps.tiling.masking import mask_of
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.layout import segment_path
from wsicurate.store.records import SlideRecord, StoreRecord, as_committed, fingerprint_of
from wsicurate.store.segments import is_finished
from wsicurate.tiling.geometry import Grid, ReadPlan, plan_reading
from wsicurate.tiling.patches import cut_patch
from wsicurate.tiling.plan import plan_patches, segments, spread_sample, tiles_needed
from wsicurate.tissue.brightfield import check_brightfield
from wsicurate.tissue.find import find_mask
from wsicurate.tissue.scores import SCORES_VERSION

T = TypeVar("T")

#: Patches that a dry run encodes per slide to estimate sizes.
DRY_RUN_PATCHES = 8


@dataclass(frozen=True)
class SurveyTask:
    """Look at a slide and plan it.

    Attributes:
        source: the slide.
        config: settings.
        store_record: the store's codec.
        key: of its group.
        store: the store, fenced by the lease on the slide; None where nothing is to be written of it.
        committed: what the store already holds of it, or None.
    """

    source: SlideSource
    config: TileConfig
    store_record: StoreRecord
    key: str
    store: ByteStore | None
    committed: SlideRecord | None = None


@dataclass(frozen=True)
class Survey:
    """A slide, looked at and planned; or found in the store as it should be.

    Attributes:
        record: attributes for the store; counts and hash are still to come unless ``is_committed``.
        stamp: of its files when it was looked at.
        is_committed: the store holds these patches already; ``record`` is theirs, with the slide table's words of
            today.
        read_plan, grid: how patches are read and where they can lie; None where committed.
        segments: number of patches of each segment. Which these are is in the slide's `Findings`.
        bytes_per_patch: estimated in a dry run, else 0.
        tiles_needed: compressed tiles that the segments touch which are still to be cut; None where the reader does not
            count tiles: then what the file says of them was not checked.
    """

    record: SlideRecord
    stamp: FileStamp
    is_committed: bool
    read_plan: ReadPlan | None = None
    grid: Grid | None = None
    segments: tuple[int, ...] = ()
    bytes_per_patch: float = 0.0
    tiles_needed: int | None = None

    @property
    def patches(self) -> int:
        """Planned patches; 0 where committed."""
        return sum(self.segments)


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
    return {**config.store_settings(), "mask": find_mask(config.mask).recorded, "scores": SCORES_VERSION}


def survey(task: SurveyTask) -> Survey:
    """Look at a slide: identity, resolution, overview, mask, plan.

    What is too large to travel goes into the slide's work folder, or is found there if a run that was killed left it.

    Raises:
        SlideError: if the slide cannot or should not be tiled; its class says why.
        LeaseLostError: if another run took the slide over.
        StoreWriteError: if the store cannot be written.
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
        read_plan = plan_reading(
            [level.downsample for level in slide.levels],
            resolution.mpp,
            config.mpp,
            config.patch_px,
            allow_upsampling=config.allow_upsampling,
        )
    except TooCoarseError as error:
        if not resolution.warnings:
            raise
        raise TooCoarseError(f"{error}. Its resolution is in doubt: {'; '.join(resolution.warnings)}") from error
    full, level = slide.levels[0], slide.levels[read_plan.level]
    grid = Grid.over(read_plan, full.width, full.height, level.width, level.height)
    place = None if task.store is None else FindingsPlace(task.store, task.key, made_by(record))
    findings = None if place is None else place.read()
    if findings is None:
        findings = _look(slide, resolution.mpp, read_plan, grid, config, source.slide_id)
        check_unchanged(source.files, before)
        if place is not None:
            place.write(findings)
    bytes_per_patch = 0.0
    if config.dry_run:
        bytes_per_patch = _estimate(slide, findings.cells, read_plan, grid, task.store_record)
        check_unchanged(source.files, before)
    warnings = (*resolution.warnings, *slide.metadata.warnings, *findings.facts["suspicions"])
    return Survey(
        record=dataclasses.replace(
            record,
            resolution={**record.resolution, "warnings": warnings},
            reading={"width": full.width, "height": full.height, **dataclasses.asdict(read_plan)},
            counts={
                "lattice": grid.columns * grid.rows,
                "below_min_tissue": findings.facts["below_min_tissue"],
            },
        ),
        stamp=before,
        is_committed=False,
        read_plan=read_plan,
        grid=grid,
        segments=tuple(len(rows) for rows in segments(findings.cells)),
        bytes_per_patch=bytes_per_patch,
        tiles_needed=None if place is None else _tiles_needed(slide, findings.cells, read_plan, grid, place),
    )


def _look(
    slide: Slide, slide_mpp: float, read_plan: ReadPlan, grid: Grid, config: TileConfig, slide_id: str
) -> Findings:
    """Read the overview, find the tissue and plan the patches.

    Raises:
        NotBrightfieldError: if it is no stained section.
        SlideError: if its colours cannot be trusted.
    """
    overview = read_overview(slide, slide_mpp)
    mask = mask_of(slide, overview, slide_mpp, config.mask)
    check_brightfield(overview.pixels, mask)
    suspicions = list(check_colours(slide, overview, read_plan.level))
    mask |= overview.unreadable  # planned, so that what cannot be read is dropped on record, not passed over
    plan = plan_patches(
        grid,
        mask,
        overview.downsample,
        min_tissue=config.min_tissue,
        max_patches=config.max_patches_per_slide,
        seed=config.seed,
        name=slide_id,
    )
    small, small_downsample = shrink(overview, slide.levels[0].width, slide.levels[0].height)
    return Findings(
        cells=plan.cells,
        xy=plan.xy,
        tissue=plan.tissue,
        unsampled_xy=plan.unsampled_xy,
        overview=small,
        overview_downsample=small_downsample,
        mask=mask,
        mask_downsample=overview.downsample,
        facts={"suspicions": suspicions, "below_min_tissue": plan.below_min_tissue},
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


def _estimate(
    slide: Slide, cells: NDArray[np.int32], read_plan: ReadPlan, grid: Grid, store_record: StoreRecord
) -> float:
    """Mean size of a few encoded patches, bytes."""
    if store_record.codec == "none":
        return 0.0
    codec, sizes = store_record.chunk_codec(), []
    for index in spread_sample(cells, min(DRY_RUN_PATCHES, len(cells)), seed=0, name="dry run"):
        window = grid.window(*(int(value) for value in cells[index]))
        try:
            patch = cut_patch(slide.read, read_plan, window, store_record.patch_px)
        except UnreadableRegionError:
            continue
        sizes.append(len(codec.encode(patch)))
    return float(np.mean(sizes)) if sizes else 0.0


def _tiles_needed(
    slide: Slide, cells: NDArray[np.int32], read_plan: ReadPlan, grid: Grid, place: FindingsPlace
) -> int | None:
    """Compressed tiles that the segments touch which are not there yet; None where the reader does not count tiles."""
    tile_px = slide.levels[read_plan.level].tile_px
    if slide.counts.tiles_decoded is None or tile_px is None:
        return None
    rows = [
        rows
        for number, rows in enumerate(segments(cells))
        if not is_finished(place.store, segment_path(place.key, place.fingerprint, number))
    ]
    if not rows:
        return None
    return tiles_needed(grid, cells[np.concatenate(rows)], read_plan.downsample, tile_px)


def present(value: T | None) -> T:
    """What a survey has of a slide that is not committed.

    Raises:
        ValueError: if it has not.
    """
    if value is None:
        raise ValueError("a slide was sent on before its survey was complete")
    return value
