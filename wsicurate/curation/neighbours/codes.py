"""Unit vectors as 8-bit codes, whose products are whole numbers: a search proposes with them, exact scores decide.

A random rotation spreads what lies in a few dimensions over all, so that one step fits every vector, and the numbers of
a rotated unit vector scatter as 1 / sqrt(d) (as in RaBitQ, Gao and Long 2024). A code is the rotated vector in steps of
1 / (25 sqrt(d)); what lies five scatters out is cut off. A cosine by codes is off by 0.016 / sqrt(d), standard
deviation: 0.0008 for 384 dimensions.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.neighbours.blocks import on_grid

Codes = NDArray[np.int8]

#: Steps in a scatter of 1 / sqrt(d): 127 steps are five scatters.
_STEPS = 25.0

#: Rounds of signs, order and Hadamard transform that make a rotation.
_ROUNDS = 3

#: Rows that are rotated at once, in float64.
_ROTATED_ROWS = 1_024

#: Dimensions whose products float32 sums exactly: 1,024 times 128^2 is 2^24.
_EXACT_DIMENSIONS = 1_024


class Coder:
    """Codes for unit vectors of one length: the same ones on every processor.

    Args:
        dimensions: d.
        seed: of the rotation.
    """

    def __init__(self, dimensions: int, *, seed: int) -> None:
        self._rotation = on_grid(_rotation(dimensions, np.random.default_rng([seed, 8]))).astype(np.float64)
        self._steps = _STEPS * math.sqrt(dimensions)
        #: What a product of two codes is divided by to be a cosine.
        self.unit = _STEPS**2 * dimensions

    def __call__(self, units: NDArray[np.float32]) -> Codes:
        """Codes, int8 (n, d), of unit rows, float32 (n, d), as `blocks.unit_rows` makes them."""
        codes = np.empty(units.shape, dtype=np.int8)
        for start in range(0, len(units), _ROTATED_ROWS):
            rotated = units[start : start + _ROTATED_ROWS].astype(np.float64) @ self._rotation  # exact, see `blocks`
            rotated *= self._steps
            np.rint(rotated, out=rotated)
            codes[start : start + _ROTATED_ROWS] = np.clip(rotated, -127, 127, out=rotated)
        return codes


def _rotation(dimensions: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A random orthogonal matrix, (d, d): rounds of a random order, random signs and a Hadamard transform.

    Where d is no power of two, the first dimensions are transformed, as many as are one, and then the last as many. No
    linear algebra library is asked, whose last bits depend on the processor.
    """
    matrix = np.eye(dimensions)
    width = 1 << (dimensions.bit_length() - 1)
    for _ in range(_ROUNDS):
        matrix = matrix[:, random.permutation(dimensions)] * random.choice([-1.0, 1.0], size=dimensions)
        matrix[:, :width] = _hadamard(matrix[:, :width])
        if width < dimensions:
            matrix[:, -width:] = _hadamard(matrix[:, -width:])
    return matrix


def _hadamard(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The normalised Walsh-Hadamard transform of rows, (n, w), w a power of two."""
    count, width = rows.shape
    half = 1
    while half < width:
        pairs = rows.reshape(count, -1, 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        rows = np.stack([first + second, first - second], axis=2).reshape(count, width)
        half *= 2
    return rows / math.sqrt(width)


def products(some: Codes, others: Codes) -> NDArray[np.int32]:
    """All products of two sets of codes, (n, d) and (m, d): int32 (n, m), exact.

    By torch where its kernels for 8-bit products are exact (740 to 940 GFLOP/s a core with AVX-512 VNNI, where NumPy's
    float32 reaches 54), else as float32, which holds these sums exactly: the same numbers either way. To be called
    within `one_torch_thread` by threads that share the work.
    """
    # Of one dimension, torch 2.14 gives what was in the memory.
    by_torch = some.shape[1] > 1 and _torch_is_exact()
    return _by_torch(some, others) if by_torch else _by_numpy(some, others)


@cache
def _torch_is_exact() -> bool:
    """Whether torch has kernels for 8-bit products on this processor, and they do not saturate.

    Without VNNI, oneDNN's kernels for AVX2 and AVX-512 add two products in 16 bits and cut off what is above. Which
    kernels it takes depends on the processor, on ``ONEDNN_MAX_CPU_ISA`` and on the shape, so its products are tried.
    """
    import torch

    onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not (onednn and torch.backends.cpu.get_cpu_capability().startswith("AVX") and hasattr(torch, "_int_mm")):
        return False
    for rows, columns, dimensions in ((1, 1, 64), (3, 70, 67), (64, 1, 384), (128, 256, 384)):
        sign = np.where(np.arange(dimensions) % 5 == 4, -1, 1)
        some = np.tile((127 * sign).astype(np.int8), (rows, 1))
        others = (127 * np.where(np.arange(columns) % 2, -1, 1)[:, None] * sign).astype(np.int8)
        if not np.array_equal(_by_torch(some, others), _by_numpy(some, others)):
            return False
    return True


def _by_torch(some: Codes, others: Codes) -> NDArray[np.int32]:
    import torch

    multiplied: NDArray[np.int32] = torch._int_mm(torch.from_numpy(some), torch.from_numpy(others).T).numpy()
    return multiplied


def _by_numpy(some: Codes, others: Codes) -> NDArray[np.int32]:
    """float32 has 24 bits: sums over `_EXACT_DIMENSIONS` are exact, and the sums of these are whole numbers again."""
    total = np.zeros((len(some), len(others)), dtype=np.int32)
    for start in range(0, some.shape[1], _EXACT_DIMENSIONS):
        here = slice(start, start + _EXACT_DIMENSIONS)
        total += (some[:, here].astype(np.float32) @ others[:, here].astype(np.float32).T).astype(np.int32)
    return total
