"""How the command ends, whatever happens: one line, a status, nothing raw on the terminal."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import wsicurate.steps.info as info_module
from tests.conftest import REPOSITORY
from wsicurate import errors
from wsicurate.cli import app
from wsicurate.console.progress import ProgressDisplay
from wsicurate.console.slides import show_tiled
from wsicurate.console.terminal import complain
from wsicurate.engine.progress import Progress, SlideOutcome
from wsicurate.steps.tile import TileReport
from wsicurate.streams import SafeStream, printable

HOSTILE = "a\x1b[2J\x07\r\nb\u202ec\u2028d\x9b31m\u200be\udcff[red]f[/b]:smile:\\[x]"


def info_that(monkeypatch: pytest.MonkeyPatch, act: Any) -> Result:
    """`wsicurate info` with something else in the place of the step."""
    monkeypatch.setattr(info_module, "info", act)
    return CliRunner().invoke(app, ["info", "store"])


def raises(error: BaseException) -> Any:
    def act(store: Path) -> None:
        raise error

    return act


def lines_of(result: Result) -> list[str]:
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (errors.ConfigError("--x is 5; give 4"), 2, "error: --x is 5; give 4"),
        (errors.NothingToDoError("nothing"), 1, "error: nothing"),
        (errors.StoreWriteError("a: disk full"), 1, "error: a: disk full"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 1, "error: No space left on device: /a/b"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 1, "error: File name too long: xxx"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 1, "error: Permission denied: /a"),
        (MemoryError(), 1, "error: there is not enough memory"),
        (KeyboardInterrupt(), 130, "error: interrupted; what is finished stays"),
        (
            errors.SlideError(HOSTILE),
            1,
            r"error: a\x1b[2J\x07\r\nb\u202ec\u2028d\x9b31m\u200be\udcff[red]f[/b]:smile:\[x]",
        ),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_is_raised_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, words: str
) -> None:
    ended = info_that(monkeypatch, raises(error))
    assert ended.exit_code == status
    (line,) = lines_of(ended)
    assert line.startswith(words)


@pytest.mark.parametrize(
    "error", [KeyError(HOSTILE), RecursionError("deep"), ZeroDivisionError(), AssertionError(), OSError("x")]
)
def test_the_unexpected_is_one_line_and_a_file_to_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = info_that(monkeypatch, raises(error))
    (line,) = lines_of(ended)
    (report,) = tmp_path.iterdir()
    assert ended.exit_code == 1
    assert line.startswith(f"error: unexpected {type(error).__name__}: ")
    assert line.endswith(f"please report it, with the traceback in {report}")
    assert "Traceback (most recent call last)" in report.read_text() and "test_command.py" in report.read_text()


def test_the_unexpected_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    (line,) = lines_of(info_that(monkeypatch, raises(KeyError("x"))))
    assert "please report it, with the place: " in line and "test_command.py" in line


@pytest.fixture
def handlers() -> Iterator[dict[int, Any]]:
    """Handlers of signals, which a command leaves as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hook = sys.unraisablehook
    yield before
    assert before == {number: signal.getsignal(number) for number in before}
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_its_status(
    monkeypatch: pytest.MonkeyPatch, handlers: dict[int, Any], number: signal.Signals
) -> None:
    ended = info_that(monkeypatch, lambda store: signal.raise_signal(number))
    assert ended.exit_code == 128 + number
    assert lines_of(ended) == ["error: interrupted; what is finished stays, and the same command goes on from there"]


def test_a_second_signal_does_not_disturb_the_tidying_up(
    monkeypatch: pytest.MonkeyPatch, handlers: dict[int, Any]
) -> None:
    tidied: list[str] = []

    def act(store: Path) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            tidied.append("all of it")

    ended = info_that(monkeypatch, act)
    assert ended.exit_code == 130 and tidied == ["all of it"] and len(lines_of(ended)) == 1


def test_what_an_interrupt_leads_to_is_an_interrupt(monkeypatch: pytest.MonkeyPatch, handlers: dict[int, Any]) -> None:
    def act(store: Path) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise RuntimeError("cannot join thread before it is started")

    ended = info_that(monkeypatch, act)
    assert ended.exit_code == 143 and len(lines_of(ended)) == 1 and "interrupted" in ended.stderr


@pytest.mark.filterwarnings("ignore")  # pytest's own hook counts the exception
def test_an_interrupt_that_python_swallows_comes_again(
    monkeypatch: pytest.MonkeyPatch, handlers: dict[int, Any]
) -> None:
    class Ends:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def act(store: Path) -> None:
        Ends()  # destroyed at once: what is raised there is printed and forgotten
        time.sleep(5)
        raise AssertionError("it went on")

    ended = info_that(monkeypatch, act)
    assert ended.exit_code == 130 and len(lines_of(ended)) == 1


def test_nohup_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def act(store: Path) -> None:
            signal.raise_signal(signal.SIGHUP)
            raise errors.ConfigError("it went on")

        assert lines_of(info_that(monkeypatch, act)) == ["error: it went on"]
    finally:
        signal.signal(signal.SIGHUP, before)


@given(st.text())
def test_nothing_that_does_not_show_is_printed(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_hostile_names_do_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = SlideOutcome(
        slide_id="a", name=HOSTILE, status="failed", reason=HOSTILE, message=HOSTILE, dropped={HOSTILE: 3}, warnings=(HOSTILE,)
    )  # fmt: skip
    report = TileReport(store=Path(HOSTILE), outcomes=[outcome], unmatched=(), seconds=1.0, dry_run=False)
    show_tiled(report)
    with ProgressDisplay("tiling") as display:
        display(Progress(slides_done=1, slides_total=1, outcome=outcome, note=HOSTILE))
    complain(HOSTILE)
    out, err = capfd.readouterr()
    for text in (out, err):
        assert text.replace("\n", "").isprintable(), "signs that do not show"
        assert printable(HOSTILE) in text, "neither markup nor emoji is made of a name"


@pytest.mark.parametrize("arguments", [["info", "\x1b[2J"], ["\x1b[2J"], ["info", "--\x1b[2J"], ["info", "a", "\x1b[2J"], ["tile", "a", "-o", "b", "--mpp", "\x1b[2J"], ["check", "a", "--workers", "\x1b[2J"]])  # fmt: skip
def test_hostile_arguments_do_not_reach_the_terminal(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2 and "\x1b" not in ended.output and ended.output.replace("\n", "").isprintable()


class Broken(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_streams_never_raise() -> None:
    for number, counts in ((errno.EPIPE, False), (errno.EIO, False), (errno.ENOSPC, True), (errno.EDQUOT, True)):
        stream = SafeStream(Broken(number))
        for _ in range(2):
            assert stream.write("a") == 1
            stream.flush()
        assert (stream.failure is not None) == counts
    closed = io.StringIO()
    closed.close()
    for nowhere in (closed, None):
        stream = SafeStream(nowhere)
        stream.write("a")
        stream.flush()
        assert not stream.isatty() and stream.failure is None
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    SafeStream(ascii_only).write("5 µm \U0001f600 \udcff")
    ascii_only.flush()
    assert ascii_only.buffer.getvalue() == rb"5 \xb5m \U0001f600 \udcff"  # type: ignore[attr-defined]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in which $W is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "W": f"{sys.executable} -m wsicurate", "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("$W encoders | head -c 1; exit ${PIPESTATUS[0]}", 0, b""),
        ("$W encoders >&-", 0, b""),
        ("$W encoders >&- 2>&- <&-", 0, b""),
        ("$W encoders >/dev/full", 1, b"error: standard output cannot be written: No space left on device"),
        ("$W encoders >/dev/full 2>&1", 1, b""),
        ("$W tile --help | true; exit ${PIPESTATUS[0]}", 0, b""),
        ("$W tile --help >/dev/full", 1, b"error: standard output cannot be written: No space left on device"),
        ("$W info nowhere 2>&-", 2, b""),
        ("$W info nowhere 2>/dev/full", 2, b""),
    ],
)
def test_output_that_goes_nowhere(line: str, status: int, words: bytes) -> None:
    ended = shell(line)
    assert ended.returncode == status
    assert ended.stderr.strip() == words


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-16"])
def test_terminals_of_any_encoding(encoding: str) -> None:
    ended = shell("$W encoders && $W curate --help && $W info nöwhere-\udcff; true", PYTHONIOENCODING=encoding, TERM="")
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr + ended.stdout
    assert len(ended.stdout) > 2000


def test_a_file_of_a_store_does_not_become_the_standard_output(tmp_path: Path) -> None:
    """Where standard streams are closed, the first file that is opened gets their numbers."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, wsicurate.streams\n"
        "wsicurate.streams.fill_closed_descriptors()\n"
        "file = open(sys.argv[1], 'w')\n"
        "assert file.fileno() > 2\n"
    )
    line = f"{sys.executable} {script} {tmp_path / 'file'} <&- >&- 2>&-"
    assert shell(line).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2, 4])
def test_signals_at_any_time(small_slides: Path, tmp_path: Path, times: int) -> None:
    """To the whole group of processes, as a terminal sends them, workers that are just starting included."""
    for run in range(24):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[run % 3]
        command = [
            sys.executable,
            "-m",
            "wsicurate",
            "tile",
            small_slides,
            "-o",
            tmp_path / f"{run}.zarr",
            "--workers",
            "2",
        ]
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        time.sleep(0.1 + 0.08 * run)  # before that it is Python that is starting, not we
        for _ in range(times):
            if process.poll() is None:
                os.killpg(process.pid, number)
            time.sleep(0.02)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number), said
        assert "Traceback" not in said and "Exception" not in said, said
