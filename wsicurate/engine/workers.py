"""Workers: a process pool that survives crashes, and never survives its parent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import FrameType, ModuleType
from typing import Any

from wsicurate.cores import usable_cores
from wsicurate.errors import SlideTimeoutError, WorkerCrashedError
from wsicurate.streams import silence_libraries

#: Tasks handed to the executor at once, per worker: one runs, one waits.
IN_FLIGHT_PER_WORKER = 2

#: How much longer than its limit a task may run at most before its process is ended: decoders do not look at signals.
_GRACE_S = 10.0

#: Where libraries look for their number of threads. Workers are as many as cores already: a pool in each of them would
#: have the cores take turns (N workers on N cores, N threads each).
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


#: Signals that a terminal sends to every process of a command.
_HELD = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}

_main_lock = threading.Lock()


@dataclass(frozen=True)
class Task:
    """A piece of work: a plain function of one picklable argument, what the caller knows it by, its time limit."""

    function: Callable[[Any], Any]
    argument: Any
    tag: Any
    limit_s: float | None = None
    submitted: float = field(default_factory=time.monotonic)

    @property
    def is_overdue(self) -> bool:
        """Whether it could have reached its limit by now."""
        return self.limit_s is not None and time.monotonic() - self.submitted >= self.limit_s


@dataclass(frozen=True)
class Done:
    """A finished task: its result, or the exception that it raised; and the seconds that a worker spent on it."""

    tag: Any
    result: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


class Crew:
    """Runs tasks on an executor, a bounded number of them at once.

    The default executor is a pool of spawned processes. When one of them dies (a reader that crashes, a kernel that
    kills for memory), the pool is built anew and the tasks that were in flight are run again one at a time; the one
    that brings its process down alone is reported as `WorkerCrashedError`, all others finish.

    A task with a limit that takes longer is interrupted, and its process is ended if it does not listen:
    `SlideTimeoutError`. Workers of another executor are not interrupted.

    Args:
        workers: number of processes; None means the executor's workers where it says how many it has, else one per
            usable core.
        executor: any other `concurrent.futures.Executor` to use instead; it is neither rebuilt nor shut down.
    """

    def __init__(self, workers: int | None, executor: Executor | None = None) -> None:
        self.workers = workers or getattr(executor, "_max_workers", None) or usable_cores()
        self._given = executor
        self._pool: ProcessPoolExecutor | None = None
        self._context = _WorkerContext()
        self._queue: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._flying: dict[Future[Any], Task] = {}
        self._alone: Task | None = None

    @property
    def load(self) -> int:
        """Tasks that are submitted and not reported yet."""
        return len(self._queue) + len(self._suspects) + len(self._flying)

    @property
    def has_room(self) -> bool:
        """Whether another task would start soon."""
        return self.load < self.workers * IN_FLIGHT_PER_WORKER

    def submit(self, function: Callable[[Any], Any], argument: Any, tag: Any, *, limit_s: float | None = None) -> None:
        """Queue ``function(argument)``; `finished` reports it under ``tag``."""
        self._queue.append(Task(function, argument, tag, limit_s))
        self._pump()

    def finished(self, timeout_s: float) -> Iterator[Done]:
        """Wait up to ``timeout_s`` for tasks to finish, and report those that did."""
        self._pump()
        if not self._flying:
            return
        ready, _ = wait(self._flying, timeout=timeout_s, return_when=FIRST_COMPLETED)
        crashed: list[Task] = []
        reports: list[Done] = []
        for future in ready:
            task = self._flying.pop(future)
            error = future.exception()
            if isinstance(error, BrokenExecutor) and self._given is None:
                crashed.append(task)
            else:
                reports.append(self._report(task, future))
        if crashed:
            reports += self._after_crash(crashed)
        elif self._alone is not None and not self._flying:
            self._alone = None
        self._pump()
        yield from reports

    def _after_crash(self, crashed: list[Task]) -> list[Done]:
        """Build the pool anew; tasks in flight are tried again one at a time; one that crashed alone has failed."""
        crashed += self._flying.values()
        self._flying.clear()
        self._discard_pool()
        overdue = [task for task in crashed if task.is_overdue]
        if self._alone is None and len(overdue) != 1:
            self._suspects.extend(crashed)
            return []
        if self._alone is None:  # ended because it did not listen
            self._suspects.extend(task for task in crashed if task is not overdue[0])
            crashed = overdue
        self._alone = None
        error: Exception = WorkerCrashedError(
            "the process that worked on it died: its reader crashed or the memory ran out"
        )
        if overdue:
            error = timeout_error(overdue[0].limit_s)
        return [Done(task.tag, None, error) for task in crashed]

    def _pump(self) -> None:
        """Hand tasks to the executor: suspects one at a time, then the queue up to the limit."""
        if self._suspects:
            if not self._flying:
                self._alone = replace(self._suspects.popleft(), submitted=time.monotonic())
                self._start(self._alone)
            return
        if self._alone is not None:
            return
        while self._queue and len(self._flying) < self.workers * IN_FLIGHT_PER_WORKER:
            self._start(self._queue.popleft())

    def _start(self, task: Task) -> None:
        try:
            if self._given is not None:
                future = self._given.submit(task.function, task.argument)
            else:
                future = self._own_pool().submit(_timed, (task.function, task.argument, task.limit_s))
        except BrokenExecutor:  # broke since the last wait: its futures say so next time
            future = Future()
            future.set_exception(BrokenExecutor("the pool broke"))
        self._flying[future] = task

    def _report(self, task: Task, future: Future[Any]) -> Done:
        if error := future.exception():
            return Done(task.tag, None, error)
        if self._given is not None:
            return Done(task.tag, future.result())
        result, seconds = future.result()
        return Done(task.tag, result, None, seconds)

    def _own_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            with _signals_held():  # multiprocessing starts a process of its own that counts semaphores
                self._pool = ProcessPoolExecutor(self.workers, mp_context=self._context, initializer=_begin_work)
        return self._pool

    def _discard_pool(self) -> None:
        if self._pool is not None:
            self._context.kill_all()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def close(self, *, kill: bool = False) -> None:
        """Wait for the workers to end; with ``kill``, end them now. Unfinished tasks are forgotten."""
        self._queue.clear()
        self._suspects.clear()
        if not kill or self._pool is None:  # else the dying pool's own thread may meet a future that was cancelled
            for future in self._flying:
                future.cancel()
        self._flying.clear()
        if kill:
            self._discard_pool()
        elif self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _timed(call: tuple[Callable[[Any], Any], Any, float | None]) -> tuple[Any, float]:
    """Run a task and say how many seconds it took; runs in the worker."""
    function, argument, limit_s = call
    began = time.perf_counter()
    with _interrupted_after(limit_s if _is_worker else None):
        result = function(argument)
    return result, time.perf_counter() - began


@contextmanager
def _interrupted_after(limit_s: float | None) -> Iterator[None]:
    """Raise `SlideTimeoutError` where the code is after some seconds, and end the process if that does not help."""
    if limit_s is None:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise timeout_error(limit_s)

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - the traceback of a process that must end is of no use
        faulthandler.dump_traceback_later(limit_s + min(limit_s, _GRACE_S), exit=True, file=nowhere)
        try:
            if hasattr(signal, "SIGALRM"):
                signal.signal(signal.SIGALRM, interrupt)
                signal.setitimer(signal.ITIMER_REAL, limit_s)
            yield
        finally:
            if hasattr(signal, "SIGALRM"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()


def timeout_error(limit_s: float | None) -> SlideTimeoutError:
    """What is said of a slide that took too long."""
    return SlideTimeoutError(
        f"it was given up after {limit_s:,.0f} s of work; if such slides are wanted, give them more time with "
        "--slide-timeout. What was finished of it is not done again"
    )


#: Whether this process is a worker of a crew's own pool.
_is_worker = False


def _begin_work() -> None:
    """First thing in a worker: leave Ctrl-C to the parent, one thread to each library, and watch the parent's life.

    Libraries look when they are imported, which is when the first task arrives. Who sets a number is obeyed.
    """
    global _is_worker
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    silence_libraries()
    for name in _THREAD_COUNTS:
        os.environ.setdefault(name, "1")
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="wsicurate parent watch", daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when the parent's end of the pipe closes: that happens however the parent dies."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


class _WorkerContext(multiprocessing.context.SpawnContext):
    """Spawned processes that are known by name and do not run the user's script again.

    Spawning normally imports the parent's main script in the child, which breaks scripts without a main guard. Our
    tasks live in modules, so the main script is hidden while a worker is started.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[multiprocessing.context.SpawnProcess] = []

    def Process(self, *args: Any, **keywords: Any) -> multiprocessing.context.SpawnProcess:  # type: ignore[override]
        """A process, as `concurrent.futures` asks for it."""
        process = _Worker(*args, **keywords)
        self.processes.append(process)
        return process

    def kill_all(self) -> None:
        """End every process that was started, at once."""
        for process in self.processes:
            with suppress(ValueError, AttributeError):  # closed, or never started
                process.kill()
        self.processes.clear()


class _Worker(multiprocessing.context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _hidden_main(), _signals_held(), _start_method_kept():
            return multiprocessing.context.SpawnProcess._Popen(process_obj)


@contextmanager
def _hidden_main() -> Iterator[None]:
    with _main_lock:  # else the second of two threads would take the first one's for the script, and put it there
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def _start_method_kept() -> Iterator[None]:
    """Starting a process fixes the program's default way of starting them: leave it to be chosen, as it was."""
    before: str | None = multiprocessing.get_start_method(allow_none=True)
    try:
        yield
    finally:
        if before is None:
            multiprocessing.set_start_method(None, force=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Within it, signals to end wait; a process that is started has them blocked until it says otherwise.

    Ctrl-C reaches workers that are still importing, which would print a traceback each.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
