"""How the command ends: every exception and signal is one line on standard error and an exit status.

0: all done. 1: nothing could be done, or an unexpected error. 2: wrong usage. 3: done, but some slides failed or were
skipped. 128 + n: ended by signal n.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from typer.core import TyperGroup

from wsicurate import errors
from wsicurate.streams import printable, safe_streams

#: Errors that say that the command was used wrongly.
WRONG_USAGE = (
    errors.ConfigError,
    errors.SlideTableError,
    errors.PatchImportError,
    errors.StoreNotFoundError,
    errors.StoreFormatError,
    errors.StoreSettingsError,
)

#: The signal after which the command ends without tidying up, for those who cannot wait.
_LAST_SIGNAL = 3


class Command(TyperGroup):
    """The command: `main` never raises anything but `SystemExit`."""

    def main(self, *arguments: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Parse, run, print, and end with a status."""
        run: Callable[[], Any] = partial(super().main, *arguments, **{**extra, "standalone_mode": False})
        if not standalone_mode:
            return run()
        with safe_streams() as (out, _), _signals() as received:
            try:
                status = run()
            except BaseException as error:  # of an interrupt, whatever it led to on its way
                status = 128 + signal.SIGINT if received else _ended_by(error)
            if received or status == 128 + signal.SIGINT:  # typer makes the latter of any KeyboardInterrupt
                complain("interrupted; what is finished stays, and the same command goes on from there")
                status = 128 + (received[0] if received else signal.SIGINT)
            out.flush()
            if out.failure is not None and not status:
                complain(f"standard output cannot be written: {out.failure.strerror or out.failure}")
                status = 1
        sys.exit(status if isinstance(status, int) else 0)


def complain(message: str) -> None:
    """Print an error to standard error, on one line."""
    from wsicurate.console.terminal import complain

    complain(message)


class _Ended(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Within it, the first signal that asks to end raises `_Ended`; while that is tidied up, the second is ignored.

    Ctrl-C in a terminal reaches every process of the command, and people press it twice. Whoever insists a third time
    is let go without tidying up: workers end with their parent, and a later run takes over what is held.

    Yields:
        The signals that came, in their order.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            raise _Ended(number)
        if len(received) >= _LAST_SIGNAL:
            os._exit(128 + number)

    def unraisable(unraisable: Any) -> None:
        """An interrupt that came while an object was being destroyed is lost: raise it again, a moment later."""
        if isinstance(unraisable.exc_value, _Ended):
            received.clear()
            main = threading.main_thread().ident
            again = threading.Timer(0.02, signal.pthread_kill, [main, unraisable.exc_value.number])
            again.daemon = True
            again.start()
        else:
            hook(unraisable)

    hook = sys.unraisablehook
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup, jobs in the background
            before[number] = signal.signal(number, end)
    sys.unraisablehook = unraisable
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended_by(error: BaseException) -> int:
    """Say what ended the command, and the status that it ends with."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return 128 + signal.SIGINT
    if isinstance(error, errors.WsicurateError):
        complain(str(error))
        return 2 if isinstance(error, WRONG_USAGE) else 1
    if callable(getattr(error, "format_message", None)):  # typer's, whose class has moved between its versions
        return _usage(error)
    if isinstance(error, OSError) and error.errno is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        complain(": ".join([error.strerror or str(error), *names]))
        return 1
    if isinstance(error, MemoryError):
        complain(f"there is not enough memory: {error or 'use fewer --workers'}")
        return 1
    complain(f"unexpected {type(error).__name__}: {error}; please report it, with {_report(error)}")
    return 1


def _usage(error: Any) -> int:
    """What typer says of wrong usage."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
    elif context is not None:
        print(context.get_usage(), file=sys.stderr)
        print(f"Try '{printable(context.command_path)} --help' for help.\n", file=sys.stderr)
    if type(error).__name__ != "NoArgsIsHelpError":
        print(f"Error: {printable(error.format_message())}", file=sys.stderr)
    return int(error.exit_code)


def _report(error: BaseException) -> str:
    """Write the traceback into a file; where it lies, in words."""
    text = "".join(traceback.format_exception(error))
    with suppress(OSError):
        number, path = tempfile.mkstemp(prefix="wsicurate-error-", suffix=".txt")
        os.close(number)
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
        return f"the traceback in {path}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "this message"
    return f"the place: {where}"
