"""Taking away what runs that were killed left behind, at the beginning and at the end of every run that writes."""

from __future__ import annotations

import contextlib

from wsicurate.errors import LinkedPathError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.commit import remove_work
from wsicurate.store.committed import is_committed
from wsicurate.store.layout import SCRATCH, UNFINISHED, WORK, work_path
from wsicurate.store.leases import Holder, Leases, lower_stale_fences
from wsicurate.store.root import restore_groups


def tidy(store: ByteStore) -> None:
    """Remove half-written values, leases and fences of dead runs, finished slides' work, arrays of curations.

    What a live run holds is left alone, and so is unfinished work that the next run goes on from.

    Raises:
        StoreWriteError: if the store cannot be written.
    """
    store.remove_orphans()
    restore_groups(store)
    leases = Leases(store)
    try:
        with contextlib.suppress(LinkedPathError):
            lower_stale_fences(store, WORK)
        for key in store.children(WORK):
            with contextlib.suppress(LinkedPathError):  # it stays, and `check` names it
                _tidy_work(store, leases, key)
    finally:
        leases.close()


def _tidy_work(store: ByteStore, leases: Leases, key: str) -> None:
    folder = work_path(key)
    values = store.children(folder)
    work_is_done_with = is_committed(store, key) and any(value.endswith(UNFINISHED) for value in values)
    lease_is_left = any(value.startswith("lease-") for value in values)
    scratch = [value for value in values if value.endswith(SCRATCH)]
    if leases.holder(folder) or not (work_is_done_with or lease_is_left or scratch):
        return
    lease = leases.acquire(folder)  # takes over from the dead
    if isinstance(lease, Holder):
        return
    ours = store.fenced(lease.fence)
    try:
        if is_committed(store, key):
            remove_work(ours, key)
        for value in scratch:
            ours.delete(f"{folder}/{value}")
    finally:
        leases.release(lease)
