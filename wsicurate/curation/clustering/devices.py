"""Where clustering runs: ``auto`` is an NVIDIA GPU where there is one, else the CPU.

Loading torch takes seconds, so it is not asked where there is no driver.
"""

from __future__ import annotations

from pathlib import Path

#: The kernel driver's file; without it there is no NVIDIA GPU to find.
NVIDIA_DRIVER = Path("/dev/nvidiactl")


def resolve_device(device: str) -> str:
    """The device that a setting names.

    Args:
        device: ``auto``, ``cpu``, or what torch calls an accelerator: ``cuda``, ``cuda:1``, ``mps``.

    Returns:
        The same, with ``auto`` decided: ``cuda`` if torch sees one, else ``cpu``.
    """
    if device != "auto":
        return device
    if not NVIDIA_DRIVER.exists():
        return "cpu"
    from wsicurate.curation.clustering import gpu

    return "cuda" if gpu.has_cuda() else "cpu"
