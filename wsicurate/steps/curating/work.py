"""What the stages of a curation work with, besides its inputs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from wsicurate.engine.cache import Stages
from wsicurate.steps.curating.pool import Scratch


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage of a curation works with.

    Attributes:
        stages: keeps results of long computations.
        scratch: where vectors are laid out.
        executor: compares pixels, where it is not a pool of processes.
        notes: takes what the user should know.
        say: takes a sentence for the user.
        count: takes what is counted, how many are done, and of how many.
    """

    stages: Stages
    scratch: Scratch
    executor: Executor | None
    notes: list[str]
    say: Callable[[str], None]
    count: Callable[[str, int, int], None]
