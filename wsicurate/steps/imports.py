"""`import`: patches that others cut -> a store. Interruptible anywhere, like `tile`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsicurate._version import __version__
from wsicurate.config import ImportConfig
from wsicurate.errors import ConfigError, PatchImportError, SlideError, WsicurateError
from wsicurate.export.coordinates import Coordinates, find_coordinates
from wsicurate.export.patch_folders import PATCH_SUFFIXES, FoundPatch, FoundPatches, find_patches
from wsicurate.slides.discovery import IMAGE_SUFFIXES, SlideSource, find_slides
from wsicurate.slides.names import safe_name
from wsicurate.slides.opening import open_slide
from wsicurate.slides.table import SlideRow
from wsicurate.slides.tcga import Barcode, parse_barcode
from wsicurate.steps.import_coordinates import (
    PlacedSegmentTask,
    PlacedSource,
    PlacedSurvey,
    PlacedSurveyTask,
    read_placed,
    slide_resolution,
    survey_placed,
)
from wsicurate.steps.import_images import (
    SEGMENT_IMAGES,
    ImageCommitTask,
    ImageSegmentTask,
    ImageSource,
    ImageSurveyTask,
    commit_images,
    read_images,
    survey_images,
)
from wsicurate.steps.import_vectors import import_vectors
from wsicurate.steps.progress import ProgressCallback, SlideOutcome, Status, no_progress
from wsicurate.steps.runs import write_run
from wsicurate.steps.tile import Job, SlideRun, TileReport
from wsicurate.steps.tile_tasks import CommitTask, commit
from wsicurate.store.bytestore import LocalBytes
from wsicurate.store.commit import SlideContent
from wsicurate.store.layout import segment_path, slide_key
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.store import Store
from wsicurate.tiling.geometry import TOLERANCE
from wsicurate.tiling.plan import segments
from wsicurate.tissue.scores import SCORES

#: Images of which nobody says which slide they are from are kept together up to this many.
PART_IMAGES = 16_384

#: What images are taken for of which nobody says the resolution; the record says ``unknown``.
ASSUMED_MPP = 0.5

#: Threads that look at the headers of images: the time is the file system's.
_HEADER_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class DroppedPatch:
    """A patch that was to be imported and is not in the store.

    Attributes:
        name: its file, below the input folder; or slide and corner.
        reason: one word.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImportReport(TileReport):
    """What a run of `import_patches` did.

    Attributes:
        notes: what was assumed, in sentences.
        dropped: patches that are not in the store, by name.
    """

    notes: Sequence[str] = ()
    dropped: Sequence[DroppedPatch] = ()

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0: all done. 1: nothing could be done. 3: done, but some patches were dropped or slides failed."""
        if not self.count("failed", "skipped") and not self.dropped:
            return 0
        return 3 if self.patches else 1


def import_patches(
    patches: str | Path,
    store: str | Path,
    config: ImportConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> ImportReport:
    """Bring patches that others cut into a store.

    - A folder of patch images of one size: each set that belongs together (a slide, by name, folder or table) becomes
      a slide of the store. JPEG files are stored as they are.
    - Files of coordinates by TRIDENT, CLAM or hs2p, with ``config.slides``: the patches are read from the slides, or,
      with codec ``none``, kept as coordinates.
    - Files of vectors by TRIDENT, CLAM or as `.npy`, with ``config.encoder_name``: they become embeddings of slides
      that the store holds, or, with ``config.slides`` as well, of those that are imported by their coordinates.

    Args:
        patches: the folder.
        store: the store's folder; made if it is not there.
        config: settings; `ImportConfig` has the defaults.
        executor: where the work runs; a pool of ``config.workers`` processes by default.
        progress: called from this thread as work goes on.

    Returns:
        What became of each slide and which patches were dropped. The same is written to ``runs/<time>.json``.

    Raises:
        ConfigError, PatchImportError: if settings or inputs are wrong; nothing was done.
        NothingToDoError: if there is no patch.
        StoreFormatError, StoreSettingsError: if the store is something else or was made with other settings.
        StoreWriteError: if the store cannot be written; what was committed stays.
        KeyboardInterrupt: passed on, after leases were given back and workers ended.
    """
    began = time.monotonic()
    config = config or ImportConfig()
    folder = Path(patches)
    if not folder.exists():
        raise ConfigError(f"the input {folder} does not exist; give a folder of patch images")
    path = Path(store).absolute()
    kind = _kind_of(folder, config)
    if kind == "vectors":
        return _import_vectors(folder, path, config, progress, began)
    make = _image_run if kind == "images" else _placed_run
    run, notes = make(folder, path, config, executor, progress)
    outcomes: Sequence[SlideOutcome] = ()
    try:
        outcomes = run.work()
        if kind == "features" and config.encoder_name is not None and not config.dry_run:
            import_vectors(folder, path, config, no_progress)
    except BaseException as error:
        if run.has_begun and not config.dry_run:
            with contextlib.suppress(WsicurateError):
                _write_record(run, notes, (), time.monotonic() - began, ended=f"{type(error).__name__}: {error}")
        raise
    report = ImportReport(
        store=path,
        outcomes=outcomes,
        seconds=time.monotonic() - began,
        dry_run=config.dry_run,
        notes=notes,
        dropped=() if config.dry_run else list(_dropped(path, outcomes)),
    )
    if not config.dry_run:
        _write_record(run, notes, report.dropped, report.seconds, ended="complete")
    return report


Kind = Literal["images", "coordinates", "features", "vectors"]


def _kind_of(patches: Path, config: ImportConfig) -> Kind:
    """What the input is: images, coordinates with or without vectors, or vectors alone."""
    if patches.is_file():
        if patches.suffix.lower() in PATCH_SUFFIXES:
            raise ConfigError(f"the input {patches} is a file; give the folder of patch images that it lies in")
        is_data = True
    else:
        suffixes = {file.suffix.lower() for file in patches.rglob("*") if not config.slides} or {".h5"}
        is_data = not suffixes & PATCH_SUFFIXES and bool(suffixes & {".h5", ".hdf5", ".npy", ".npz"})
    if not is_data:
        return "images"
    if config.slides:
        return "coordinates" if config.encoder_name is None else "features"
    if config.encoder_name is not None:
        return "vectors"
    raise ConfigError(
        f"{patches} holds coordinates or vectors: coordinates need --slides, the folder of their slides; vectors of "
        "patches that are in the store need --encoder-name"
    )


def _import_vectors(
    patches: Path, path: Path, config: ImportConfig, progress: ProgressCallback, began: float
) -> ImportReport:
    outcomes = import_vectors(patches, path, config, progress)
    seconds = time.monotonic() - began
    if not config.dry_run:
        settings = dataclasses.asdict(config)
        write_run(LocalBytes(path), "import", settings=settings, outcomes=outcomes, seconds=seconds, ended="complete")
    return ImportReport(store=path, outcomes=outcomes, seconds=seconds, dry_run=config.dry_run)


def _write_record(
    run: SlideRun, notes: Sequence[str], dropped: Sequence[DroppedPatch], seconds: float, *, ended: str
) -> None:
    write_run(
        run.bytes,
        "import",
        settings=dataclasses.asdict(run.config),
        outcomes=run.outcomes(),
        seconds=seconds,
        ended=ended,
        extra={"notes": list(notes), "dropped": [dataclasses.asdict(patch) for patch in dropped]},
    )


def _dropped(path: Path, outcomes: Sequence[SlideOutcome]) -> Iterator[DroppedPatch]:
    """The patches that the slides of this run lack, by name where they have one, else by corner."""
    wanted = {outcome.slide_id: outcome for outcome in outcomes if outcome.dropped}
    if not wanted:
        return
    for slide in Store(path).slides.values():
        outcome = wanted.get(slide.slide_id)
        if outcome is None:
            continue
        names = slide.dropped_names or [f"{slide.record.name} x={x} y={y}" for x, y in slide.dropped_xy.tolist()]
        for name, reason in zip(names, slide.dropped_reason, strict=True):
            yield DroppedPatch(name=name, reason=reason)


def _image_run(
    folder: Path, path: Path, config: ImportConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[SlideRun, list[str]]:
    if config.codec == "none":
        raise ConfigError("--codec is none, which keeps coordinates alone: images have no slide to be read from later")
    if config.encoder_name is not None:
        raise ConfigError(f"--encoder-name is for vectors, and {folder} holds images; leave it out")
    table = None if config.table is None else Path(config.table)
    found = find_patches(folder, layout=config.layout, name_pattern=config.name_pattern, table=table)
    patch_px = _one_size(found, config.patch_px)
    notes = list(found.notes)
    sources = list(_sources(found, config.mpp, patch_px))
    if any(source.origin == "unknown" for source in sources):
        notes.append(
            f"nobody says how large a pixel is: taken for {ASSUMED_MPP:g} µm and recorded as unknown; "
            "--mpp, or a column mpp of --table, says it"
        )
    if not any(source.is_placed for source in sources):
        notes.append(
            "nobody says where the images lie on their slides: x and y are those of a lattice made up for them"
        )
    record = StoreRecord(
        patch_px=patch_px,
        codec=config.codec,
        quality=config.quality if config.codec == "jpeg" else None,
        version=__version__,
        tiling=None,
    )
    return _ImageRun(path, config, sources, record, executor, progress), notes


def _one_size(found: FoundPatches, wanted: int | None) -> int:
    """The edge of the images, pixels; those without a readable header are left to be dropped on record.

    Raises:
        PatchImportError: if they are not square or not of one size and no size is wanted; or none is of that size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        sizes = threads.map(_header_size, (found.root / patch.name for patch in found.patches), chunksize=64)
        for patch, size in zip(found.patches, sizes, strict=True):
            if size is None:
                continue
            if wanted is not None:
                if size == (wanted, wanted):
                    return wanted
                first = first or (patch.name, size)
                continue
            if size[0] != size[1]:
                raise PatchImportError(
                    f"{found.root / patch.name} has {size[0]}x{size[1]} pixels; patches are square: cut it, or give "
                    "--patch-px to take the images of that edge alone"
                )
            first = first or (patch.name, size)
            if size != first[1]:
                raise PatchImportError(
                    f"the images have several sizes: {found.root / first[0]} has {first[1][0]}x{first[1][1]} pixels, "
                    f"{found.root / patch.name} {size[0]}x{size[1]}; give --patch-px {first[1][0]} (or {size[0]}) to "
                    "take those of that edge alone, or import each size into a store of its own"
                )
    if first is None:
        raise PatchImportError(f"none of the {len(found.patches):,} images in {found.root} can be opened")
    if wanted is not None:
        raise PatchImportError(
            f"--patch-px is {wanted} and no image of {found.root} has that edge; {first[0]} has "
            f"{first[1][0]}x{first[1][1]} pixels"
        )
    return first[1][0]


def _header_size(path: Path) -> tuple[int, int] | None:
    """Width and height, or None where the header cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow raises many kinds on broken files; the worker that reads it says what is wrong
        return None


@dataclass(frozen=True)
class _Group:
    """What images have in common that make one slide of the store."""

    name: str
    is_slide: bool
    mpp: float
    origin: str


def _sources(found: FoundPatches, mpp: float | None, patch_px: int) -> Iterator[ImageSource]:
    """Group the images into slides of the store."""
    root = Path(os.path.abspath(found.root))  # noqa: PTH100 - not resolve(): a link keeps the name that the user gave
    has_labels = any(patch.label is not None for patch in found.patches)
    groups: dict[_Group, list[FoundPatch]] = defaultdict(list)
    by_folder = all(patch.name.count("/") == 1 for patch in found.patches)
    for patch in found.patches:
        barcode = parse_barcode(patch.name)
        name = patch.slide or _barcode_name(barcode) or patch.patient
        of_slide = name is not None
        if name is None:
            name = patch.name.partition("/")[0] if by_folder else ""
        own = patch.mpp if patch.mpp is not None else mpp
        origin = "table" if patch.mpp is not None else "--mpp" if mpp is not None else "unknown"
        groups[_Group(name, of_slide, ASSUMED_MPP if own is None else own, origin)].append(patch)
    names: dict[str, str] = {}
    for group in sorted(groups, key=lambda group: (group.name, group.mpp, group.origin)):
        members = groups[group]
        parts = (
            [members]
            if group.is_slide
            else [members[first : first + PART_IMAGES] for first in range(0, len(members), PART_IMAGES)]
        )
        for number, part in enumerate(parts):
            name = "/".join(filter(None, (root.name, group.name, f"part-{number:04d}" if len(parts) > 1 else "")))
            slide_id = safe_name(name)
            key = slide_key(slide_id, group.mpp)
            if names.setdefault(key, name) != name:
                raise PatchImportError(f"{names[key]!r} and {name!r} would both be called {key!r}; rename one")
            yield _source(root, name, slide_id, group, part, patch_px, has_labels)


def _source(
    root: Path,
    name: str,
    slide_id: str,
    group: _Group,
    members: Sequence[FoundPatch],
    patch_px: int,
    has_labels: bool,
) -> ImageSource:
    barcode = parse_barcode(members[0].name)
    is_placed = all(patch.x is not None for patch in members)
    if is_placed:
        members = sorted(members, key=lambda patch: (patch.y, patch.x, patch.name))
        for one, other in itertools.pairwise(members):
            if (one.x, one.y) == (other.x, other.y):
                raise PatchImportError(
                    f"{root / one.name} and {root / other.name} both lie at x={one.x} y={one.y} of the slide "
                    f"{group.name or root.name!r}; name their slides, or mend one"
                )
        xy = np.array([(patch.x, patch.y) for patch in members], dtype=np.int32)
    else:
        columns = max(1, int(np.ceil(np.sqrt(len(members)))))
        index = np.arange(len(members))
        xy = np.stack([index % columns, index // columns], axis=1).astype(np.int32) * patch_px
    labels = [patch.label for patch in members] if has_labels else None
    same = {patch.label for patch in members}
    return ImageSource(
        slide_id=slide_id,
        name=name,
        root=root,
        names=[patch.name for patch in members],
        labels=labels,
        xy=xy,
        is_placed=is_placed,
        mpp=group.mpp,
        origin=group.origin,
        patient=_one("patient", group, members) or (barcode.patient if barcode and group.is_slide else None),
        site=_one("site", group, members) or (barcode.site if barcode and group.is_slide else None),
        kind=_one("kind", group, members) or (barcode.kind if barcode and group.is_slide else None),
        label=next(iter(same)) if len(same) == 1 else None,
        barcode=barcode if group.is_slide else None,
    )


def _one(word: str, group: _Group, members: Sequence[FoundPatch]) -> str | None:
    """What all images of a slide say.

    Raises:
        PatchImportError: if two say different things; the message names both.
    """
    by_value: dict[str, FoundPatch] = {}
    for patch in members:
        value = getattr(patch, word)
        if value is not None:
            by_value.setdefault(value, patch)
    if len(by_value) > 1:
        (one, first), (other, second) = list(by_value.items())[:2]
        raise PatchImportError(
            f"{first.name} and {second.name} are of one slide, {group.name!r}, and of two values of {word}, {one!r} "
            f"and {other!r}; mend one, or give them different slides"
        )
    return next(iter(by_value), None)


def _barcode_name(barcode: Barcode | None) -> str | None:
    """The barcode down to what it says."""
    if barcode is None:
        return None
    parts = (barcode.sample or barcode.patient, barcode.portion, barcode.slide)
    return "-".join(part for part in parts if part is not None)


class _ImageRun(SlideRun):
    """One run of `import` over patch images."""

    done: Status = "imported"
    doing = "being imported"

    def _key_of(self, source: ImageSource) -> str:
        return slide_key(source.slide_id, source.mpp)

    def _is_wanted(self, job: Job) -> bool:
        return True

    def _comparable(self, record: StoreRecord) -> dict[str, Any]:
        return {"patch_px": record.patch_px, "codec": record.codec, "quality": record.quality}

    def _survey_task(self, job: Job, committed: SlideRecord | None) -> tuple[Callable[[Any], Any], Any]:
        return survey_images, ImageSurveyTask(job.source, self.record, committed, self.config.dry_run)

    def _segment_tasks(self, job: Job, fingerprint: str) -> Iterator[tuple[str, int, Callable[[Any], Any], Any]]:
        source: ImageSource = job.source
        digests: bytes = job.survey.digests
        for number, first in enumerate(range(0, len(source.names), SEGMENT_IMAGES)):
            names = source.names[first : first + SEGMENT_IMAGES]
            key = segment_path(job.key, fingerprint, number)
            task = ImageSegmentTask(
                root=source.root,
                names=names,
                digests=digests[16 * first : 16 * (first + len(names))],
                first=first,
                mpp=source.mpp,
                store_record=self.record,
                store=self._path,
                segment=key,
            )
            yield key, len(names), read_images, task

    def _commit_task(self, job: Job) -> tuple[Callable[[Any], Any], Any]:
        if job.lease is None:
            raise ValueError(f"{job.key} was sent to be committed without a lease")
        return commit_images, ImageCommitTask(
            source=job.source,
            key=job.key,
            record=job.survey.record,
            segments=job.keys,
            store_record=self.record,
            store=self._path,
            lease=job.lease,
        )


def _placed_run(
    patches: Path, path: Path, config: ImportConfig, executor: Executor | None, progress: ProgressCallback
) -> tuple[SlideRun, list[str]]:
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
    slides = _slides_of_names([Path(folder) for folder in config.slides], [item.slide for item in found])
    sources, missing = [], []
    for item in found:
        slide = slides.get(item.slide)
        if slide is None:
            missing.append(item)
        else:
            resized = dataclasses.replace(item, patch_px=patch_px, mpp=_mpp_at(item, patch_px))
            sources.append(PlacedSource(slide=slide, coordinates=resized, mpp=_target_mpp(slide, resized, config.mpp)))
    folders = ", ".join(map(str, config.slides))
    if not sources:
        raise PatchImportError(
            f"no slide in {folders} is called like one of the {len(found):,} files of coordinates, such as "
            f"{found[0].slide!r} of {found[0].path}; name the folder of the slides"
        )
    notes = [f"{item.path} is left out: no slide in {folders} is called {item.slide!r}" for item in missing]
    if any(item.has_vectors for item in found) and config.encoder_name is None:
        notes.append("the files hold vectors as well, which are not imported; --encoder-name takes them")
    record = StoreRecord(
        patch_px=patch_px,
        codec=config.codec,
        quality=config.quality if config.codec == "jpeg" else None,
        version=__version__,
        tiling=None,
    )
    return _PlacedRun(path, config, sources, missing, record, executor, progress), notes


def _mpp_at(coordinates: Coordinates, patch_px: int) -> float | None:
    """What the file says of the resolution, at another size of the same windows."""
    return None if coordinates.mpp is None else coordinates.mpp * coordinates.patch_px / patch_px


def _slides_of_names(folders: Sequence[Path], names: Sequence[str]) -> dict[str, SlideSource]:
    """The slide of each name, with or without its ending. Plain images count where they are called so.

    Raises:
        PatchImportError: if two slides are called so.
    """
    wanted = set(names)
    rows = [
        SlideRow(slide=file.relative_to(folder).as_posix(), line=0)
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and {file.name, file.stem} & wanted
    ]
    found, _ = find_slides(folders, rows)
    slides: dict[str, SlideSource] = {}
    for slide in found:
        last = slide.name.rpartition("/")[2]
        for name in {last, os.path.splitext(last)[0]} & wanted:  # noqa: PTH122 - a name, not a path
            other = slides.setdefault(name, slide)
            if other is not slide:
                raise PatchImportError(
                    f"{other.path} and {slide.path} are both called {name!r}; name one's folder in --slides"
                )
    return slides


def _target_mpp(slide: SlideSource, coordinates: Coordinates, mpp: float | None) -> float:
    """The resolution in the slide's key: ``--mpp``, what the coordinates say, or a usual one that the patches have."""
    if mpp is not None:
        return mpp
    if coordinates.mpp is not None:
        return coordinates.mpp
    try:
        with open_slide(slide.path, plain_images=slide.row is not None) as opened:
            own = float(slide_resolution(opened, coordinates, None)["mpp"])
    except SlideError:
        return ASSUMED_MPP  # the survey says what is wrong with it
    effective = own * coordinates.source_px / coordinates.patch_px
    usual = 2.0 ** round(math.log2(effective))
    return usual if abs(effective - usual) <= TOLERANCE * usual else float(f"{effective:.4g}")


class _PlacedRun(_ImageRun):
    """One run of `import` over coordinates on slides."""

    def __init__(
        self,
        path: Path,
        config: ImportConfig,
        sources: Sequence[PlacedSource],
        missing: Sequence[Coordinates],
        record: StoreRecord,
        executor: Executor | None,
        progress: ProgressCallback,
    ) -> None:
        super().__init__(path, config, sources, record, executor, progress)
        self._total += len(missing)
        for item in missing:
            self._outcomes[item.slide] = SlideOutcome(
                slide_id=safe_name(item.slide),
                name=item.slide,
                status="failed",
                reason="not_found",
                message=f"{item.path} is about it, and no slide in --slides is called so",
            )

    def _survey_task(self, job: Job, committed: SlideRecord | None) -> tuple[Callable[[Any], Any], Any]:
        return survey_placed, PlacedSurveyTask(job.source, self.config, self.record, committed)

    def _segment_tasks(self, job: Job, fingerprint: str) -> Iterator[tuple[str, int, Callable[[Any], Any], Any]]:
        result: PlacedSurvey = job.survey
        if result.read_plan is None:
            raise ValueError(f"the survey of {job.source.name} came back without a plan")
        cells = (result.plan // job.source.coordinates.source_px).astype(np.int32)
        for number, rows in enumerate(segments(cells)):
            key = segment_path(job.key, fingerprint, number)
            task = PlacedSegmentTask(
                slide=job.source.slide,
                stamp=result.stamp,
                read_plan=result.read_plan,
                rows=rows,
                xy=result.plan[rows],
                store_record=self.record,
                store=self._path,
                segment=key,
            )
            yield key, len(rows), read_placed, task

    def _commit_task(self, job: Job) -> tuple[Callable[[Any], Any], Any]:
        result: PlacedSurvey = job.survey
        if job.lease is None or result.overview is None or result.mask is None:
            raise ValueError(f"{job.key} was sent to be committed without a lease or a survey")
        content = SlideContent(
            xy=result.plan,
            tissue=result.tissue,
            score_names=SCORES,
            unsampled_xy=np.empty((0, 2), dtype=np.int32),
            segments=job.keys,
            overview=result.overview,
            overview_downsample=result.overview_downsample,
            mask=result.mask,
            mask_downsample=result.mask_downsample,
        )
        return commit, CommitTask(
            source=job.source.slide,
            stamp=result.stamp,
            key=job.key,
            record=result.record,
            content=content,
            store_record=self.record,
            store=self._path,
            lease=job.lease,
        )
