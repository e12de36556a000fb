"""Where everything that the command prints goes: names and messages as they are, on one line."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from wsicurate.streams import printable

#: Width of tables where there is no terminal.
_PIPE_COLUMNS = 180


class _Console(Console):
    """Prints every string as it is: without markup or emoji, and with signs that do not show escaped.

    Names of files, and what slides, tables and images say, reach the terminal here alone.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, markup=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text on one line, as it is."""
        return super().render_str(printable(text), **options)


def out() -> Console:
    """The console of results: standard output, as wide as the terminal, and wide enough for names in a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return _Console(width=None if is_terminal else _PIPE_COLUMNS, soft_wrap=not is_terminal)


def complain(message: str) -> None:
    """Print an error to standard error."""
    _Console(stderr=True, soft_wrap=True).print(coloured("error:", "red"), message)


def coloured(words: str, colour: str) -> Text:
    """Words in a colour, with signs that do not show escaped."""
    return Text(printable(words), style=colour)


def duration(seconds: float) -> str:
    """Seconds as ``minutes:seconds``, or with hours before."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
