"""What was found, and examinations that cannot fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from wsicurate.errors import with_name

#: ``ok``; ``warning``: something will not work, or slowly, that not everybody needs; ``fault``: nothing useful will.
State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what it belongs to: ``libraries``, ``readers``, ``codecs``, ``device``, ``hub``, ``disk``.
        state: see `State`.
        what: a sentence.
        fix: what to do; empty where nothing is to be done.
    """

    part: str
    state: State
    what: str
    fix: str = ""


#: An examination: it yields findings, and may raise anything.
Examination = Callable[[], Iterable[Finding]]


def examined(part: str, examination: Examination, *, fix: str) -> Iterator[Finding]:
    """What an examination finds; whatever it raises is a fault, so that the others go on.

    Args:
        part: of the fault.
        examination: to be made.
        fix: what to do when it breaks.
    """
    try:
        yield from examination()
    except (Exception, SystemExit) as error:  # broken libraries raise everything
        yield Finding(part=part, state="fault", what=with_name(error), fix=fix)
