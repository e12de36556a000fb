"""A run that fills a store: slides are surveyed, cut in segments that any worker can take, and committed."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Executor
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from wsicurate.engine.findings import FindingsPlace
from wsicurate.engine.fitting import Fitting
from wsicurate.engine.pieces import Call, Filling, FillingConfig, Piece, SoundTask, Surveyed, is_as_made, made_by
from wsicurate.engine.progress import ProgressCallback, Status
from wsicurate.engine.slide_run import Job, SlideRun, Source
from wsicurate.engine.workers import Crew, timeout_error
from wsicurate.errors import (
    CorruptStoreError,
    LeaseLostError,
    LinkedPathError,
    PatchImportError,
    SlideChangedError,
    SlideTimeoutError,
    StoreWriteError,
)
from wsicurate.store.commit import remove_slide, remove_work
from wsicurate.store.committed import is_committed, read_slide_record
from wsicurate.store.layout import SEGMENT, UNFINISHED, mark_path, slide_path, work_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.segments import is_finished

C = TypeVar("C", bound=FillingConfig)
S = TypeVar("S", bound=Source)
V = TypeVar("V", bound=Surveyed)
R = TypeVar("R")
X = TypeVar("X")


class FillingRun(SlideRun[S, Filling[V, R]], Generic[C, S, V, R]):
    """One run of `tile` or `import`. Verbs say what a slide's key is, and make the tasks.

    Args:
        path: the store's folder; made if it is not there.
        config: settings.
        sources: the slides.
        record: the store's attributes, as this run would make it.
        executor: where the work runs; a pool of processes by default.
        progress: called as work goes on.
    """

    #: What a slide is that was done now.
    done: ClassVar[Status]

    def __init__(
        self,
        path: Path,
        config: C,
        sources: Sequence[S],
        record: StoreRecord,
        executor: Executor | None,
        progress: ProgressCallback,
    ) -> None:
        self.config = config
        self.record = record
        self._path = path
        self._crew = Crew(config.workers, executor)
        self._pieces: deque[tuple[Job[S, Filling[V, R]], Piece[R]]] = deque()
        jobs: list[Job[S, Filling[V, R]]] = [Job(source, self._key_of(source)) for source in sources]
        super().__init__(LocalBytes(path), jobs, self._crew, progress, writes=not config.dry_run)

    # What verbs fill in.

    @abstractmethod
    def _key_of(self, source: S) -> str:
        """Name of the source's group in the store."""

    @abstractmethod
    def _survey_call(self, job: Job[S, Filling[V, R]], committed: SlideRecord | None) -> Call[V]:
        """The task that looks at a slide, and compares it with what the store holds of it, if that is given."""

    @abstractmethod
    def _pieces_of(self, job: Job[S, Filling[V, R]], place: FindingsPlace) -> Iterator[Piece[R]]:
        """The segments of a slide that was surveyed, its findings at ``place``; their keys hold its fingerprint."""

    @abstractmethod
    def _commit_call(self, job: Job[S, Filling[V, R]], place: FindingsPlace) -> Call[SlideRecord]:
        """The task that turns a slide's segments into its arrays, and gives the record as written."""

    def _reason_against(self, source: S) -> str:
        """Why a slide is not wanted, in a sentence; empty if it is."""
        return ""

    def _comparable(self, record: StoreRecord) -> dict[str, Any]:
        """Everything that must be equal for two runs to share a store."""
        return {
            "patch_px": record.patch_px,
            "codec": record.codec,
            "quality": record.quality,
            **(record.materialised or {}),
        }

    # The store.

    def _prepare(self) -> None:
        wanted = {job.key for job in self._waiting if not self._reason_against(job.source)}
        fitting = Fitting(self.bytes, self.record, wanted, self._comparable, self.config.overwrite)
        note = fitting.check(is_dry=self.config.dry_run)
        if note:
            self._tell(note=note)
        if self._writes:
            self._tidy_first()
            fitting.settle()

    def _committed(self, job: Job[S, Filling[V, R]]) -> SlideRecord | None:
        """What the store holds of a slide, as far as this run goes by it."""
        if self.config.overwrite and self.config.dry_run:
            return None
        try:
            return read_slide_record(self.bytes, job.key)
        except CorruptStoreError:
            return None  # no mark that anyone could read: done again

    # Handing out.

    def _hand_out_piece(self) -> bool:
        if not self._pieces:
            return False
        job, piece = self._pieces.popleft()
        if self._active.get(job.key) is job:

            def take(job: Job[S, Filling[V, R]], result: R) -> None:
                self._take_segment(job, result, piece.patches)

            self._submit(job, piece.call, take)
        return True

    def _submit(
        self,
        job: Job[S, Filling[V, R]],
        call: Call[X],
        take: Callable[[Job[S, Filling[V, R]], X], None],
        *,
        is_limited: bool = True,
    ) -> None:
        """Hand a piece of a slide's work to the crew, with the time that is left for the slide."""
        limit = self.config.slide_timeout if is_limited else None
        if limit is not None:
            limit = max(limit - job.seconds, 0.001)
        self._crew.submit(call.function, call.task, (job, take), limit_s=limit)

    def _take_on(self, job: Job[S, Filling[V, R]]) -> None:
        """Send a slide to be surveyed, unless another run has it or it is not wanted."""
        against = self._reason_against(job.source)
        if against:
            self._finish(job, "excluded", "kind", against)
            return
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

    def _survey(self, job: Job[S, Filling[V, R]], committed: SlideRecord | None) -> None:
        job.work = Filling(committed)
        self._submit(job, self._survey_call(job, committed), self._take_survey)

    # Taking back.

    def _take_survey(self, job: Job[S, Filling[V, R]], survey: V) -> None:
        work = job.progress
        work.survey = survey
        if survey.is_committed:
            if self.config.overwrite and not self.config.dry_run and work.committed is not None:
                sound = SoundTask(self.bytes, job.key, self.record, work.committed)
                self._submit(job, Call.of(is_as_made, sound), self._take_soundness)
            else:
                self._take_committed(job, survey.record)
            return
        work.committed = None
        if self.config.dry_run:
            is_empty = not survey.patches
            self._finish_with(
                job,
                survey.record,
                "planned",
                "no_tissue" if is_empty else "",
                "no tissue was found" if is_empty else "",
                patches=survey.patches,
                megabytes=survey.patches * (survey.bytes_per_patch + 8) / 1e6,
            )
            return
        place = self._findings_of(job)
        pieces = list(self._pieces_of(job, place))
        work.segments = [piece.key for piece in pieces]
        self._remove_stale_work(job, {place.path, *work.segments})
        for piece in sorted(pieces, key=attrgetter("patches"), reverse=True):  # a short one ends last
            if not is_finished(self.bytes, piece.key):
                self._patches_known += piece.patches
                work.missing += 1
                self._pieces.append((job, piece))
        if work.missing == 0:
            self._send_to_commit(job)

    def _take_soundness(self, job: Job[S, Filling[V, R]], is_made_so: bool) -> None:
        if is_made_so:
            self._take_committed(job, job.progress.surveyed.record)
        else:
            self._survey(job, None)

    def _take_segment(self, job: Job[S, Filling[V, R]], result: R, patches: int) -> None:
        limit, work = self.config.slide_timeout, job.progress
        work.missing -= 1
        work.results.append(result)
        self._patches_done += patches
        self._tell()
        if work.missing == 0:
            self._send_to_commit(job)
        elif limit is not None and job.seconds > limit:
            self._take_error(job, timeout_error(limit))

    def _findings_of(self, job: Job[S, Filling[V, R]]) -> FindingsPlace:
        """Where the findings of a slide that was surveyed lie."""
        return FindingsPlace(self._held(job), job.key, made_by(job.progress.surveyed.record))

    def _remove_stale_work(self, job: Job[S, Filling[V, R]], ours: Set[str]) -> None:
        """Surveys and segments of an interrupted run with other settings are of no use."""
        for key in list(self.bytes.keys(work_path(job.key))):
            if key.endswith(UNFINISHED) and key not in ours:
                self._held(job).delete(key)

    def _send_to_commit(self, job: Job[S, Filling[V, R]]) -> None:
        call = self._commit_call(job, self._findings_of(job))
        self._submit(job, call, self._take_commit, is_limited=False)  # what is cut is kept

    def _take_commit(self, job: Job[S, Filling[V, R]], record: SlideRecord) -> None:
        stored = int(record.counts["stored"])
        reason, message = _why_empty(record)
        if stored and record.messages:
            message = next(iter(record.messages.values()))
        megabytes = self._megabytes(job)
        self._finish_with(job, record, self.done, reason, message, patches=stored, megabytes=megabytes)

    def _take_committed(self, job: Job[S, Filling[V, R]], record: SlideRecord) -> None:
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
        stored, megabytes = int(record.counts["stored"]), self._megabytes(job)
        self._finish_with(job, record, status, reason, message, patches=stored, megabytes=megabytes)

    def _is_new(self, job: Job[S, Filling[V, R]], record: SlideRecord) -> bool:
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

    def _megabytes(self, job: Job[S, Filling[V, R]]) -> float:
        """Size of a slide's patches in the store."""
        prefix = f"{slide_path(job.key)}/images"
        return sum(self.bytes.size(key) for key in self.bytes.keys(prefix)) / 1e6

    # Outcomes.

    def _took_error(self, job: Job[S, Filling[V, R]], error: Exception) -> bool:
        is_compared = job.work is not None and job.work.committed is not None
        if isinstance(error, SlideChangedError) and self.config.overwrite and is_compared:
            self._survey(job, None)  # the store holds it otherwise, and that is what --overwrite is for
        elif isinstance(error, CorruptStoreError) and job.work is not None:
            if job.lease is not None:
                with contextlib.suppress(LeaseLostError):
                    remove_work(self._held(job), job.key)
            if job.is_second_try:
                return False
            self._begin_later(job, f"{error}; it is {self.doing} again", is_second_try=True)  # a power cut ended it
        elif isinstance(error, PatchImportError):
            self._finish(job, "failed", "not_importable", str(error))
        elif isinstance(error, SlideTimeoutError):
            self._finish(job, "failed", error.reason, str(timeout_error(self.config.slide_timeout)))
        else:
            return False
        return True

    def _finish_with(
        self,
        job: Job[S, Filling[V, R]],
        record: SlideRecord,
        status: Status,
        reason: str,
        message: str,
        *,
        patches: int,
        megabytes: float,
    ) -> None:
        """Give a slide its outcome, with what its record says."""
        self._finish(
            job,
            status,
            reason,
            message,
            patches=patches,
            megabytes=megabytes,
            dropped=record.counts.get("dropped", {}),
            warnings=record.resolution["warnings"],
            details={"reader": record.reader, "resolution": record.resolution, "reading": record.reading},
        )

    def _remove_lone_survey(self, job: Job[S, Filling[V, R]]) -> None:
        """A slide that failed before a segment of it was finished leaves nothing that another run could go on from."""
        if not any(key.endswith(SEGMENT) for key in self.bytes.keys(work_path(job.key))):
            remove_work(self._held(job), job.key)

    def _closing_words(self, job: Job[S, Filling[V, R]], message: str) -> str:
        """Say that the store keeps what it has of a slide that failed; take away what a killed finaliser left of it."""
        with contextlib.suppress(LeaseLostError, LinkedPathError, StoreWriteError):
            self._remove_lone_survey(job)
        committed = self._committed(job)
        if committed is not None:
            kept = f"the store keeps the {committed.counts['stored']:,} patches that it has of it"
            return message if "the store keeps" in message else f"{message}; {kept}"
        if not is_committed(self.bytes, job.key):
            with contextlib.suppress(LeaseLostError, StoreWriteError):
                remove_slide(self._held(job), job.key)
        return message


def _why_empty(record: SlideRecord) -> tuple[str, str]:
    """Reason and message of a slide that is in the store without patches; empty for all others."""
    planned = record.counts["planned"]
    if record.counts["stored"]:
        return "", ""
    if not planned:
        return "no_tissue", "no tissue was found; it is in the store with no patches"
    example = next(iter(record.messages.values()), "")
    return "no_patches", f"none of its {planned:,} planned patches could be read: {example}"
