"""`materialise`: the pixels of chosen patches -> a store of their own. Interruptible anywhere, like `tile`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsicurate._version import __version__
from wsicurate.config import MaterialiseConfig
from wsicurate.engine.progress import ProgressCallback, SlideOutcome, no_progress
from wsicurate.engine.run_records import write_run
from wsicurate.errors import ConfigError, ManifestError, NothingToDoError, WsicurateError, with_name
from wsicurate.opening import find_moved, open_store
from wsicurate.steps.materialising.chosen_slide import ChosenSlide
from wsicurate.steps.materialising.commit import missing_vectors
from wsicurate.steps.materialising.manifest import CarriedStatus, carry_curation
from wsicurate.steps.materialising.run import MaterialiseRun
from wsicurate.steps.tile import TileReport
from wsicurate.store.chosen import choose
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import Curation
from wsicurate.store.records import MATERIALISED, StoreRecord
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store
from wsicurate.validation import require_callables, require_path, require_settings

#: JPEG quality of what is cut from slides, where none is given; that of `tile`.
_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class MaterialiseReport(TileReport):
    """What a run of `materialise` did.

    Attributes:
        parent: the store that the patches were taken from.
        curation: name of the curation that chose them, or None.
        curation_status: whether its manifest was taken along: ``carried``, ``unchanged`` (it was there), ``own`` (the
            new store has a curation of this name that was made there, and stays); None if there is none.
        without_patches: number of slides on which nothing was chosen; they are not in the new store.
        notes: what else to know, in sentences.
    """

    parent: Path
    curation: str | None = None
    curation_status: CarriedStatus | None = None
    without_patches: int = 0
    notes: Sequence[str] = ()

    def _facts(self) -> dict[str, object]:
        own = {"taken from": self.parent, "curation": self.curation, "slides without patches": self.without_patches}
        return {**super()._facts(), **own, "notes": self.notes}

    @property
    def is_unchanged(self) -> bool:
        """Whether everything was there already."""
        return self.count("unchanged") == len(self.outcomes) and self.curation_status in (None, "unchanged", "own")

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0: all done. 1: nothing could be done. 3: done, but some patches could not be had."""
        if not self.count("failed", "skipped") and not any(outcome.dropped for outcome in self.outcomes):
            return 0
        return 3 if self.patches else 1


def materialise(
    store: str | Path,
    output: str | Path,
    config: MaterialiseConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> MaterialiseReport:
    """Write the pixels of the patches that a curation selected, and nothing else, into a store of their own.

    Patches of a store that keeps coordinates alone are cut from the slides, to the bytes that `tile` would have stored;
    stored patches keep their bytes, unless another codec or quality is asked for. Coordinates, scores, labels, names,
    vectors and the curation itself go with them. The new store is one like any other; `SlidePatches.parent_rows` says
    which rows its patches have in the old one.

    What is finished is never done again: run the same call after an interruption, and it goes on. A slide that cannot
    be read is reported and does not stop the others.

    Args:
        store: the folder of the store that the patches are taken from. Nothing is written to it.
        output: folder of the new store; made if it is not there.
        config: settings, with a ``curation`` or a condition ``where``.
        executor: where the work runs; a pool of ``config.workers`` processes by default.
        progress: called from this thread as work goes on.

    Returns:
        What became of each slide of which something was chosen. The same is written to ``runs/<time>.json``.

    Raises:
        ConfigError: if settings are wrong, or one of the stores lies in the other; nothing was done.
        StoreNotFoundError, CorruptStoreError: if the old store is not there, or cannot be read.
        ManifestError: if there is no such curation, or the store holds other patches now than it was made from.
        NothingToDoError: if no patch is chosen.
        StoreFormatError, StoreSettingsError: if the new store is something else or was made with other settings.
        StoreWriteError: if the new store cannot be written; what was committed stays.
        LeaseLostError: if another run keeps the new store's curation of this name.
        KeyboardInterrupt: passed on, after leases were given back and workers ended.
    """
    began = time.monotonic()
    config = require_settings(config, MaterialiseConfig)
    require_callables(executor=executor, progress=progress)
    parent_path, path = require_path("STORE", store).absolute(), require_path("output", output).absolute()
    _require_apart(parent_path, path)
    parent = open_store(parent_path, slides=list(config.slides), skip_damaged=True)
    damaged = parent.damaged
    parent = parent.without(damaged)
    curation = None if config.curation is None else parent.curation(config.curation)
    choice = {
        "curation": config.curation,
        "where": config.where,
        "curation_fingerprint": None if curation is None else curation.run["fingerprint"],
    }
    sources = _sources(parent, config, choice)
    run = MaterialiseRun(path, config, sources, _record(parent.record, config, choice), executor, progress)
    run.add_outcomes(_outcomes_of(damaged, curation))
    outcomes: Sequence[SlideOutcome] = ()
    carried: CarriedStatus | None = None
    notes: list[str] = []
    try:
        outcomes = run.work()
        if not config.dry_run:
            written = _written(path, sources)
            notes = _notes_on_vectors(run.bytes, sources, written)
            if curation is not None and written:
                carried = carry_curation(parent, curation, config, written, run.bytes)
    except BaseException as error:
        if run.has_begun and not config.dry_run:
            with contextlib.suppress(WsicurateError):
                _write_record(run, parent_path, time.monotonic() - began, ended=with_name(error))
        raise
    report = MaterialiseReport(
        store=path,
        parent=parent_path,
        outcomes=outcomes,
        curation=config.curation,
        curation_status=carried,
        without_patches=len(parent.slides) - len(sources),
        notes=notes,
        seconds=time.monotonic() - began,
        dry_run=config.dry_run,
    )
    if not config.dry_run:
        _write_record(run, parent_path, report.seconds, ended="complete")
    return report


def _require_apart(parent: Path, path: Path) -> None:
    """Raise ConfigError if one store is the other, or lies in it, whatever links lead there."""
    one, other = parent.resolve(), path.resolve()
    if one == other or one in other.parents or other in one.parents:
        what = "is" if one == other else "lies in" if one in other.parents else "holds"
        raise ConfigError(f"-o {path} {what} the store {parent} that the patches are taken from; give another folder")


def _record(before: StoreRecord, config: MaterialiseConfig, choice: Mapping[str, Any]) -> StoreRecord:
    """The new store's attributes."""
    codec = config.codec or ("jpeg" if before.codec == "none" else before.codec)
    quality = None
    if codec == "jpeg":
        quality = config.quality or before.quality or _QUALITY
    return dataclasses.replace(before, codec=codec, quality=quality, version=__version__, materialised=dict(choice))


def _sources(parent: Store, config: MaterialiseConfig, choice: Mapping[str, Any]) -> list[ChosenSlide]:
    """The slides that something was chosen of.

    Raises:
        NothingToDoError: if there are none.
        ManifestError: if a row is chosen that its slide does not have.
    """
    chosen = choose(parent, config.curation, where=config.where)
    if not len(chosen):
        raise NothingToDoError(
            f"no patch of {parent.path} is chosen{f' by {config.where}' if config.where else ''}; change the condition"
        )
    moved = find_moved([Path(folder) for folder in config.slides]) if parent.record.codec == "none" else {}
    sources = []
    for key, _, rows in chosen.by_slide():
        slide = parent.slides[key]
        if int(rows[-1]) >= len(slide) or (rows[1:] <= rows[:-1]).any():
            raise ManifestError(
                f"{key} has {len(slide):,} patches, and the manifest of {config.curation} chooses row {rows[-1]} or "
                "one of them twice; curate again with --overwrite"
            )
        files = moved.get(str(slide.record.source["quick_hash"]), ())
        sources.append(ChosenSlide(parent.path, key, slide.record, parent.record, rows, choice, files))
    return sources


def _outcomes_of(damaged: Mapping[str, str], curation: Curation | None) -> Iterator[SlideOutcome]:
    """Slides of the old store that cannot be read, as far as the choice was made among their patches."""
    for key, what in damaged.items():
        if curation is None or key in curation.run["inputs"]:
            yield SlideOutcome(slide_id=key, name=key, status="failed", reason="corrupt", message=what)


def _written(path: Path, sources: Sequence[ChosenSlide]) -> dict[str, SlidePatches]:
    """The slides of the new store that hold what was chosen of them now, by key."""
    slides = Store(path, skip_damaged=True).slides
    wanted = {source.key: source.setting() for source in sources}
    return {
        key: slide for key, slide in slides.items() if slide.record.settings.get(MATERIALISED) == wanted.get(key, {})
    }


def _notes_on_vectors(store: LocalBytes, sources: Sequence[ChosenSlide], written: Mapping[str, Any]) -> list[str]:
    """Which vectors could not be taken along, in sentences."""
    missing: dict[str, int] = {}
    for source in sources:
        for name in missing_vectors(source, store) if source.key in written else ():
            missing[name] = missing.get(name, 0) + 1
    return [
        f"the vectors of {number:,} slides by {name} cannot be read and are left out; embed the new store with it"
        for name, number in sorted(missing.items())
    ]


def _write_record(run: MaterialiseRun, parent: Path, seconds: float, *, ended: str) -> None:
    write_run(
        run.bytes,
        "materialise",
        settings=dataclasses.asdict(run.config),
        outcomes=run.outcomes(),
        seconds=seconds,
        ended=ended,
        extra={"parent": str(parent)},
    )
