from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wsicurate.engine.workers import Crew, Done
from wsicurate.errors import SlideChangedError, SlideTimeoutError, WorkerCrashedError


def work(argument: Any) -> Any:
    """What the workers are asked to do here."""
    match argument:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            raise SlideChangedError("a.svs changed")
        case "sleep":
            time.sleep(60)
        case "sleep deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # as a decoder that looks at no signal
            time.sleep(60)
        case "count threads":
            import numpy  # noqa: F401  (its BLAS is counted)
            from threadpoolctl import threadpool_info

            return [pool["num_threads"] for pool in threadpool_info()], os.environ["OPENBLAS_NUM_THREADS"]
        case "warn and log":
            warnings.warn("a file says \x1b[2J", stacklevel=1)
            logging.getLogger("of.a.library").error("a file says \x1b[2J")
        case _:
            time.sleep(0.01)
    return argument


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(2)
    yield crew
    crew.close(kill=True)


def run(crew: Crew, arguments: list[Any]) -> dict[int, Done]:
    for tag, argument in enumerate(arguments):
        crew.submit(work, argument, tag)
    reports: dict[int, Done] = {}
    deadline = time.monotonic() + 60
    while crew.load and time.monotonic() < deadline:
        for done in crew.finished(1.0):
            assert done.tag not in reports
            reports[done.tag] = done
    return reports


def test_everything_is_reported_once(crew: Crew) -> None:
    reports = run(crew, list(range(20)))
    assert [reports[tag].result for tag in range(20)] == list(range(20))
    assert all(report.error is None for report in reports.values())


def test_errors_arrive_as_they_were_raised(crew: Crew) -> None:
    reports = run(crew, [1, "fail", 3])
    assert isinstance(reports[1].error, SlideChangedError)
    assert str(reports[1].error) == "a.svs changed"
    assert reports[0].result == 1 and reports[2].result == 3


def test_libraries_have_one_thread_in_a_worker(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        monkeypatch.delenv(name, raising=False)
    [report] = run(crew, ["count threads"]).values()
    threads, told = report.result
    assert set(threads) == {1}
    assert told == "1"


def test_libraries_are_silent_in_a_worker(crew: Crew, capfd: pytest.CaptureFixture[str]) -> None:
    """What they say repeats what files say, on the terminal of the command."""
    assert run(crew, ["warn and log"])[0].error is None
    crew.close()
    assert "a file says" not in capfd.readouterr().err


def test_whoever_sets_a_number_of_threads_is_obeyed(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    [report] = run(crew, ["count threads"]).values()
    assert report.result[1] == "2"


def test_only_the_task_that_kills_its_process_is_lost(crew: Crew) -> None:
    reports = run(crew, [0, 1, "crash", 3, 4, 5, "crash", 7, 8, 9])
    assert {tag for tag, report in reports.items() if report.error} == {2, 6}
    assert isinstance(reports[2].error, WorkerCrashedError)
    assert [reports[tag].result for tag in (0, 1, 3, 4, 5, 7, 8, 9)] == [0, 1, 3, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("how", ["sleep", "sleep deaf"])
def test_a_task_that_takes_too_long_is_lost_alone(crew: Crew, how: str) -> None:
    run(crew, [0, 1])  # the workers have started
    began = time.monotonic()
    crew.submit(work, how, "long", limit_s=0.5)
    for number in range(6):
        crew.submit(work, number, number, limit_s=30)
    reports = {done.tag: done for _ in range(60) if crew.load for done in crew.finished(1.0)}
    assert isinstance(reports["long"].error, SlideTimeoutError)
    assert [reports[number].result for number in range(6)] == list(range(6))
    assert time.monotonic() - began < 20
    assert run(crew, [7])[0].result == 7  # limits end with their tasks


def test_the_seconds_of_a_task_are_reported(crew: Crew) -> None:
    assert 0.005 < run(crew, [1])[0].seconds < 10


def test_as_many_tasks_fly_as_the_executor_has_workers() -> None:
    with ThreadPoolExecutor(7) as threads:
        assert Crew(None, threads).workers == 7
        assert Crew(3, threads).workers == 3


def test_any_executor_will_do() -> None:
    with ThreadPoolExecutor(2) as threads:
        crew = Crew(2, threads)
        reports = run(crew, [1, "fail", 3])
        crew.close(kill=True)
        assert threads.submit(work, 5).result() == 5  # it is the caller's to close
    assert reports[2].result == 3
    assert isinstance(reports[1].error, SlideChangedError)


def test_closing_does_not_wait_for_what_runs() -> None:
    crew = Crew(2)
    run(crew, [1])
    crew.submit(work, "sleep", 0)
    began = time.monotonic()
    crew.close(kill=True)
    assert time.monotonic() - began < 10


def test_a_script_without_a_main_guard_works(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "import math\n"
        "from wsicurate.engine.workers import Crew\n"
        "crew = Crew(1)\n"
        "crew.submit(math.sqrt, 49, 0)\n"
        "while crew.load:\n"
        "    for done in crew.finished(1.0):\n"
        "        print(done.result)\n"
        "crew.close()\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == ["once", "7.0"]
