"""What every run does with slides, errors and leases, shown by a run that writes one value for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from wsicurate.engine import slide_run
from wsicurate.engine.progress import Progress
from wsicurate.engine.slide_run import Job, SlideRun
from wsicurate.engine.workers import Done
from wsicurate.errors import (
    CorruptStoreError,
    LeaseLostError,
    LinkedPathError,
    NoResolutionError,
    StoreFormatError,
    StoreSettingsError,
    StoreWriteError,
    UnreadableSlideError,
)
from wsicurate.store.leases import Lease, Leases
from wsicurate.store.local_bytes import LocalBytes


@dataclass(frozen=True)
class Named:
    name: str

    @property
    def slide_id(self) -> str:
        return self.name


class Ready:
    """Workers with room for two, whose pieces are done as soon as somebody asks."""

    def __init__(self) -> None:
        self.pieces: deque[tuple[Callable[[], int], object]] = deque()
        self.most = 0
        self.killed: bool | None = None

    @property
    def has_room(self) -> bool:
        return len(self.pieces) < 2

    def finished(self, timeout_s: float) -> Iterator[Done]:
        self.most = max(self.most, len(self.pieces))
        while self.pieces:
            piece, tag = self.pieces.popleft()
            try:
                yield Done(tag, piece(), None, 1.5)
            except BaseException as error:
                yield Done(tag, None, error)

    def close(self, *, kill: bool = False) -> None:
        self.killed = kill


class Writing(SlideRun[Named, list[int]]):
    """Asks for a number for each slide, and writes it."""

    doing = "being written"

    def __init__(self, store: LocalBytes, names: str, answers: dict[str, list[object]] | None = None) -> None:
        self.ready = Ready()
        self.told: list[Progress] = []
        self.answers = answers or {}
        jobs: list[Job[Named, list[int]]] = [Job(Named(name), f"{name}@1") for name in names]
        super().__init__(store, jobs, self.ready, self.told.append)

    def _prepare(self) -> None:
        self._tidy_first()

    def _take_on(self, job: Job[Named, list[int]]) -> None:
        if self._hold(job):
            job.work = []
            self._active[job.key] = job
            self.ready.pieces.append((lambda: self._answer(job.source.name), (job, self._take)))

    def _hand_out_piece(self) -> bool:
        return False

    def _answer(self, name: str) -> int:
        answer = self.answers[name].pop(0) if self.answers.get(name) else 7
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, int)
        return answer

    def _take(self, job: Job[Named, list[int]], answer: int) -> None:
        job.progress.append(answer)
        self._held(job).put(f"slides/{job.key}/value", [str(answer).encode()])
        self._finish(job, "tiled", patches=answer, details={"seconds": job.seconds})

    def _closing_words(self, job: Job[Named, list[int]], message: str) -> str:
        assert job.lease is not None
        return f"{message}!"


@pytest.fixture
def store(tmp_path: Path) -> LocalBytes:
    return LocalBytes(tmp_path / "store")


def test_every_slide_gets_an_outcome_and_no_lease_stays(store: LocalBytes) -> None:
    run = Writing(store, "cab")
    outcomes = run.work()
    assert [(outcome.slide_id, outcome.status, outcome.patches) for outcome in outcomes] == [
        (name, "tiled", 7) for name in "abc"
    ]
    assert outcomes[0].details == {"seconds": 1.5}
    assert store.children(".wsicurate") == []
    assert run.ready.killed is False and run.has_begun and run.seconds_at_work > 0
    assert run.ready.most == 2
    assert [told.slides_done for told in run.told if told.outcome is not None] == [1, 2, 3]
    assert run.told[0].slides_done == 0 and run.told[0].slides_total == 3


@pytest.mark.parametrize(
    ("error", "status", "reason", "message"),
    [
        (LinkedPathError("a link"), "failed", "linked", "a link!"),
        (UnreadableSlideError("no reader"), "failed", UnreadableSlideError.reason, "no reader!"),
        (NoResolutionError("nobody knows"), "skipped", NoResolutionError.reason, "nobody knows!"),
        (CorruptStoreError("bad"), "failed", "corrupt", "bad!"),
        (StoreFormatError("no images"), "failed", "corrupt", "no images!"),
        (StoreSettingsError("other"), "failed", "error", "other!"),
        (ZeroDivisionError("1/0"), "failed", "error", "ZeroDivisionError: 1/0!"),
    ],
)
def test_a_slide_that_fails_stops_nobody(
    store: LocalBytes, error: Exception, status: str, reason: str, message: str
) -> None:
    outcomes = Writing(store, "abc", {"b": [error]}).work()
    assert [outcome.status for outcome in outcomes] == ["tiled", status, "tiled"]
    assert (outcomes[1].reason, outcomes[1].message) == (reason, message)
    assert ("traceback" in outcomes[1].details) == isinstance(error, ZeroDivisionError)
    assert store.children(".wsicurate") == []


@pytest.mark.parametrize("error", [StoreWriteError("full"), KeyboardInterrupt()])
def test_what_ends_the_run_gives_leases_back_and_ends_workers(store: LocalBytes, error: BaseException) -> None:
    run = Writing(store, "abc", {"b": [error]})
    with pytest.raises(type(error)):
        run.work()
    assert run.ready.killed is True
    assert store.children(".wsicurate") == []
    assert [outcome.slide_id for outcome in run.outcomes()] == ["a"]


def test_a_slide_that_another_run_took_over_is_begun_again(store: LocalBytes) -> None:
    run = Writing(store, "ab", {"a": [LeaseLostError("taken"), 3]})
    assert [outcome.patches for outcome in run.work()] == [3, 7]
    assert "a: taken" in [told.note for told in run.told]


def test_slides_of_another_run_come_last_and_no_more_are_begun_than_there_is_room_for(
    store: LocalBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_run, "_POLL_S", 0.0)
    other = Leases(store)
    held = [lease for name in "abcd" if isinstance(lease := other.acquire(f".wsicurate/{name}@1"), Lease)]
    run = Writing(store, "abcde")
    waits = []

    def told(progress: Progress) -> None:
        waits.append(progress.note)
        if progress.note.startswith("waiting for 4 slides"):
            for lease in held:
                other.release(lease)

    run._progress = told
    assert [outcome.status for outcome in run.work()] == ["tiled"] * 5
    assert sum("coming back to it later" in note for note in waits) == 4
    assert "a is being written by" in next(note for note in waits if "coming back" in note)
    assert sum(note.startswith("waiting for") for note in waits) == 1
    assert run.ready.most == 2
    other.close()


def test_work_that_is_not_under_way_is_not_gone_on_with() -> None:
    job: Job[Named, list[int]] = Job(Named("a"), "a@1")
    with pytest.raises(ValueError, match="before it was taken on"):
        _ = job.progress
