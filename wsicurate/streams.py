"""The command's standard streams: what is printed is printable, and printing never fails.

File names, and whatever a slide, a table or an image says, may hold anything: escape sequences that rewrite a terminal,
signs that turn the direction of text, line breaks, bytes of no encoding. `printable` is the one place where they are
made harmless.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


def printable(text: str) -> str:
    r"""Text on one line, every sign that does not show written as its escape: ``\x1b``, ``\n``, ``\u202e``.

    Those are controls, what turns the direction of text, separators other than the space, surrogates (bytes of a file
    name that are no UTF-8), and signs that Unicode does not know.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class SafeStream:
    """A text stream that takes anything and never raises.

    What its encoding does not have is escaped. When the reader has gone, or the disk is full, the rest is dropped:
    a run of hours does not end because its progress cannot be shown.

    Args:
        stream: where text goes; None (closed before the start) drops all.

    Attributes:
        failure: why something was dropped, if it was for another reason than a reader that went away.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.errors = "backslashreplace"

    def write(self, text: str) -> int:
        """Write as much as can be."""
        with self._dropping():
            if self._stream is not None:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._dropping():
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                self.failure = error
            self._silence()

    def _silence(self) -> None:
        """Send the rest to nowhere, the interpreter's own flush at its end included."""
        stream, self._stream = self._stream, None
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # else typer writes past us
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def safe_streams() -> Iterator[tuple[SafeStream, SafeStream]]:
    """Within it, standard output and error are `SafeStream`."""
    before = sys.stdout, sys.stderr
    ours = SafeStream(sys.stdout), SafeStream(sys.stderr)
    sys.stdout, sys.stderr = ours
    try:
        yield ours
    finally:
        for stream in ours:
            stream.flush()
        sys.stdout, sys.stderr = before


def fill_closed_descriptors() -> None:
    """Open ``/dev/null`` where standard streams were closed, so that no file of a store gets their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def silence_libraries() -> None:
    """Keep warnings and logs of libraries off a standard error that is ours: the command's, and its workers'.

    They repeat what files say, as it stands there. What matters in them is in our own messages.
    """
    if not sys.warnoptions:  # whoever asked for warnings gets them
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # else those without a handler are printed
