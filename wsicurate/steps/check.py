"""`check`: every array opens, every checksum holds, every patch decodes, nothing unreferenced is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsicurate.engine.progress import Progress, ProgressCallback, no_progress
from wsicurate.engine.run_records import read_run
from wsicurate.engine.workers import Crew
from wsicurate.errors import CorruptStoreError
from wsicurate.html_tables import table_html
from wsicurate.opening import MovedSlides, SlidePixels, find_moved
from wsicurate.store.committed import is_committed, read_slides
from wsicurate.store.layout import (
    CURATIONS,
    ROOT,
    RUNS,
    SLIDES,
    WORK,
    curation_work_path,
    embedding_path,
    slide_path,
    work_path,
)
from wsicurate.store.leases import Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import verify_curation
from wsicurate.store.records import StoreRecord
from wsicurate.store.root import is_group, read_store_record, root_of_slides
from wsicurate.store.verify import Problem, Verified, verify_slide
from wsicurate.validation import require_callables, require_path, require_paths, require_workers

#: What may lie in a store's root.
_ROOT_NAMES = {ROOT, SLIDES, RUNS, WORK, CURATIONS}

_STRAY = "it is not part of a store; remove it"
_UNFINISHED = "it is unfinished and no run works on it; run the same command again, or remove it"
_LINK = "it is a link, and a store holds none; put what it leads to in its place, or remove it"
_PARTIAL = (
    "a run that was killed left it half-written; the next run removes it; if that ran on another machine, remove it"
)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What `check` found.

    Attributes:
        store: the store's path.
        problems: everything that is not as it should be; empty if nothing is wrong.
        in_progress: keys of slides that a live run works on; they are not checked.
        slides, patches: how many were checked.
        bytes: of the slides checked.
        leftovers: work folders that killed runs left and no reader looks at; the next run takes them away.
        notes: what could not be checked.
    """

    store: Path
    problems: Sequence[Problem]
    in_progress: Sequence[str]
    slides: int
    patches: int
    bytes: int
    leftovers: Sequence[str] = ()
    notes: Sequence[str] = ()

    def _repr_html_(self) -> str:
        facts = {
            "store": self.store,
            "problems": [f"{problem.where}: {problem.what}" for problem in self.problems] or "none",
            "slides": self.slides,
            "patches": self.patches,
            "size": f"{self.bytes / 1e6:,.1f} MB",
            "in progress": self.in_progress,
            "leftovers": self.leftovers,
            "not checked": self.notes,
        }
        return table_html(type(self).__name__, facts)

    @property
    def exit_status(self) -> int:
        """0 if nothing is wrong, else 1."""
        return 1 if self.problems else 0


@dataclass(frozen=True)
class _SlideTask:
    store: Path
    key: str
    record: StoreRecord
    moved: MovedSlides


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
        All problems, each with its place and what to do about it.

    Raises:
        ConfigError: if an argument is wrong.
        StoreNotFoundError: if there is nothing.
        StoreFormatError: if it is no store, or of another format.
        CorruptStoreError: if the store's own attributes are damaged, and no slide says what they were.
    """
    path, folders = require_path("store", store).absolute(), require_paths("--slides", slides)
    workers = require_workers(workers)
    require_callables(executor=executor, progress=progress)
    local = LocalBytes(path)
    problems: list[Problem] = []
    record = _root(local, str(path), problems)
    partials = {found for found, _ in local.partials()}
    links = {link: Problem(link, _LINK) for link in local.links()}
    leases = Leases(local)
    finished, in_progress = [], []
    leftovers: list[str] = []
    for key in local.children(SLIDES):
        if key == ROOT or slide_path(key) in links:
            continue
        if is_committed(local, key):
            finished.append(key)
        elif leases.holder(work_path(key)):
            in_progress.append(key)
        else:
            problems.append(Problem(slide_path(key), _UNFINISHED if _looks_like_a_slide(local, key) else _STRAY))
    problems += _loose_ends(local, leases, leftovers)
    moved = find_moved(folders)
    encoders: dict[str, Mapping[str, Any]] = {}
    patches = size = done = 0
    crew = Crew(workers, executor)
    waiting = list(reversed(finished))
    complete = False
    try:
        while waiting or crew.load:
            while waiting and crew.has_room:
                key = waiting.pop()
                crew.submit(_check_slide, _SlideTask(path, key, record, moved), key)
            for report in crew.finished(1.0):
                done += 1
                if report.error is not None:
                    problems.append(Problem(slide_path(report.tag), f"checking it failed: {report.error!r}"))
                else:
                    verified: Verified = report.result
                    if verified.problems and leases.holder(work_path(report.tag)):
                        in_progress.append(report.tag)  # it is being redone, or embedded
                    else:
                        problems += verified.problems
                    encoders[report.tag] = verified.encoders
                    patches += verified.patches
                    size += verified.bytes
                progress(Progress(slides_done=done, slides_total=len(finished), patches_done=patches))
        complete = True
    finally:
        crew.close(kill=not complete)
    problems += _embedded_otherwise(encoders)
    # A run that lives, here or elsewhere, has given its half-written values their names by now.
    problems += [
        Problem(found.relative_to(path).as_posix(), _PARTIAL) for found, _ in local.partials() if found in partials
    ]
    problems = [problem for problem in problems if problem.where not in links] + list(links.values())
    notes = (
        []
        if record.is_sealed
        else [f"wsicurate {record.version} wrote no checksums: edits of its records are not found"]
    )
    return CheckReport(
        store=path,
        problems=sorted(problems, key=_order),
        in_progress=sorted(in_progress),
        slides=len(finished),
        patches=patches,
        bytes=size,
        leftovers=leftovers,
        notes=notes,
    )


def _check_slide(task: _SlideTask) -> Verified:
    pixels = SlidePixels(moved=task.moved)
    try:
        return verify_slide(LocalBytes(task.store), task.key, task.record, pixels)
    finally:
        pixels.close()


def _root(store: LocalBytes, name: str, problems: list[Problem]) -> StoreRecord:
    """The store's attributes; where they are damaged, as its slides tell them, with a problem."""
    try:
        return read_store_record(store, name)
    except CorruptStoreError as error:
        record = root_of_slides(store)
        if record is None:
            raise
        problems.append(Problem(ROOT, str(error)))
        return record


def _embedded_otherwise(encoders: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Embeddings that are sound, and of another kind than most slides' under the same name."""
    for name in sorted({name for found in encoders.values() for name in found}):
        kinds = Counter(found[name] for found in encoders.values() if name in found)
        usual = max(sorted(kinds), key=lambda kind: kinds[kind])
        for key in sorted(encoders):
            if encoders[key].get(name, usual) != usual:
                yield Problem(
                    embedding_path(key, name),
                    f"it was embedded otherwise than {kinds[usual]:,} other slides; embed it again with --overwrite",
                )


def _order(problem: Problem) -> tuple[int, str]:
    """What others depend on comes first: advice is followed from top to bottom."""
    rooms = ("", SLIDES, WORK, CURATIONS, RUNS)
    room = problem.where.partition("/")[0]
    return rooms.index(room) if room in rooms else 0, problem.where


def _looks_like_a_slide(store: LocalBytes, key: str) -> bool:
    """Whether a folder without a mark is that of a slide that was being written."""
    return "@" in key and not {"images", "xy", "embeddings"}.isdisjoint(store.children(slide_path(key)))


def _loose_ends(store: LocalBytes, leases: Leases, leftovers: list[str]) -> Iterator[Problem]:
    """What lies outside of the slides and should not."""
    for name in store.children():
        if name not in _ROOT_NAMES:
            yield Problem(name, _STRAY)
    for group in (SLIDES, RUNS):
        if not is_group(store, group):
            yield Problem(
                f"{group}/{ROOT}", "it is missing or damaged; the next run that writes to the store restores it"
            )
    for name in store.children(RUNS):
        try:
            if name != ROOT:
                read_run(store, name)
        except (KeyError, CorruptStoreError, OSError) as error:
            yield Problem(f"{RUNS}/{name}", f"{error}; remove it")
    for key in store.children(WORK):
        folder = work_path(key)
        if leases.holder(folder):
            continue
        values = store.children(folder)
        if not values:
            yield Problem(folder, _STRAY)
        elif is_committed(store, key) or all(value.startswith("lease-") for value in values):
            leftovers.append(folder)
        else:
            yield Problem(folder, "an interrupted run left it; run the same command again, or remove it")
    names = store.children(CURATIONS)
    records, damaged = read_slides(store) if names else ({}, {})
    hashes: dict[str, str | None] = {key: record.content_hash for key, record in records.items()}
    hashes |= dict.fromkeys(damaged)
    for name in names:
        if not leases.holder(curation_work_path(name)):
            for where, what in verify_curation(store, name, str(store.root), hashes):
                yield Problem(where, what)
