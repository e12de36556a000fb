"""Leases: who works on what, so that several runs can fill one store.

A lease of generation g is the value ``<folder>/lease-g``; the highest generation counts. To take over from a dead
holder is to create generation g + 1, which exactly one of several claimants can. A holder renews its lease by
rewriting it, and writes everything that the lease is about through the lease's fence (see `ByteStore`). Whoever takes
over lowers the fences of all earlier generations before anything else, so that a holder that was only asleep can
neither replace nor delete what its successor writes: it gets `LeaseLostError`.

A holder on the same machine is dead when its process is. One elsewhere, or one that hangs, is taken for dead when its
lease was seen unchanged for `EXPIRY_S` by the claimant's own clock; the clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wsicurate.errors import LeaseLostError, StoreWriteError
from wsicurate.store.bytestore import FENCE, ByteStore
from wsicurate.store.owners import Owner, this_process

EXPIRY_S = 60.0
RENEWAL_S = 10.0

_POLL_S = 0.1

_NAME = re.compile(r"lease-([0-9]{6,9})")


@dataclass(frozen=True)
class Lease:
    """A lease that is held.

    Attributes:
        folder: what it is on: the folder in which it lies.
        generation: its number.
        token: what only the holder knows.
    """

    folder: str
    generation: int
    token: str

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"{self.folder}/lease-{self.generation:06d}"

    @property
    def fence(self) -> str:
        """The fence through which its holder writes."""
        return f"{self.folder}/{FENCE}{self.generation:06d}-{self.token}"


@dataclass(frozen=True)
class Holder:
    """Somebody else, who holds a lease."""

    owner: Owner

    def __str__(self) -> str:
        return str(self.owner)


class Leases:
    """The leases of one run: it acquires them, keeps them fresh from a thread, and gives them back.

    Args:
        store: where they lie.
        clock: seconds that only go forward.
        expiry_s: after how long an unchanged lease is dead; `EXPIRY_S` by default.
        renewal_s: how often held leases are renewed; `RENEWAL_S` by default.
    """

    def __init__(
        self,
        store: ByteStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        expiry_s: float | None = None,
        renewal_s: float | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._expiry_s = EXPIRY_S if expiry_s is None else expiry_s
        self._renewal_s = RENEWAL_S if renewal_s is None else renewal_s
        self._held: dict[str, Lease] = {}
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()
        self._beat = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, folder: str) -> Lease | Holder:
        """Take the lease on ``folder``, or say who has it.

        Raises:
            StoreWriteError: if the store cannot be written.
        """
        generation = self._generation(folder)
        before = Lease(folder, generation, "")
        if generation:
            value = self._value_at(before)
            if value is None:
                return self.acquire(folder)  # given back just now
            holder = _holder(value)
            if holder is not None and not self._is_dead(before.key, value, holder.owner):
                return holder
        lease = Lease(folder, generation + 1, secrets.token_hex(8))
        if not self._store.put_if_absent(lease.key, self._value(lease)):
            return self.acquire(folder)
        self._store.raise_fence(lease.fence)
        is_ours = is_current(self._store, lease)  # asked once the fence stands: who overtakes us later lowers it
        if not is_ours or (generation and self._value_at(before) not in (value, None)):
            if is_ours:  # the old one was given back and taken anew while we looked: not dead at all
                self._delete_fenced(lease, lease.generation)
            self._store.lower_fence(lease.fence)
            return self.acquire(folder)
        lower_stale_fences(self._store, folder, before=lease.generation)
        with self._lock:
            self._held[folder] = lease
        self._start_renewing()
        return lease

    def claim(self, folder: str) -> Lease | Holder:
        """Take the lease on ``folder`` as soon as its holder is dead, or say who has it and was seen to be alive.

        Waits for `EXPIRY_S` at most: until the holder renews its lease, gives it back, or proves to be dead.

        Raises:
            StoreWriteError: if the store cannot be written.
        """
        first_seen: bytes | None = None
        while isinstance(found := self.acquire(folder), Holder):
            value = self._value_at(Lease(folder, self._generation(folder), ""))
            first_seen = first_seen or value
            if value is not None and value != first_seen:
                return found
            time.sleep(min(_POLL_S, self._expiry_s / 4))
        return found

    def release(self, lease: Lease) -> None:
        """Give a lease back, and remove those that it superseded. Does nothing if it was taken over."""
        with self._lock:
            self._held.pop(lease.folder, None)
            if is_current(self._store, lease):
                for generation in _generations(self._store, lease.folder):
                    if generation <= lease.generation:
                        self._delete_fenced(lease, generation)
            self._store.lower_fence(lease.fence)

    def close(self) -> None:
        """Stop renewing and give everything back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for lease in list(self._held.values()):
            with contextlib.suppress(StoreWriteError):
                self.release(lease)

    def holder(self, folder: str) -> Holder | None:
        """Who holds the lease on ``folder``, alive as far as is known; None if no one."""
        generation = self._generation(folder)
        if not generation:
            return None
        lease = Lease(folder, generation, "")
        value = self._value_at(lease)
        holder = None if value is None else _holder(value)
        return None if value is None or holder is None or self._is_dead(lease.key, value, holder.owner) else holder

    def _delete_fenced(self, lease: Lease, generation: int) -> None:
        with contextlib.suppress(LeaseLostError):  # then it is its successor's to remove
            self._store.fenced(lease.fence).delete(Lease(lease.folder, generation, "").key)

    def _value_at(self, lease: Lease) -> bytes | None:
        try:
            return self._store.get(lease.key)
        except KeyError:
            return None

    def _is_dead(self, key: str, value: bytes, owner: Owner) -> bool:
        if owner.is_dead():
            return True
        now = self._clock()
        seen, since = self._seen.get(key, (b"", now))
        if seen != value:
            self._seen[key] = (value, now)
            return False
        return now - since > self._expiry_s

    def _generation(self, folder: str) -> int:
        return max(_generations(self._store, folder), default=0)

    def _value(self, lease: Lease) -> bytes:
        return json.dumps(
            {"token": lease.token, "beat": self._beat, "owner": dataclasses.asdict(this_process())}
        ).encode()

    def _start_renewing(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew_until_closed, name="wsicurate leases", daemon=True)
            self._thread.start()

    def _renew_until_closed(self) -> None:
        while not self._stop.wait(self._renewal_s):
            self._beat += 1
            for lease in list(self._held.values()):
                with self._lock, contextlib.suppress(StoreWriteError, OSError, LeaseLostError):
                    # The main thread meets the same full disk and reports it; a lease that was
                    # given back or taken over meanwhile is not brought to life again: its fence is down.
                    if lease.folder in self._held and is_current(self._store, lease):
                        self._store.fenced(lease.fence).put(lease.key, [self._value(lease)])


def is_current(store: ByteStore, lease: Lease) -> bool:
    """Whether ``lease`` still stands: no other run took it over."""
    try:
        value: Any = json.loads(store.get(lease.key))
        token = value["token"]
    except (KeyError, ValueError, TypeError):
        return False
    return bool(token == lease.token) and max(_generations(store, lease.folder), default=0) == lease.generation


def lower_stale_fences(store: ByteStore, prefix: str, *, before: int | None = None) -> None:
    """Lower the fences below a prefix whose leases are gone, or of an earlier generation than ``before``.

    A lease is there before its fence is raised, and goes before it is lowered: a fence without one is of a dead run,
    or of one that is about to find out that it was overtaken.
    """
    for fence in store.fences(prefix):
        folder, _, name = fence.rpartition("/")
        generation = name.removeprefix(FENCE).split("-")[0]
        if before is None:
            is_stale = not generation.isdigit() or int(generation) not in _generations(store, folder)
        else:
            is_stale = not generation.isdigit() or int(generation) < before
        if is_stale:
            store.lower_fence(fence)


def _generations(store: ByteStore, folder: str) -> list[int]:
    """Generations of the leases in a folder, ascending; what else lies there is none of ours."""
    found = (_NAME.fullmatch(name) for name in store.children(folder))
    return sorted(int(match[1]) for match in found if match)


def _holder(value: bytes) -> Holder | None:
    try:
        return Holder(Owner(**json.loads(value)["owner"]))
    except (ValueError, KeyError, TypeError):
        return None
