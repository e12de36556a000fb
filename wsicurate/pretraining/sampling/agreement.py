"""Processes that train together must make the same batches: asked once, before the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import distributed

from wsicurate.errors import ConfigError
from wsicurate.pretraining.sampling.settings import differences


def require_agreement(rank: int, settings: Mapping[str, Any], group: Any = None) -> None:
    """Compare the settings of all processes of a group; each must call it.

    Args:
        rank: number of this process's share of every batch.
        settings: of this process, ``world_size`` among them.
        group: of `torch.distributed`; None means all processes.

    Raises:
        ConfigError: the same in all processes, if settings differ, or shares are taken twice or by none.
    """
    records: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(records, (rank, dict(settings)), group)
    problem = disagreement(records)
    if problem is not None:
        raise ConfigError(problem)


def disagreement(records: Sequence[tuple[int, Mapping[str, Any]]]) -> str | None:
    """What is wrong with the rank and settings of each process, in their order; None if nothing is."""
    first = records[0][1]
    for process, (_, settings) in enumerate(records):
        found = differences(first, settings, "in process 0", f"in process {process}")
        if found:
            return f"the processes make different batches: {'; '.join(found)}. Give all of them the same"
    if first["world_size"] != len(records):
        return (
            f"world_size is {first['world_size']}, and {len(records)} processes train together; give world_size="
            f"{len(records)}, or call agree() with the group of processes that share the batches"
        )
    ranks = [rank for rank, _ in records]
    for rank in range(len(records)):
        processes = [str(process) for process, one in enumerate(ranks) if one == rank]
        if len(processes) > 1:
            return f"rank {rank} is that of the processes {' and '.join(processes)}; give each a rank of its own"
    return None
