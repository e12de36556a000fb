"""Who wrote this, and is that process still alive? Asked of leases and of half-written files."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: its machine's name, for messages.
        machine: digest of host name, boot and process-id namespace: process ids are comparable where it is equal.
        pid: process id.
        started: when the process began, in the kernel's own clock; empty where it does not tell.
    """

    host: str
    machine: str
    pid: int
    started: str

    def is_dead(self) -> bool | None:
        """True or False for a process of this machine; None where that cannot be known."""
        if self.machine != _machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _start_of(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Owner:
    """The process that asks."""
    return _owner(os.getpid())


@functools.cache
def _owner(pid: int) -> Owner:
    return Owner(socket.gethostname(), _machine(), pid, _start_of(pid))


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        try:
            parts.append(str(path.readlink()) if path.is_symlink() else path.read_text().strip())
        except OSError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _start_of(pid: int) -> str:
    """Start time of a process in clock ticks since boot, where there is a /proc; a zombie counts as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]
