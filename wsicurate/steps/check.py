"""`check`: every array opens, every checksum holds, every patch decodes, nothing unreferenced is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from wsicurate.errors import CorruptStoreError
from wsicurate.steps.crew import Crew, usable_cores
from wsicurate.steps.opening import SlidePixels
from wsicurate.steps.progress import Progress, ProgressCallback, no_progress
from wsicurate.store.bytestore import LocalBytes
from wsicurate.store.layout import (
    CURATIONS,
    ROOT,
    RUNS,
    SLIDES,
    WORK,
    curation_work_path,
    mark_path,
    slide_path,
    work_path,
)
from wsicurate.store.leases import Leases
from wsicurate.store.manifest import verify_curation
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.store import read_slide_record, read_store_record
from wsicurate.store.verify import Problem, Verified, verify_slide
from wsicurate.validation import require_callables, require_path, require_paths, require_workers

#: What may lie in a store's root.
_ROOT_NAMES = {ROOT, SLIDES, RUNS, WORK, CURATIONS}


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found.

    Attributes:
        store: the store's path.
        problems: everything that is not as it should be; empty when all is well.
        in_progress: keys of slides that a live run works on; they are not checked.
        slides, patches: how many were checked.
        bytes: of the slides checked.
    """

    store: Path
    problems: Sequence[Problem]
    in_progress: Sequence[str]
    slides: int
    patches: int
    bytes: int

    @property
    def exit_status(self) -> int:
        """0 if all is well, else 1."""
        return 1 if self.problems else 0


@dataclass(frozen=True)
class _SlideTask:
    store: Path
    key: str
    record: StoreRecord
    slides: Sequence[Path]


def check(
    store: str | Path,
    *,
    slides: Sequence[str | Path] = (),
    workers: int | None = None,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> CheckReport:
    """Read a whole store and compare it with what it says of itself.

    Args:
        store: the store's folder.
        slides: folders to look for moved slides in; needed by ``codec=none`` alone.
        workers: processes; None means one per usable core.
        executor: where the work runs instead.
        progress: called after each slide.

    Returns:
        All problems, each with its place and its mend.

    Raises:
        ConfigError: if an argument is wrong.
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is no store, or of another format.
    """
    path, folders = require_path("store", store).absolute(), require_paths("--slides", slides)
    workers = require_workers(workers)
    require_callables(executor=executor, progress=progress)
    local = LocalBytes(path)
    record = read_store_record(local, str(path))
    problems = list(_loose_ends(local))
    finished, in_progress = [], []
    leases = Leases(local)
    for key in local.children(SLIDES):
        if key == ROOT:
            continue
        if local_has(local, mark_path(key)):
            finished.append(key)
        elif leases.holder(work_path(key)):
            in_progress.append(key)
        else:
            problems.append(
                Problem(slide_path(key), "it is unfinished and nobody works on it; run the same tile command again")
            )
    patches = size = done = 0
    crew = Crew(workers or usable_cores(), executor)
    waiting = list(reversed(finished))
    complete = False
    try:
        while waiting or crew.load:
            while waiting and crew.has_room:
                key = waiting.pop()
                crew.submit(_check_slide, _SlideTask(path, key, record, folders), key)
            for report in crew.finished(1.0):
                done += 1
                if report.error is not None:
                    problems.append(Problem(slide_path(report.tag), f"checking it failed: {report.error!r}"))
                else:
                    verified: Verified = report.result
                    problems += verified.problems
                    patches += verified.patches
                    size += verified.bytes
                progress(Progress(slides_done=done, slides_total=len(finished), patches_done=patches))
        complete = True
    finally:
        crew.close(kill=not complete)
    return CheckReport(
        store=path,
        problems=sorted(problems, key=lambda problem: problem.where),
        in_progress=in_progress,
        slides=len(finished),
        patches=patches,
        bytes=size,
    )


def _check_slide(task: _SlideTask) -> Verified:
    pixels = SlidePixels(task.slides)
    try:
        return verify_slide(LocalBytes(task.store), task.key, task.record, pixels)
    finally:
        pixels.close()


def local_has(store: LocalBytes, key: str) -> bool:
    """Whether there is a value at ``key``."""
    try:
        store.size(key)
    except KeyError:
        return False
    return True


def _readable(store: LocalBytes) -> Iterator[tuple[str, SlideRecord]]:
    """The finished slides whose attributes can be read; the others are reported where they are checked."""
    for key in store.children(SLIDES):
        with contextlib.suppress(CorruptStoreError):
            record = None if key == ROOT else read_slide_record(store, key)
            if record is not None:
                yield key, record


def _loose_ends(store: LocalBytes) -> Iterator[Problem]:
    """What lies outside of the slides and should not."""
    for name in store.children():
        if name not in _ROOT_NAMES:
            yield Problem(name, "it is not part of a store; remove it")
    for group in (SLIDES, RUNS):
        if not local_has(store, f"{group}/zarr.json"):
            yield Problem(f"{group}/zarr.json", "it is missing; run the same tile command again")
    for name in store.children(RUNS):
        try:
            json.loads(store.get(f"{RUNS}/{name}"))
        except (KeyError, ValueError) as error:
            yield Problem(f"{RUNS}/{name}", f"it is not a run's record ({error!r}); remove it")
    leases = Leases(store)
    for key in store.children(WORK):
        if not leases.holder(work_path(key)):
            yield Problem(work_path(key), "an interrupted run left it; run the same command again")
    hashes = {key: record.content_hash for key, record in _readable(store)} if store.children(CURATIONS) else {}
    for name in store.children(CURATIONS):
        if not leases.holder(curation_work_path(name)):
            for where, what in verify_curation(store, name, str(store.root), hashes):
                yield Problem(where, what)
    for path, owner in store.partials():
        if owner is None or owner.is_dead():
            where = path.relative_to(store.root).as_posix()
            yield Problem(where, "an interrupted run left it; run the same command again, or remove it")
