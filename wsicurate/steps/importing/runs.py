"""Runs of `import` over images and over coordinates: what they look at, read and commit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from wsicurate._version import __version__
from wsicurate.config import ImportConfig
from wsicurate.engine.filling import FillingRun
from wsicurate.engine.findings import FindingsPlace
from wsicurate.engine.pieces import Call, Filling, Piece, Surveyed
from wsicurate.engine.progress import ProgressCallback, SlideOutcome
from wsicurate.engine.slide_run import Job, Source
from wsicurate.errors import ConfigError, PatchImportError
from wsicurate.formats.coordinates import find_coordinates
from wsicurate.formats.packed import find_packed
from wsicurate.formats.patch_folders import find_patches
from wsicurate.slides.names import safe_name
from wsicurate.steps.importing.coordinates import (
    PlacedCommitTask,
    PlacedSegmentTask,
    PlacedSource,
    PlacedSurvey,
    PlacedSurveyTask,
    commit_placed,
    read_placed,
    survey_placed,
)
from wsicurate.steps.importing.image_source import ImageSource, reaches_beyond
from wsicurate.steps.importing.images import (
    SEGMENT_IMAGES,
    ImageSegmentTask,
    ImageSurvey,
    ImageSurveyTask,
    read_images,
    survey_images,
)
from wsicurate.steps.importing.mosaic import ImageCommitTask, commit_images
from wsicurate.steps.importing.sources import (
    ASSUMED_MPP,
    image_sources,
    mpp_at,
    one_size,
    packed_sources,
    slides_of_names,
    target_mpp,
)
from wsicurate.store.layout import segment_path, slide_key
from wsicurate.store.records import SlideRecord, StoreRecord


class ImportSource(Source, Protocol):
    """A slide of `import`."""

    @property
    def mpp(self) -> float:
        """Target resolution of its patches, µm per pixel."""
        ...


S = TypeVar("S", bound=ImportSource)
V = TypeVar("V", bound=Surveyed)


def image_run(
    folder: Path, path: Path, config: ImportConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[ImageRun, list[str]]:
    """The run that imports a folder of patch images, and what was assumed, in sentences; raises as `import_patches`."""
    if config.codec == "none":
        raise ConfigError("--codec is none, which keeps coordinates alone: images have no slide to be read from later")
    if config.encoder_name is not None:
        raise ConfigError(f"--encoder-name is for vectors, and {folder} holds images; leave it out")
    table = None if config.table is None else Path(config.table)
    found = find_patches(folder, layout=config.layout, name_pattern=config.name_pattern, table=table)
    patch_px = one_size(found, config.patch_px)
    notes = list(found.notes)
    sources = list(image_sources(found, config.mpp, patch_px))
    notes += _notes_on(sources)
    run = ImageRun(path, config, sources, _image_record(config, patch_px), executor, progress)
    run.add_outcomes(
        SlideOutcome(
            slide_id=safe_name(f"{folder.name}/{name}"),
            name=f"{folder.name}/{name}",
            status="skipped",
            reason="unreadable_folder",
            message=f"the folder cannot be searched: {reason}; make it readable, or move it away",
        )
        for name, reason in found.unreadable.items()
    )
    return run, notes


def packed_run(
    patches: Path, path: Path, config: ImportConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[ImageRun, list[str]]:
    """The run that imports patches in HDF5 files, and what was assumed, in sentences; raises as `import_patches`."""
    if config.codec == "none":
        raise ConfigError("--codec is none, which keeps coordinates alone: give --slides, to read the patches from")
    if config.layout or config.name_pattern or config.table:
        raise ConfigError(f"--layout, --name-pattern and --table are for image files, and {patches} holds HDF5")
    found = find_packed(patches)
    sizes = {packed.coordinates.patch_px: packed for packed in found}
    patch_px = config.patch_px or found[0].coordinates.patch_px
    if len(sizes) > 1 and config.patch_px is None:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise PatchImportError(
            f"the patches have several sizes: {one} px in {first.path}, {other} px in {second.path}; give --patch-px "
            f"{one} (or {other}) to take those of that edge alone, or import each size into a store of its own"
        )
    wanted = [packed for packed in found if packed.coordinates.patch_px == patch_px]
    if not wanted:
        raise PatchImportError(
            f"--patch-px is {patch_px} and no patch in {patches} has that edge; those of {found[0].path} have "
            f"{found[0].coordinates.patch_px} pixels"
        )
    root = Path(os.path.abspath(patches))  # noqa: PTH100 - not resolve(): a link keeps the name that the user gave
    sources, notes = packed_sources(wanted, root if patches.is_dir() else root.parent, config.mpp)
    notes += [
        f"{packed.path} is left out: its patches have {packed.coordinates.patch_px} pixels"
        for packed in found
        if packed.coordinates.patch_px != patch_px
    ]
    notes += _notes_on(sources)
    return ImageRun(path, config, sources, _image_record(config, patch_px), executor, progress), notes


def _notes_on(sources: Sequence[ImageSource]) -> list[str]:
    """What is assumed of images, in sentences."""
    notes = []
    if any(source.origin == "unknown" for source in sources):
        notes.append(
            f"no resolution is specified: {ASSUMED_MPP:g} µm per pixel is assumed and recorded as unknown; "
            "--mpp, or a column mpp of --table, says it"
        )
    if not any(source.is_placed for source in sources):
        notes.append(
            "the positions of the images on their slides are not specified: x and y are those of an artificial grid"
        )
    return notes


def _image_record(config: ImportConfig, patch_px: int) -> StoreRecord:
    return StoreRecord(
        patch_px=patch_px,
        codec=config.codec,
        quality=config.quality if config.codec == "jpeg" else None,
        version=__version__,
        tiling=None,
    )


def placed_run(
    patches: Path, path: Path, config: ImportConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[PlacedRun, list[str]]:
    """The run that imports coordinates on slides, and what was assumed, in sentences; raises as `import_patches`."""
    if config.layout or config.name_pattern or config.table:
        raise ConfigError(f"--layout, --name-pattern and --table are for images, and {patches} holds coordinates")
    found = find_coordinates(patches)
    sizes = {coordinates.patch_px: coordinates for coordinates in found}
    patch_px = config.patch_px or found[0].patch_px
    if len(sizes) > 1 and config.patch_px is None:
        one, other = list(sizes.values())[:2]
        raise PatchImportError(
            f"the patches have several sizes: {one.patch_px} px in {one.path}, {other.patch_px} px in {other.path}; "
            "give --patch-px to read all at one size, or import each into a store of its own"
        )
    slides = slides_of_names([Path(folder) for folder in config.slides], [item.slide for item in found])
    sources, missing = [], []
    for item in found:
        slide = slides.get(item.slide)
        if slide is None:
            missing.append(item)
        else:
            resized = dataclasses.replace(item, patch_px=patch_px, mpp=mpp_at(item, patch_px))
            sources.append(PlacedSource(slide=slide, coordinates=resized, mpp=target_mpp(slide, resized, config.mpp)))
    folders = ", ".join(map(str, config.slides))
    if not sources:
        raise PatchImportError(
            f"no slide in {folders} is called like one of the {len(found):,} files of coordinates, such as "
            f"{found[0].slide!r} of {found[0].path}; name the folder of the slides"
        )
    notes = [f"{item.path} is left out: no slide in {folders} is called {item.slide!r}" for item in missing]
    if any(item.has_vectors for item in found) and config.encoder_name is None:
        notes.append("the files hold vectors as well, which are not imported; --encoder-name takes them")
    record = _image_record(config, patch_px)
    run = PlacedRun(path, config, sources, record, executor, progress)
    run.add_outcomes(
        SlideOutcome(
            slide_id=safe_name(item.slide),
            name=item.slide,
            status="failed",
            reason="not_found",
            message=f"{item.path} is about it, and no slide in --slides is called so",
        )
        for item in missing
    )
    return run, notes


class ImportRun(FillingRun[ImportConfig, S, V, None]):
    """What runs of `import` have in common."""

    done = "imported"
    doing = "being imported"

    def _key_of(self, source: S) -> str:
        return slide_key(source.slide_id, source.mpp)


_ImageJob = Job[ImageSource, Filling[ImageSurvey, None]]
_PlacedJob = Job[PlacedSource, Filling[PlacedSurvey, None]]


class ImageRun(ImportRun[ImageSource, ImageSurvey]):
    """One run of `import` over patch images."""

    def _survey_call(self, job: _ImageJob, committed: SlideRecord | None) -> Call[ImageSurvey]:
        return Call.of(survey_images, ImageSurveyTask(job.source, self.record, committed, self.config.dry_run))

    def _pieces_of(self, job: _ImageJob, place: FindingsPlace) -> Iterator[Piece[None]]:
        source, digests = job.source, job.progress.surveyed.digests
        beyond = np.flatnonzero(reaches_beyond(source, self.record.patch_px))
        for number, first in enumerate(range(0, len(source.names), SEGMENT_IMAGES)):
            names = source.names[first : first + SEGMENT_IMAGES]
            key = segment_path(job.key, place.fingerprint, number)
            task = ImageSegmentTask(
                root=source.root,
                names=names,
                digests=digests[16 * first : 16 * (first + len(names))],
                first=first,
                mpp=source.mpp,
                store_record=self.record,
                store=self._held(job),
                segment=key,
                packed=None if source.packed is None else source.packed.part(first, len(names)),
                beyond=frozenset(beyond[(beyond >= first) & (beyond < first + len(names))] - first),
            )
            yield Piece(key, len(names), Call.of(read_images, task))

    def _commit_call(self, job: _ImageJob, place: FindingsPlace) -> Call[SlideRecord]:
        task = ImageCommitTask(
            source=job.source,
            key=job.key,
            record=job.progress.surveyed.record,
            segments=job.progress.segments,
            store_record=self.record,
            store=self._held(job),
        )
        return Call.of(commit_images, task)


class PlacedRun(ImportRun[PlacedSource, PlacedSurvey]):
    """One run of `import` over coordinates on slides."""

    def _survey_call(self, job: _PlacedJob, committed: SlideRecord | None) -> Call[PlacedSurvey]:
        store = None if job.lease is None else self._held(job)
        task = PlacedSurveyTask(job.source, self.config, self.record, job.key, store, committed)
        return Call.of(survey_placed, task)

    def _pieces_of(self, job: _PlacedJob, place: FindingsPlace) -> Iterator[Piece[None]]:
        result = job.progress.surveyed
        if result.read_plan is None:
            raise ValueError(f"the survey of {job.source.name} came back without a plan")
        for number, patches in enumerate(result.segments):
            key = segment_path(job.key, place.fingerprint, number)
            task = PlacedSegmentTask(
                slide=job.source.slide,
                stamp=result.stamp,
                read_plan=result.read_plan,
                findings=place,
                number=number,
                store_record=self.record,
                segment=key,
            )
            yield Piece(key, patches, Call.of(read_placed, task))

    def _commit_call(self, job: _PlacedJob, place: FindingsPlace) -> Call[SlideRecord]:
        result = job.progress.surveyed
        segments = job.progress.segments
        task = PlacedCommitTask(job.source.slide, result.stamp, place, result.record, segments, self.record)
        return Call.of(commit_placed, task)
