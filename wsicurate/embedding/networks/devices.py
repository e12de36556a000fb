"""The devices of this machine, described."""

from __future__ import annotations

import torch


def gpus() -> list[str]:
    """A line for each GPU that torch sees: its name, and how much of its memory is free; empty where there is none."""
    if torch.backends.mps.is_available():
        return [f"Apple's GPU, torch {torch.__version__}"]
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        found.append(f"{torch.cuda.get_device_name(number)}, {memory}, torch {torch.__version__}")
    return found


def torch_version() -> str:
    """The version of torch, with what it was built for."""
    return str(torch.__version__)
