"""Descriptors for tests: found by ``descriptor:tests.embedding.double:NAME``, in worker processes as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MeanColour:
    name: str = "mean-colour"
    version: int = 1
    dim: int = 3

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return patches.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


@dataclass(frozen=True)
class Constant(MeanColour):
    name: str = "constant"

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ones((len(patches), 3), dtype=np.float32)


@dataclass(frozen=True)
class Broken(MeanColour):
    name: str = "broken"

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(patches), 3), np.nan, dtype=np.float32)


_calls: list[int] = []


@dataclass(frozen=True)
class SometimesZero(MeanColour):
    """Gives one vector of zeros, in the first block that a process describes."""

    name: str = "sometimes-zero"

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = super().__call__(patches)
        if not _calls:
            vectors[1] = 0
        _calls.append(1)
        return vectors
