"""Names in a store's folders that are no keys: those of half-written values, and of fences."""

from __future__ import annotations

import itertools

from wsicurate.store.bytestore import FENCE
from wsicurate.store.owners import Owner, this_process

#: How the names of half-written values begin.
_PARTIAL = ".partial-"

_serial = itertools.count()


def partial_name() -> str:
    """A new name for a half-written value, which says whose it is."""
    owner = this_process()
    return f"{_PARTIAL}{owner.machine}-{owner.pid}-{owner.started}-{next(_serial)}"


def owner_of(name: str) -> Owner | None:
    """The process that wrote a half-written value, by its name; None if that cannot be understood."""
    try:
        machine, pid, started, _ = name.removeprefix(_PARTIAL).split("-")
        return Owner(host="", machine=machine, pid=int(pid), started=started)
    except ValueError:
        return None


def is_partial(name: str) -> bool:
    """Whether a name is that of a half-written value."""
    return name.startswith(_PARTIAL)


def is_fence(name: str) -> bool:
    """Whether a name is that of a fence."""
    return name.startswith(FENCE)


def is_hidden(name: str) -> bool:
    """Whether a name is that of a half-written value or a fence."""
    return name.startswith((_PARTIAL, FENCE))
