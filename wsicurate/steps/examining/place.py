"""The disk that a store is to lie on: room, speed, and what the file system guarantees."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wsicurate.steps.examining.finding import Finding
from wsicurate.store.file_system import sync_folder
from wsicurate.store.leases import Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes

#: What is written and read to tell the speed, bytes.
_TRIAL_BYTES = 64 * 2**20

#: Below this, MB a second, the disk is slower than a core cuts patches.
_SLOW_MB_S = 50.0


def place(store: Path, megabytes: float | None) -> Iterator[Finding]:
    """Examine the nearest folder above ``store`` that is there.

    Args:
        store: where the store lies or is to lie.
        megabytes: what is to be written to it; None where that is not known.
    """
    folder = next(each for each in (store, *store.parents) if each.is_dir())
    if not os.access(folder, os.W_OK):
        fix = "choose another place, or ask who owns it"
        yield Finding(part="disk", state="fault", what=f"{folder} cannot be written to", fix=fix)
        return
    free = shutil.disk_usage(folder).free / 1e6
    what = f"{free / 1e3:,.1f} GB free in {folder}"
    if megabytes is not None:
        what += f", and the patches need some {megabytes / 1e3:,.3f} GB"
    if megabytes is not None and megabytes > free:
        fix = "use another disk, --max-patches-per-slide, or --codec none, which stores coordinates alone"
        yield Finding(part="disk", state="fault", what=what, fix=fix)
    else:
        yield Finding(part="disk", state="ok", what=what)
    with tempfile.TemporaryDirectory(prefix=".wsicurate-doctor-", dir=folder) as trial:
        yield _speed(Path(trial))
        yield from _semantics(Path(trial))


def _speed(folder: Path) -> Finding:
    """Write to the disk itself, and read again."""
    data, path = os.urandom(2**20), folder / "trial"
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(_TRIAL_BYTES // len(data)):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    written = _TRIAL_BYTES / 1e6 / (time.perf_counter() - began)
    began = time.perf_counter()
    for number in range(20):
        (folder / f"small{number}").write_bytes(b"x")
        sync_folder(folder)
    small = 20 / (time.perf_counter() - began)
    what = f"writes {written:,.0f} MB/s, flushed, and {small:,.0f} small files a second"
    if written < _SLOW_MB_S:
        fix = "a local disk is faster; --codec none writes coordinates alone"
        return Finding(part="disk", state="warning", what=what, fix=fix)
    return Finding(part="disk", state="ok", what=what)


def _semantics(folder: Path) -> Iterator[Finding]:
    """What several runs on one store rely on: a name is taken once, a rename is whole, a lease has one holder."""
    store = LocalBytes(folder)
    first, second = store.put_if_absent("once", b"1"), store.put_if_absent("once", b"2")
    one, other = Leases(store), Leases(store)
    lease, refused = one.acquire("work"), other.acquire("work")
    one.close()
    other.close()
    store.put("value", [b"old"])
    store.put("value", [b"new"])
    is_once = (first, second, store.get("once")) == (True, False, b"1")
    if is_once and isinstance(lease, Lease) and isinstance(refused, Holder) and store.get("value") == b"new":
        what = "names are given once, files are replaced as a whole: several runs can share a store"
        yield Finding(part="disk", state="ok", what=what)
        return
    yield Finding(
        part="disk",
        state="fault",
        what="the file system gives a name twice, or replaces files in parts: runs would destroy each other's work",
        fix="use another file system, or one run at a time on a local disk",
    )
