"""k-means on an accelerator, with torch: assignment and training by blocks of matrix products; and which one it is.

It runs on torch's CPU as well, which is how it is tested. Sums are kept as whole numbers (2^-32 is 1), so that they do
not depend on the order in which an accelerator's threads add.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import CurationError, in_words

if TYPE_CHECKING:
    import torch

#: Rows and centroids compared at once: 8,192 x 32,768 products are 1 GiB.
BLOCK_ROWS = 8_192
BLOCK_CENTROIDS = 32_768

#: Unit rows are summed as multiples of this; 2^31 rows fit into 63 bits.
SCALE = 2.0**32

#: Rounds in which centroids are seeded, as in `cells`.
SEEDING_ROUNDS = 16

#: The kernel driver's file; without it there is no NVIDIA GPU to find.
NVIDIA_DRIVER = Path("/dev/nvidiactl")


def resolve_device(device: str) -> str:
    """The device that a setting names: ``auto`` is an NVIDIA GPU where there is one, else the CPU.

    Loading torch takes seconds, so it is not asked where there is no driver.

    Args:
        device: ``auto``, ``cpu``, or what torch calls an accelerator: ``cuda``, ``cuda:1``, ``mps``.

    Returns:
        The same, with ``auto`` decided: ``cuda`` if torch sees one, else ``cpu``.
    """
    if device != "auto":
        return device
    if not NVIDIA_DRIVER.exists():
        return "cpu"
    return "cuda" if has_cuda() else "cpu"


class Assigner:
    """Centroids on the device, and a call that assigns a block of unit rows to them.

    Args:
        centroids: float32 (k, d), unit rows.
        device: as torch names it.
    """

    def __init__(self, centroids: NDArray[np.float32], *, device: str) -> None:
        self._device = _device(device)
        self._centroids = _put(centroids, self._device)

    def __call__(self, block: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The nearest centroid of each row, int32 (b,), and its cosine, float32 (b,)."""
        index, score = _nearest(_put(block, self._device), self._centroids)
        return index.cpu().numpy().astype(np.int32), score.cpu().numpy()


def train(
    points: NDArray[np.float32],
    clusters: int,
    *,
    seed: int,
    iterations: int,
    initial: NDArray[np.float32] | None,
    device: str,
) -> tuple[NDArray[np.float32], float]:
    """Spherical k-means, every point against every centroid, with the points on the device.

    Args:
        points: (n, d), unit rows, at least ``clusters``.
        initial: float32 (k, d), unit rows; seeded as k-means++ does, many a round, if None.

    Returns:
        Centroids float32 (k, d), and the mean cosine as in `kmeans.KMeansResult`.
    """
    import torch

    place = _device(device)
    rows = _put(points, place)
    centroids = rows[_seed(rows, clusters, seed)] if initial is None else _put(initial, place)
    objective = 0.0
    for _ in range(max(1, iterations)):
        index, score = _nearest(rows, centroids)
        sums, counts = _sums(rows, index, clusters)
        empty = torch.nonzero(counts == 0).flatten()
        if len(empty):
            # The farthest points, none of them alone in its cluster, and no two from one donor in a step.
            order = torch.argsort(score, stable=True).cpu().numpy()
            donors = index.cpu().numpy()[order]
            fit = (counts.cpu().numpy()[donors] > 1) & (score.cpu().numpy()[order] < 1 - 1e-6)
            _, first = np.unique(donors[fit], return_index=True)
            moved = torch.from_numpy(order[fit][np.sort(first)][: len(empty)].copy()).to(place)
            sums[index[moved]] -= rows[moved].to(sums.dtype)
            sums[empty[: len(moved)]] = rows[moved].to(sums.dtype)
        length = sums.norm(dim=1)
        whole = length > 1e-9
        centroids = centroids.clone()
        centroids[whole] = (sums[whole] / length[whole, None]).to(torch.float32)
        objective = float(length.sum()) / len(rows)
    return centroids.cpu().numpy(), objective


def has_cuda() -> bool:
    """Whether torch sees an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CurationError(f"device {name!r} cannot be used here ({in_words(error)}); use cpu") from error
    return device


def _put(array: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _nearest(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index (n,) int64 and score (n,) of the largest product of each row, in full float32.

    Among equal scores within a block of centroids torch chooses, the same way every time; `kmeans.assign` sees to equal
    centroids.
    """
    import torch

    index = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    score = torch.full((len(rows),), -torch.inf, device=rows.device)
    for start in range(0, len(rows), BLOCK_ROWS):
        here = slice(start, start + BLOCK_ROWS)
        for first in range(0, len(centroids), BLOCK_CENTROIDS):
            products = rows[here] @ centroids[first : first + BLOCK_CENTROIDS].T
            best, place = products.max(dim=1)
            better = best > score[here]
            score[here] = torch.where(better, best, score[here])
            index[here] = torch.where(better, place + first, index[here])
    return index, score


def _sums(rows: torch.Tensor, index: torch.Tensor, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of each cluster's rows, float64 (float32 where the device has no float64), and the counts, int64."""
    import torch

    counts = torch.bincount(index, minlength=clusters)
    if rows.device.type == "mps":  # neither float64 nor 64-bit atomics there
        return torch.zeros((clusters, rows.shape[1]), device=rows.device).index_add_(0, index, rows), counts
    total = torch.zeros((clusters, rows.shape[1]), dtype=torch.int64, device=rows.device)
    for start in range(0, len(rows), BLOCK_ROWS):
        here = slice(start, start + BLOCK_ROWS)
        total.index_add_(0, index[here], (rows[here].double() * SCALE).round().long())
    return total.double() / SCALE, counts


def _seed(rows: torch.Tensor, clusters: int, seed: int) -> torch.Tensor:
    """Rows to start from, as `cells.seed_centroids` draws them, with numpy's random numbers on any device."""
    import torch

    random = np.random.default_rng([seed, 2])
    chosen = torch.tensor([int(random.integers(len(rows)))], device=rows.device)
    left = torch.full((len(rows),), 2.0, device=rows.device)
    fresh = chosen
    while True:
        left = torch.minimum(left, (1 - _nearest(rows, rows[fresh])[1]).clamp(min=0))
        left[chosen] = 0
        if len(chosen) == clusters:
            return chosen
        number = min(max(1, clusters // SEEDING_ROUNDS), clusters - len(chosen))
        wait = _put(random.standard_exponential(len(rows), dtype=np.float32), rows.device)
        wait = torch.where(left > 1e-6, wait / left.clamp(min=1e-6), torch.inf)
        taken = torch.zeros(len(rows), device=rows.device)
        taken[chosen] = 1
        # Drawn rows last, copies of them before those.
        wait = torch.where(wait.isinf(), 1e30 * (1 + taken), wait)
        fresh = torch.argsort(wait, stable=True)[:number]
        chosen = torch.cat([chosen, fresh])
