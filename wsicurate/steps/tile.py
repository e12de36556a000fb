"""`tile`: folders of slides -> patches in a store. Interruptible anywhere; several runs may share a store."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.config import TileConfig
from wsicurate.engine.progress import Progress, ProgressCallback, SlideOutcome, Status, no_progress
from wsicurate.engine.run_records import write_run
from wsicurate.engine.tidy import tidy
from wsicurate.engine.workers import Crew, Done, timeout_error
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    LeaseLostError,
    LinkedPathError,
    PatchImportError,
    SlideChangedError,
    SlideError,
    SlideSkipped,
    SlideTimeoutError,
    StoreNotFoundError,
    StoreSettingsError,
    StoreWriteError,
    WsicurateError,
    with_name,
)
from wsicurate.slides.discovery import PassedOver, search_slides
from wsicurate.slides.names import case_twins, safe_name
from wsicurate.slides.table import SlideRow, read_slide_table
from wsicurate.steps.tiling.tasks import (
    CommitTask,
    SegmentCost,
    SegmentTask,
    SoundTask,
    Survey,
    SurveyTask,
    commit,
    cut_segment,
    is_as_made,
    store_settings,
    survey,
)
from wsicurate.store.commit import SlideContent, remove_slide, remove_work
from wsicurate.store.committed import is_committed, read_slide_record, read_slides
from wsicurate.store.layout import ROOT, SLIDES, mark_path, segment_path, slide_key, slide_path, work_path
from wsicurate.store.leases import Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord, differences, fingerprint_of
from wsicurate.store.root import create_store, read_store_record, restore_root
from wsicurate.store.segments import is_finished
from wsicurate.tiling.plan import segments, tiles_needed
from wsicurate.tissue.scores import SCORES
from wsicurate.validation import require_callables, require_path, require_paths, require_settings

#: How often slides that another run works on are looked at again, seconds.
_POLL_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TileReport:
    """What a run of `tile` did.

    Attributes:
        store: the store's path.
        outcomes: one per slide, sorted by slide_id.
        unmatched: rows of the slide table that matched no slide.
        seconds: wall-clock time.
        dry_run: whether nothing was written.
    """

    store: Path
    outcomes: Sequence[SlideOutcome]
    unmatched: Sequence[SlideRow] = ()
    seconds: float = 0.0
    dry_run: bool = False

    def count(self, *statuses: Status) -> int:
        """Number of slides with one of the statuses."""
        return sum(outcome.status in statuses for outcome in self.outcomes)

    @property
    def patches(self) -> int:
        """Patches of all slides, those that were there before included."""
        return sum(outcome.patches for outcome in self.outcomes)

    @property
    def exit_status(self) -> Literal[0, 1, 3]:
        """0: all done. 1: nothing could be done. 3: done, but some slides failed or were skipped."""
        is_done = bool(self.count("tiled", "imported", "embedded", "unchanged", "updated", "planned"))
        if not self.count("failed", "skipped"):
            return 0 if is_done or not self.outcomes else 1
        return 3 if is_done else 1


def tile(
    slides: Iterable[str | Path] | str | Path,
    store: str | Path,
    config: TileConfig | None = None,
    *,
    executor: Executor | None = None,
    progress: ProgressCallback = no_progress,
) -> TileReport:
    """Cut slides into tissue patches and store them.

    Every slide is surveyed (resolution, tissue mask, plan), cut in segments that any worker can take, and committed
    by writing its mark last.
    What is finished is never done again: run the same call after an interruption, and it goes on. Slides that cannot be
    tiled are reported, and stop nobody.

    Args:
        slides: slide files and folders, searched to any depth.
        store: the store's folder; made if it is not there.
        config: settings; `TileConfig` has the defaults.
        executor: where the work runs; a pool of ``config.workers`` processes by default. Tasks are plain functions of
            one picklable argument; workers must see slides and store under the same paths.
        progress: called from this thread as work goes on.

    Returns:
        What became of each slide. The same is written to ``runs/<time>.json`` in the store.

    Raises:
        ConfigError, SlideTableError: if settings, inputs or the slide table are wrong; nothing was done.
        NothingToDoError: if the inputs hold no slide.
        StoreFormatError, StoreSettingsError: if the store is something else or was made with other settings.
        StoreWriteError: if the store cannot be written; what was committed stays.
        KeyboardInterrupt: passed on, after leases were given back and workers ended.
    """
    began = time.monotonic()
    config = require_settings(config, TileConfig)
    require_callables(executor=executor, progress=progress)
    inputs = require_paths("SLIDES", slides)
    settings = store_settings(config)
    table = None if config.slide_table is None else Path(config.slide_table)
    rows = [] if table is None else read_slide_table(table)
    sources, unmatched, passed_over = search_slides(inputs, rows, table=table)
    path = require_path("store", store).absolute()
    record = StoreRecord(
        patch_px=config.patch_px,
        codec=config.codec,
        quality=config.quality if config.codec == "jpeg" else None,
        version=__version__,
        tiling=settings,
    )
    run = SlideRun(path, config, sources, record, executor, progress)
    run.add_outcomes(_outcome_of(item) for item in passed_over)
    outcomes: Sequence[SlideOutcome] = ()
    try:
        outcomes = run.work()
    except BaseException as error:
        if run.has_begun and not config.dry_run:
            with contextlib.suppress(WsicurateError):
                _write_record(run, unmatched, time.monotonic() - began, ended=with_name(error))
        raise
    report = TileReport(
        store=path,
        outcomes=outcomes,
        unmatched=unmatched,
        seconds=time.monotonic() - began,
        dry_run=config.dry_run,
    )
    if not config.dry_run:
        _write_record(run, unmatched, report.seconds, ended="complete")
    return report


def _outcome_of(item: PassedOver) -> SlideOutcome:
    """What looks like a slide and is not tiled, as the closing table shows it."""
    status: Status = "skipped" if item.is_slide else "excluded"
    return SlideOutcome(
        slide_id=safe_name(item.name), name=item.name, status=status, reason=item.reason, message=item.message
    )


def _write_record(run: SlideRun, unmatched: Sequence[SlideRow], seconds: float, *, ended: str) -> None:
    write_run(
        run.bytes,
        "tile",
        settings={**dataclasses.asdict(run.config), **run.record.tiling} if run.record.tiling else {},
        outcomes=run.outcomes(),
        seconds=seconds,
        ended=ended,
        extra={"unmatched_rows": [row.slide for row in unmatched]},
    )


@dataclass(eq=False)
class Job:
    """A slide on its way; ``source`` says which, for `import` a set of patches.

    ``committed`` is its record while a survey compares the slide with it; ``seconds`` is what workers spent on it.
    """

    source: Any
    key: str
    lease: Lease | None = None
    committed: SlideRecord | None = None
    survey: Any = None
    keys: list[str] = field(default_factory=list)
    missing: int = 0
    is_noted: bool = False
    is_second_try: bool = False
    seconds: float = 0.0
    costs: list[SegmentCost] = field(default_factory=list)
    tiles_needed: int | None = None
    began: float = field(default_factory=time.monotonic)


class SlideRun:
    """One run that fills a store slide by slide: what to hand to the crew next, what to make of what comes back.

    As it stands it is a run of `tile`; `import` overrides the methods that say what is wanted and make the tasks.
    """

    #: What a slide is that was done now, and the verb in sentences.
    done: Status = "tiled"
    doing = "being tiled"

    def __init__(
        self,
        path: Path,
        config: Any,
        sources: Sequence[Any],
        record: StoreRecord,
        executor: Executor | None,
        progress: ProgressCallback,
    ) -> None:
        self.config = config
        self.bytes = LocalBytes(path)
        self.record = record
        self.has_begun = False
        self._path = path
        self._total = len(sources)
        self._progress = progress
        self._leases = Leases(self.bytes)
        self._crew = Crew(config.workers, executor)
        self._waiting = deque(Job(source, self._key_of(source)) for source in sources)
        self._elsewhere: list[Job] = []
        self._is_waiting = False
        self._segments: deque[tuple[Job, int, Callable[[Any], Any], Any]] = deque()
        self._active: dict[str, Job] = {}
        self._outcomes: dict[str, SlideOutcome] = {}
        self._patches_done = 0
        self._patches_known = 0

    def outcomes(self) -> list[SlideOutcome]:
        """What became of the slides so far, sorted by slide_id."""
        return [self._outcomes[key] for key in sorted(self._outcomes)]

    def add_outcomes(self, outcomes: Iterable[SlideOutcome]) -> None:
        """Report what will not be worked on: what was passed over, or is not there."""
        for outcome in outcomes:
            self._outcomes[f"{outcome.slide_id} {outcome.reason}"] = outcome
        self._total = len(self._waiting) + len(self._outcomes)

    def work(self) -> list[SlideOutcome]:
        """Do it all."""
        self._prepare()
        self.has_begun = True
        finished = False
        try:
            self._tell()
            while self._waiting or self._active or self._elsewhere:
                self._hand_out()
                for done in self._crew.finished(_POLL_S):
                    self._take_back(done)
                if not self._waiting and not self._active and self._elsewhere:
                    self._look_again()
            finished = True
        finally:
            self._crew.close(kill=not finished)
            if not self.config.dry_run:
                self._leases.close()
                with contextlib.suppress(StoreWriteError, OSError):  # what stays is nobody's harm; `check` names it
                    tidy(self.bytes)
        return self.outcomes()

    def _prepare(self) -> None:
        """Make the store, or check that it fits."""
        name = str(self._path)
        try:
            there = read_store_record(self.bytes, name)
        except StoreNotFoundError:
            if self.config.dry_run:
                return
            create_store(self.bytes, self.record)
            there = read_store_record(self.bytes, name)
        except CorruptStoreError as error:
            if self.config.dry_run:
                raise
            there = restore_root(self.bytes, name)
            self._tell(note=f"{error}: done")
        found = differences(self._comparable(there), self._comparable(self.record))
        ours = {job.key for job in self._waiting if self._is_wanted(job)}
        others = [key for key in chain(*read_slides(self.bytes)) if key not in ours] if found else []
        if found and (others or not self.config.overwrite):
            kept = (
                f", and {len(others)} slides of it are not redone (such as {others[0]})"
                if self.config.overwrite
                else ""
            )
            raise StoreSettingsError(
                f"the store {name} was made with other settings: {'; '.join(found)}{kept}. "
                "Use the same settings, or another -o"
                + ("" if self.config.overwrite else ", or --overwrite to redo its slides")
            )
        self._check_case(ours)
        if self.config.dry_run:
            return
        with contextlib.suppress(StoreWriteError):  # a store that is complete can be read-only
            tidy(self.bytes)
        if found:
            self.bytes.put(ROOT, [self.record.to_json()])
        elif there.tiling is None and self.record.tiling is not None:
            self.bytes.put(ROOT, [dataclasses.replace(there, tiling=self.record.tiling).to_json()])

    def _check_case(self, keys: Iterable[str]) -> None:
        """Refuse names that differ in case alone where the store's file system takes them for one.

        Raises:
            ConfigError: if there are two.
        """
        twins = case_twins([*keys, *self.bytes.children(SLIDES)])
        if twins is None:
            return
        try:
            self.bytes.get(ROOT.upper())
        except KeyError:
            return  # case makes a difference here
        raise ConfigError(
            f"{twins[0]} and {twins[1]} differ in case alone, and the file system of {self._path} takes them for one "
            "name; rename one (for tile, by its slide_id in --slide-table), or put the store elsewhere"
        )

    def _comparable(self, record: StoreRecord) -> dict[str, Any]:
        """Everything that must be equal for two runs to share a store."""
        fixed = {"patch_px": record.patch_px, "codec": record.codec, "quality": record.quality}
        return fixed | dict(record.tiling or {})

    def _hand_out(self) -> None:
        """Keep the crew busy: segments of slides under way first, then the next slide."""
        while self._crew.has_room:
            if self._segments:
                job, patches, function, task = self._segments.popleft()
                if self._active.get(job.key) is job:
                    self._submit(job, function, task, "segment", patches)
            elif self._waiting:
                self._begin(self._waiting.popleft())
            else:
                return

    def _submit(self, job: Job, function: Callable[[Any], Any], task: Any, kind: str, patches: int = 0) -> None:
        """Hand a piece of a slide's work to the crew, with the time that is left for the slide."""
        limit = self.config.slide_timeout
        if limit is not None and kind != "commit":  # what is cut is kept
            limit = max(limit - job.seconds, 0.001)
        self._crew.submit(function, task, (kind, job, patches), limit_s=limit)

    def _begin(self, job: Job) -> None:
        """Send a slide to be surveyed, unless somebody else has it or nobody wants it."""
        job.began = time.monotonic()
        if not self._is_wanted(job):
            kinds = self.config.kinds or ()
            known = f"its kind is {job.source.kind}" if job.source.kind else "its kind is not known"
            self._finish(job, "excluded", "kind", f"{known}, not among --kinds {','.join(kinds)}")
            return
        try:
            self._take_on(job)
        except LinkedPathError as error:
            self._take_error(job, error)

    def _take_on(self, job: Job) -> None:
        committed = self._committed(job)
        is_to_be_written = committed is None or self.config.overwrite or job.is_noted
        if is_to_be_written and not self.config.dry_run:
            self.bytes.checked_path(mark_path(job.key))  # before anything is cut
            if not self._hold(job):
                return
            committed = self._committed(job)  # another run may have finished it between the two looks
            for folder in (slide_path(job.key), work_path(job.key)):
                self.bytes.remove_orphans(folder)  # of a run that died since this one began
        self._active[job.key] = job
        self._survey(job, committed)

    def _hold(self, job: Job) -> bool:
        """Take the lease on a slide; where another run has it, the slide waits."""
        lease = self._leases.acquire(work_path(job.key))
        if isinstance(lease, Lease):
            job.lease = lease
            return True
        if not job.is_noted:
            self._tell(note=f"{job.source.name} is {self.doing} by {lease}; coming back to it later")
        job.is_noted = True
        self._elsewhere.append(job)
        return False

    def _survey(self, job: Job, committed: SlideRecord | None) -> None:
        job.committed = committed
        function, task = self._survey_task(job, committed)
        self._submit(job, function, task, "survey")

    def _held(self, job: Job) -> LocalBytes:
        """The store, to be written by whoever holds the lease on the slide."""
        return self.bytes.fenced(_present(job.lease).fence)

    def _key_of(self, source: Any) -> str:
        """Name of the source's group in the store."""
        return slide_key(source.slide_id, self.config.mpp)

    def _survey_task(self, job: Job, committed: SlideRecord | None) -> tuple[Callable[[Any], Any], Any]:
        """The task that looks at a slide."""
        return survey, SurveyTask(job.source, self.config, self.record, committed)

    def _segment_tasks(self, job: Job, fingerprint: str) -> Iterator[tuple[str, int, Callable[[Any], Any], Any]]:
        """Key, number of patches and task of every segment of a slide that was surveyed."""
        result: Survey = _present(job.survey)
        plan = _present(result.plan)
        for number, rows in enumerate(segments(plan.cells)):
            key = segment_path(job.key, fingerprint, number)
            task = SegmentTask(
                source=job.source,
                stamp=result.stamp,
                read_plan=_present(result.read_plan),
                lattice=_present(result.lattice),
                rows=rows,
                cells=plan.cells[rows],
                store_record=self.record,
                store=self._held(job),
                segment=key,
            )
            yield key, len(rows), cut_segment, task

    def _commit_task(self, job: Job) -> tuple[Callable[[Any], Any], Any]:
        """The task that turns a slide's segments into its arrays."""
        result: Survey = _present(job.survey)
        plan = _present(result.plan)
        content = SlideContent(
            xy=plan.xy,
            tissue=plan.tissue,
            score_names=SCORES,
            unsampled_xy=plan.unsampled_xy,
            segments=job.keys,
            overview=_present(result.overview),
            overview_downsample=result.overview_downsample,
            mask=_present(result.mask),
            mask_downsample=result.mask_downsample,
        )
        return commit, CommitTask(
            source=job.source,
            stamp=result.stamp,
            key=job.key,
            record=result.record,
            content=content,
            store_record=self.record,
            store=self._held(job),
        )

    def _is_wanted(self, job: Job) -> bool:
        return bool(self.config.kinds is None or job.source.kind in self.config.kinds)

    def _committed(self, job: Job) -> SlideRecord | None:
        if self.config.overwrite and self.config.dry_run:
            return None
        try:
            return read_slide_record(self.bytes, job.key)
        except CorruptStoreError:
            return None  # no mark that anyone could read: done again

    def _look_again(self) -> None:
        """Nothing is left but slides that other runs hold: take over from the dead, else wait a little."""
        waiting, self._elsewhere = self._elsewhere, []
        for job in waiting:
            self._begin(job)
        if self._elsewhere:
            if len(self._elsewhere) != len(waiting) or not self._is_waiting:
                self._is_waiting = True
                self._tell(note=f"waiting for {len(self._elsewhere)} slides that another run works on")
            time.sleep(_POLL_S)

    def _take_back(self, done: Done) -> None:
        kind: str = done.tag[0]
        job: Job = done.tag[1]
        patches: int = done.tag[2]
        if self._active.get(job.key) is not job:
            return  # its slide failed meanwhile
        job.seconds += done.seconds
        if done.error is not None:
            self._take_error(job, done.error)
            return
        try:
            self._take_result(job, kind, done.result, patches)
        except (LinkedPathError, LeaseLostError) as error:
            self._take_error(job, error)

    def _take_result(self, job: Job, kind: str, result: Any, patches: int) -> None:
        limit = self.config.slide_timeout
        if kind == "sound":
            if result:
                self._take_committed(job, job.survey.record)
            else:
                self._survey(job, None)
        elif kind == "survey":
            self._take_survey(job, result)
        elif kind == "segment":
            job.missing -= 1
            if isinstance(result, SegmentCost):
                job.costs.append(result)
            self._patches_done += patches
            self._tell()
            if job.missing == 0:
                self._send_to_commit(job)
            elif limit is not None and job.seconds > limit:
                self._take_error(job, timeout_error(limit))
        else:
            self._take_commit(job, result)

    def _take_survey(self, job: Job, result: Any) -> None:
        job.survey = result
        if result.is_committed:
            committed = _present(job.committed)
            if self.config.overwrite and not self.config.dry_run:
                self._submit(job, is_as_made, SoundTask(self.bytes, job.key, self.record, committed), "sound")
            else:
                self._take_committed(job, result.record)
            return
        job.committed = None
        plan = result.plan
        if plan is None:
            raise ValueError(f"the survey of {job.source.name} came back without a plan")
        if self.config.dry_run:
            self._finish(
                job,
                "planned",
                "" if len(plan) else "no_tissue",
                "" if len(plan) else "no tissue was found",
                patches=len(plan),
                megabytes=len(plan) * (result.bytes_per_patch + 8) / 1e6,
                record=result.record,
            )
            return
        # Another reader's segments are cut again: where a level is no whole reduction, readers interpolate differently.
        made_by = fingerprint_of({"slide": result.record.fingerprint, "reader": result.record.reader}, {})
        tasks = list(self._segment_tasks(job, made_by))
        job.keys = [key for key, *_ in tasks]
        self._remove_stale_segments(job)
        cut: list[NDArray[np.intp]] = []
        for key, patches, function, task in sorted(tasks, key=itemgetter(1), reverse=True):  # a short one ends last
            if is_finished(self.bytes, key):
                continue
            if isinstance(task, SegmentTask):
                cut.append(task.rows)
            self._patches_known += patches
            job.missing += 1
            self._segments.append((job, patches, function, task))
        if cut and result.tile_px is not None:
            cells = _present(result.plan).cells[np.concatenate(cut)]
            downsample = _present(result.read_plan).downsample
            job.tiles_needed = tiles_needed(_present(result.lattice), cells, downsample, result.tile_px)
        if job.missing == 0:
            self._send_to_commit(job)

    def _remove_stale_segments(self, job: Job) -> None:
        """Segments of an interrupted run with other settings are of no use."""
        for key in list(self.bytes.keys(work_path(job.key))):
            if key.endswith(".segment") and key not in job.keys:
                self._held(job).delete(key)

    def _send_to_commit(self, job: Job) -> None:
        function, task = self._commit_task(job)
        self._submit(job, function, task, "commit")

    def _take_commit(self, job: Job, record: SlideRecord) -> None:
        stored = int(record.counts["stored"])
        reason = message = ""
        reason, message = _why_empty(record)
        if stored and record.messages:
            message = next(iter(record.messages.values()))
        self._finish(job, self.done, reason, message, patches=stored, megabytes=self._megabytes(job), record=record)

    def _take_committed(self, job: Job, record: SlideRecord) -> None:
        """The slide was there; only its words, from the slide table, may be new."""
        status: Status = "unchanged"
        if not self.config.dry_run and self._is_new(job, record):
            if job.lease is None and not self._hold(job):
                del self._active[job.key]
                return
            if self._is_new(job, record):
                self._held(job).put(mark_path(job.key), [record.to_json()])
                status = "updated"
        reason, message = _why_empty(record)
        stored = int(record.counts["stored"])
        self._finish(job, status, reason, message, patches=stored, megabytes=self._megabytes(job), record=record)

    def _is_new(self, job: Job, record: SlideRecord) -> bool:
        """Whether a record says something else of the patches that are there than the store does.

        Raises:
            LeaseLostError: if other patches are there by now.
        """
        try:
            there = self.bytes.get(mark_path(job.key))
            if SlideRecord.from_json(there, job.key).content_hash != record.content_hash:
                raise LeaseLostError(f"{record.name} was redone by another run")
        except (KeyError, CorruptStoreError):
            raise LeaseLostError(f"{record.name} was taken away by another run") from None
        return record.to_json() != there

    def _take_error(self, job: Job, error: BaseException) -> None:
        if isinstance(error, LinkedPathError):
            self._finish(job, "failed", "linked", str(error))
            return
        if isinstance(error, StoreWriteError) or not isinstance(error, Exception):
            raise error
        if isinstance(error, SlideChangedError) and job.committed is not None and self.config.overwrite:
            self._survey(job, None)  # the store holds it otherwise, and that is what --overwrite is for
            return
        if isinstance(error, LeaseLostError):
            self._tell(note=f"{job.source.name}: {error}")
            self._forget(job)
            self._waiting.append(Job(job.source, job.key))
            return
        if isinstance(error, CorruptStoreError):
            if job.lease is not None:
                with contextlib.suppress(LeaseLostError):
                    remove_work(self._held(job), job.key)
            if not job.is_second_try:  # segments of a run that a power cut ended
                self._tell(note=f"{job.source.name}: {error}; it is {self.doing} again")
                self._forget(job)
                self._waiting.append(Job(job.source, job.key, is_second_try=True))
                return
            self._finish(job, "failed", "corrupt", str(error))
            return
        if isinstance(error, PatchImportError):
            self._finish(job, "failed", "not_importable", str(error))
            return
        if isinstance(error, SlideTimeoutError):
            error = timeout_error(self.config.slide_timeout)
        if isinstance(error, SlideError):
            status: Status = "skipped" if isinstance(error, SlideSkipped) else "failed"
            self._finish(job, status, error.reason, str(error))
            return
        details = {"traceback": "".join(traceback.format_exception(error))}
        self._finish(job, "failed", "error", with_name(error), details=details)

    def _finish(
        self,
        job: Job,
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        patches: int = 0,
        megabytes: float = 0.0,
        record: SlideRecord | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        if status in ("failed", "skipped") and job.lease is not None:
            message = self._said_of_what_is_there(job, message)
        facts = (
            {}
            if record is None
            else {"reader": record.reader, "resolution": record.resolution, "reading": record.reading}
        )
        outcome = SlideOutcome(
            slide_id=job.source.slide_id,
            name=job.source.name,
            status=status,
            reason=reason,
            message=message,
            patches=patches,
            dropped=dict(record.counts.get("dropped", {})) if record else {},
            megabytes=megabytes,
            warnings=tuple(record.resolution["warnings"]) if record else (),
            seconds=time.monotonic() - job.began,
            details={**facts, **_reads(job), **(details or {})},
        )
        self._forget(job)
        self._outcomes[job.key] = outcome
        self._tell(outcome=outcome)

    def _said_of_what_is_there(self, job: Job, message: str) -> str:
        """Say that the store keeps what it has of a slide that failed; take away what a killed finaliser left of it."""
        committed = self._committed(job)
        if committed is not None:
            kept = f"the store keeps the {committed.counts['stored']:,} patches that it has of it"
            return message if "the store keeps" in message else f"{message}; {kept}"
        if not is_committed(self.bytes, job.key):
            with contextlib.suppress(LeaseLostError, StoreWriteError):
                remove_slide(self._held(job), job.key)
        return message

    def _forget(self, job: Job) -> None:
        self._active.pop(job.key, None)
        if job.lease is not None:
            self._leases.release(job.lease)
            job.lease = None

    def _megabytes(self, job: Job) -> float:
        prefix = f"{slide_path(job.key)}/images"
        return sum(self.bytes.size(key) for key in self.bytes.keys(prefix)) / 1e6

    def _tell(self, *, outcome: SlideOutcome | None = None, note: str = "") -> None:
        self._progress(
            Progress(
                slides_done=len(self._outcomes),
                slides_total=self._total,
                patches_done=self._patches_done,
                patches_known=self._patches_known,
                outcome=outcome,
                note=note,
            )
        )


def _reads(job: Job) -> dict[str, Any]:
    """What reading a slide took in this run, for its record; nothing where it cut no segment."""
    if not job.costs:
        return {}
    decoded = [cost.counts.tiles_decoded for cost in job.costs]
    read = [cost.counts.bytes_read for cost in job.costs]
    seconds, patches = sum(cost.seconds for cost in job.costs), sum(cost.patches for cost in job.costs)
    reads: dict[str, Any] = {
        "readers": sorted({cost.reader for cost in job.costs}),
        "patches": patches,
        "worker_seconds": seconds,
        "patches_per_second": patches / seconds,
        "regions_handed_over": sum(cost.counts.regions_handed_over for cost in job.costs),
        "tiles_needed": job.tiles_needed,
        "tiles_decoded": None if None in decoded else sum(count or 0 for count in decoded),
        "megabytes_read": None if None in read else sum(count or 0 for count in read) / 1e6,
    }
    if job.tiles_needed and reads["tiles_decoded"] is not None:
        reads["decoded_per_needed"] = reads["tiles_decoded"] / job.tiles_needed
    return {"reads": reads}


def _why_empty(record: SlideRecord) -> tuple[str, str]:
    """Reason and message of a slide that is in the store without patches; empty for all others."""
    planned = record.counts["planned"]
    if record.counts["stored"]:
        return "", ""
    if not planned:
        return "no_tissue", "no tissue was found; it is in the store with no patches"
    example = next(iter(record.messages.values()), "")
    return "no_patches", f"none of its {planned:,} planned patches could be read: {example}"


def _present(value: T | None) -> T:
    if value is None:
        raise ValueError("a slide was sent on before its survey was complete")
    return value


def reasons(outcomes: Iterable[SlideOutcome]) -> Counter[tuple[Status, str]]:
    """Number of slides by status and reason."""
    return Counter((outcome.status, outcome.reason) for outcome in outcomes)
