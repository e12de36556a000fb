"""A run that works on a store slide by slide, whatever it does to them: queue, leases, workers, errors, outcomes."""

from __future__ import annotations

import contextlib
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from wsicurate.engine.progress import Progress, ProgressCallback, SlideOutcome, Status
from wsicurate.engine.tidy import tidy
from wsicurate.engine.workers import Done
from wsicurate.errors import (
    CorruptStoreError,
    LeaseLostError,
    LinkedPathError,
    SlideError,
    SlideSkipped,
    StoreFormatError,
    StoreWriteError,
    WsicurateError,
    with_name,
)
from wsicurate.store.layout import work_path
from wsicurate.store.leases import Lease, Leases
from wsicurate.store.local_bytes import LocalBytes

#: How often slides that another run works on are looked at again, seconds.
_POLL_S = 1.0


class Source(Protocol):
    """What a job is about."""

    @property
    def slide_id(self) -> str:
        """Safe name of the slide."""
        ...

    @property
    def name(self) -> str:
        """Readable name of the slide."""
        ...


class Workers(Protocol):
    """Who does the work: `Crew`, or an engine of `embed`. What it reports has the tag (job, what to do with it)."""

    @property
    def has_room(self) -> bool:
        """Whether another piece of work would start soon."""
        ...

    def finished(self, timeout_s: float) -> Iterator[Done]:
        """Wait up to ``timeout_s`` for pieces to finish, and report those that did."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Wait for the workers to end; with ``kill``, end them now. Unfinished pieces are forgotten."""
        ...


S = TypeVar("S", bound=Source)
W = TypeVar("W")


@dataclass(eq=False)
class Job(Generic[S, W]):
    """A slide on its way.

    Attributes:
        source: which.
        key: of its group in the store.
        work: how far it is; None until it is taken on.
        lease: the lease on it, while it is held.
        is_noted: whether it was said that another run has it.
        is_second_try: whether what was cut of it was damaged once.
        seconds: that workers spent on it.
        began: when it was begun, of `time.monotonic`.
    """

    source: S
    key: str
    work: W | None = None
    lease: Lease | None = None
    is_noted: bool = False
    is_second_try: bool = False
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> W:
        """How far it is.

        Raises:
            ValueError: if it was not taken on yet.
        """
        if self.work is None:
            raise ValueError(f"{self.key} was sent on before it was taken on")
        return self.work


class SlideRun(ABC, Generic[S, W]):
    """One run over the slides of a store: what to hand to the workers next, what to make of what comes back.

    It takes a slide on under the slide's lease, hands out pieces of its work, and gives it an outcome. Slides that
    another run holds come last, and are taken over when that run dies. Verbs say what the work is.

    Args:
        store: the store.
        jobs: the slides, in the order in which they are begun.
        workers: who does the work; closed at the end.
        progress: called as work goes on.
        writes: whether the store is changed: no dry run.

    Attributes:
        bytes: the store.
        has_begun: whether the store was found to fit, and work began.
        seconds_at_work: wall-clock time from then to the last slide's outcome.
    """

    #: What another run that holds a slide does to it, in sentences.
    doing: ClassVar[str]

    def __init__(
        self,
        store: LocalBytes,
        jobs: Iterable[Job[S, W]],
        workers: Workers,
        progress: ProgressCallback,
        *,
        writes: bool = True,
    ) -> None:
        self.bytes = store
        self.has_begun = False
        self.seconds_at_work = 0.0
        self._writes = writes
        self._workers = workers
        self._progress = progress
        self._leases = Leases(store)
        self._waiting = deque(jobs)
        self._total = len(self._waiting)
        self._elsewhere: list[Job[S, W]] = []
        self._is_waiting = False
        self._active: dict[str, Job[S, W]] = {}
        self._outcomes: dict[str, SlideOutcome] = {}
        self._patches_done = 0
        self._patches_known = 0

    # What verbs fill in.

    @abstractmethod
    def _prepare(self) -> None:
        """Check that the store fits this run, before anything is done; raises what ends the run if it does not."""

    @abstractmethod
    def _take_on(self, job: Job[S, W]) -> None:
        """Begin a slide: hold it, set its ``work`` and put it among the active ones; or finish it at once."""

    @abstractmethod
    def _hand_out_piece(self) -> bool:
        """Hand a piece of a slide under way to the workers; whether there was one."""

    def _took_error(self, job: Job[S, W], error: Exception) -> bool:
        """Deal with an error of a slide in the verb's own way; whether it was dealt with."""
        return False

    def _closing_words(self, job: Job[S, W], message: str) -> str:
        """What to say of a slide that failed; the lease on it is still held."""
        return message

    def _details(self, job: Job[S, W]) -> Mapping[str, Any]:
        """What the run's record says of how a slide was worked on."""
        return {}

    # What all runs do.

    def outcomes(self) -> list[SlideOutcome]:
        """What became of the slides so far, sorted by slide_id."""
        return [self._outcomes[key] for key in sorted(self._outcomes)]

    def add_outcomes(self, outcomes: Iterable[SlideOutcome]) -> None:
        """Report what will not be worked on: what was passed over, or is not there."""
        for outcome in outcomes:
            self._outcomes[f"{outcome.slide_id} {outcome.reason}"] = outcome
        self._total = len(self._waiting) + len(self._outcomes)

    def work(self) -> list[SlideOutcome]:
        """Do it all; raises what ends the run, after leases were given back and workers ended."""
        self._prepare()
        self.has_begun = True
        began, finished = time.monotonic(), False
        try:
            self._tell()
            while self._waiting or self._active or self._elsewhere:
                self._hand_out()
                for done in self._workers.finished(_POLL_S):
                    self._take_back(done)
                if not self._waiting and not self._active and self._elsewhere:
                    self._look_again()
            finished = True
        finally:
            self.seconds_at_work = time.monotonic() - began
            self._workers.close(kill=not finished)
            if self._writes:
                self._leases.close()
                with contextlib.suppress(StoreWriteError, OSError):  # what stays does no harm; `check` names it
                    tidy(self.bytes)
        return self.outcomes()

    def _tidy_first(self) -> None:
        """Take away what dead runs left; a store that is complete can be read-only."""
        with contextlib.suppress(StoreWriteError):
            tidy(self.bytes)

    def _hand_out(self) -> None:
        """Keep the workers busy: pieces of slides under way first, then the next slide."""
        while self._workers.has_room:
            if not self._hand_out_piece():
                if not self._waiting:
                    return
                self._begin(self._waiting.popleft())

    def _begin(self, job: Job[S, W]) -> None:
        job.began = time.monotonic()
        try:
            self._take_on(job)
        except (LinkedPathError, LeaseLostError, CorruptStoreError) as error:
            self._take_error(job, error)

    def _hold(self, job: Job[S, W]) -> bool:
        """Take the lease on a slide; where another run has it, the slide waits. Whether it is held now."""
        lease = self._leases.acquire(work_path(job.key))
        if isinstance(lease, Lease):
            job.lease = lease
            return True
        if not job.is_noted:
            self._tell(note=f"{job.source.name} is {self.doing} by {lease}; coming back to it later")
        job.is_noted = True
        self._elsewhere.append(job)
        return False

    def _held(self, job: Job[S, W]) -> LocalBytes:
        """The store, to be written by whoever holds the lease on the slide."""
        if job.lease is None:
            raise ValueError(f"{job.key} is to be written without a lease")
        return self.bytes.fenced(job.lease.fence)

    def _look_again(self) -> None:
        """Nothing is left but slides that other runs hold: take over from the dead, else wait a little."""
        count = len(self._elsewhere)
        self._waiting.extend(self._elsewhere)
        self._elsewhere.clear()
        self._hand_out()
        if self._active or self._waiting or not self._elsewhere:
            return
        if len(self._elsewhere) != count or not self._is_waiting:
            self._is_waiting = True
            self._tell(note=f"waiting for {len(self._elsewhere)} slides that another run works on")
        time.sleep(_POLL_S)

    def _take_back(self, done: Done) -> None:
        """Go on with a slide of which a piece was finished, or failed."""
        job, take = cast(tuple[Job[S, W], Callable[[Job[S, W], Any], None]], done.tag)
        if self._active.get(job.key) is not job:
            return  # its slide failed meanwhile, or was begun again
        job.seconds += done.seconds
        if done.error is not None:
            self._take_error(job, done.error)
            return
        try:
            take(job, done.result)
        except (LinkedPathError, LeaseLostError) as error:
            self._take_error(job, error)

    def _take_error(self, job: Job[S, W], error: BaseException) -> None:
        """Give a slide its outcome, or begin it again; raise what ends the run."""
        if isinstance(error, LinkedPathError):
            self._finish(job, "failed", "linked", str(error))
        elif isinstance(error, StoreWriteError) or not isinstance(error, Exception):
            raise error
        elif self._took_error(job, error):
            pass
        elif isinstance(error, LeaseLostError):
            self._begin_later(job, str(error))
        elif isinstance(error, SlideError):
            status: Status = "skipped" if isinstance(error, SlideSkipped) else "failed"
            self._finish(job, status, error.reason, str(error))
        elif isinstance(error, CorruptStoreError | StoreFormatError):
            self._finish(job, "failed", "corrupt", str(error))
        elif isinstance(error, WsicurateError):
            self._finish(job, "failed", "error", str(error))
        else:
            details = {"traceback": "".join(traceback.format_exception(error))}
            self._finish(job, "failed", "error", with_name(error), details=details)

    def _begin_later(self, job: Job[S, W], why: str, *, is_second_try: bool = False) -> None:
        """Put a slide back at the end of the queue, as if nothing had been done."""
        self._tell(note=f"{job.source.name}: {why}")
        self._forget(job)
        self._waiting.append(Job(job.source, job.key, is_second_try=is_second_try))

    def _finish(
        self,
        job: Job[S, W],
        status: Status,
        reason: str = "",
        message: str = "",
        *,
        patches: int = 0,
        megabytes: float = 0.0,
        dropped: Mapping[str, int] = MappingProxyType({}),
        warnings: Iterable[str] = (),
        details: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Give a slide its outcome and its lease back, and say so."""
        if status in ("failed", "skipped") and job.lease is not None:
            message = self._closing_words(job, message)
        outcome = SlideOutcome(
            slide_id=job.source.slide_id,
            name=job.source.name,
            status=status,
            reason=reason,
            message=message,
            patches=patches,
            dropped=dict(dropped),
            megabytes=megabytes,
            warnings=tuple(warnings),
            seconds=time.monotonic() - job.began,
            details={**details, **self._details(job)},
        )
        self._forget(job)
        self._outcomes[job.key] = outcome
        self._tell(outcome=outcome)

    def _forget(self, job: Job[S, W]) -> None:
        """Take a slide from the active ones and give its lease back."""
        self._active.pop(job.key, None)
        if job.lease is not None:
            self._leases.release(job.lease)
            job.lease = None

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
