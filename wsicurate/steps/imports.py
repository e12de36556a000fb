"""`import`: patches that others cut -> a store. Interruptible anywhere, like `tile`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsicurate.config import ImportConfig
from wsicurate.engine.progress import ProgressCallback, SlideOutcome, Status, no_progress
from wsicurate.engine.run_records import write_run
from wsicurate.errors import ConfigError, PatchImportError, WsicurateError, in_words, with_name
from wsicurate.files import kind_of
from wsicurate.formats.packed import holds_patches
from wsicurate.formats.patch_folders import PATCH_SUFFIXES
from wsicurate.slides.names import safe_name
from wsicurate.steps.importing.runs import ImageRun, PlacedRun, image_run, packed_run, placed_run
from wsicurate.steps.importing.vectors import import_vectors
from wsicurate.steps.tile import TileReport
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.store import Store
from wsicurate.validation import require_callables, require_path, require_settings


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

    def _facts(self) -> dict[str, object]:
        dropped = [f"{patch.name}: {patch.reason}" for patch in self.dropped]
        return {**super()._facts(), "dropped": dropped, "notes": self.notes}

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
    - HDF5 files that hold the patches themselves, as CLAM's create_patches.py and HEST write them: one slide each.
    - Files of coordinates by TRIDENT, CLAM, HEST, STAMP or hs2p, with ``config.slides``: the patches are read from the
      slides, or, with codec ``none``, kept as coordinates.
    - Files of vectors by TRIDENT, CLAM, STAMP, HEST or as `.npy`, with ``config.encoder_name``: they become embeddings
      of slides that the store holds, or, with ``config.slides`` as well, of those that are imported by their
      coordinates.

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
    config = require_settings(config, ImportConfig)
    require_callables(executor=executor, progress=progress)
    folder = require_path("PATCHES", patches)
    try:
        kind_of_file = kind_of(folder.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = in_words(error)
        raise ConfigError(
            f"the input {folder} does not exist or cannot be reached ({reason}); give a folder of patch images"
        ) from error
    if kind_of_file not in ("", "a folder"):
        raise ConfigError(f"the input {folder} is {kind_of_file}; give a folder of patch images")
    path = require_path("store", store).absolute()
    kind = _kind_of(folder, config)
    if kind == "vectors":
        return _import_vectors(folder, path, config, progress, began)
    make = {"images": image_run, "packed": packed_run}.get(kind, placed_run)
    run, notes = make(folder, path, config, executor, progress)
    outcomes: Sequence[SlideOutcome] = ()
    try:
        outcomes = run.work()
        if kind == "features" and not config.dry_run:
            run.add_outcomes(_vectors_of(folder, path, config, outcomes))
            outcomes = run.outcomes()
    except BaseException as error:
        if run.has_begun and not config.dry_run:
            with contextlib.suppress(WsicurateError):
                _write_record(run, notes, (), time.monotonic() - began, ended=with_name(error))
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


Kind = Literal["images", "packed", "coordinates", "features", "vectors"]

_DATA_SUFFIXES = frozenset([".h5", ".hdf5", ".npy", ".npz"])


def _kind_of(patches: Path, config: ImportConfig) -> Kind:
    """What the input is: images, as files or in HDF5; coordinates with or without vectors; or vectors alone."""
    if not config.slides and not _holds_data(patches):
        if patches.is_file():
            raise ConfigError(f"the input {patches} is a file; give the folder of patch images that it lies in")
        return "images"
    if config.slides:
        return "coordinates" if config.encoder_name is None else "features"
    if config.encoder_name is not None:
        return "vectors"
    if holds_patches(patches):
        return "packed"
    raise ConfigError(
        f"{patches} holds coordinates or vectors: coordinates need --slides, the folder of their slides; vectors of "
        "patches that are in the store need --encoder-name"
    )


def _holds_data(patches: Path) -> bool:
    """Whether the input is, or holds, files of coordinates or vectors and no image."""
    if patches.is_file():
        return patches.suffix.lower() in _DATA_SUFFIXES
    is_data = False
    for _, _, files in os.walk(patches):
        suffixes = {os.path.splitext(name)[1].lower() for name in files}  # noqa: PTH122 - speed
        if suffixes & PATCH_SUFFIXES:
            return False
        is_data = is_data or bool(suffixes & _DATA_SUFFIXES)
    return is_data


def _import_vectors(
    patches: Path, path: Path, config: ImportConfig, progress: ProgressCallback, began: float
) -> ImportReport:
    """Vectors alone.

    Raises:
        PatchImportError: if none of them fits; nothing was done.
    """
    outcomes = import_vectors(patches, path, config, progress)
    if outcomes and all(outcome.status == "failed" for outcome in outcomes):
        raise PatchImportError(outcomes[0].message)
    seconds = time.monotonic() - began
    if not config.dry_run:
        settings = dataclasses.asdict(config)
        write_run(LocalBytes(path), "import", settings=settings, outcomes=outcomes, seconds=seconds, ended="complete")
    return ImportReport(store=path, outcomes=outcomes, seconds=seconds, dry_run=config.dry_run)


def _vectors_of(
    patches: Path, path: Path, config: ImportConfig, imported: Sequence[SlideOutcome]
) -> Iterator[SlideOutcome]:
    """What became of the vectors that came with coordinates; those of slides that are not in the store are passed over.

    The patches are counted with their slides already. Errors are outcomes: the patches were imported.
    """
    there = {outcome.slide_id for outcome in imported if outcome.status in ("imported", "unchanged", "updated")}
    if not there:
        return
    try:
        found = import_vectors(patches, path, config, no_progress, only=there)
    except WsicurateError as error:
        name = f"{patches.name} (vectors)"
        yield SlideOutcome(slide_id=safe_name(name), name=name, status="failed", reason="vectors", message=str(error))
        return
    for outcome in found:
        status: Status = "embedded" if outcome.status == "imported" else outcome.status
        yield dataclasses.replace(
            outcome,
            slide_id=f"{outcome.slide_id} vectors",
            name=f"{outcome.name} (vectors)",
            status=status,
            patches=0,
            megabytes=outcome.megabytes if status == "embedded" else 0.0,
        )


def _write_record(
    run: ImageRun | PlacedRun, notes: Sequence[str], dropped: Sequence[DroppedPatch], seconds: float, *, ended: str
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
    for slide in Store(path, skip_damaged=True).slides.values():
        outcome = wanted.get(slide.slide_id)
        if outcome is None:
            continue
        names = slide.dropped_names or [f"{slide.record.name} x={x} y={y}" for x, y in slide.dropped_xy.tolist()]
        for name, reason in zip(names, slide.dropped_reason, strict=True):
            yield DroppedPatch(name=name, reason=reason)
