"""Which of the processes that train together this one is."""

from __future__ import annotations

from torch import distributed

from wsicurate.errors import ConfigError


def are_distributed() -> bool:
    """Whether `torch.distributed` is initialised in this process."""
    return distributed.is_available() and distributed.is_initialized()


def place_among_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Number of this process and of all of them: as given, as `torch.distributed` says, or the only one.

    Raises:
        ConfigError: if only one of the two is given, or they do not fit.
    """
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank is {rank!r} and world_size {world_size!r}; give both, or neither")
    if rank is None or world_size is None:
        if are_distributed():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank is {rank!r} of {world_size!r} processes; ranks count from 0 to world_size - 1")
    return rank, world_size
