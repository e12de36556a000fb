"""Clustering and selection: time, memory and objective, beside a plain torch k-means with a k-means++ start.

    python benchmarks/curate.py                  # everything, about 20 minutes on 2 cores
    python benchmarks/curate.py --part hierarchy --rows 200000 --counts 2000 200 20 4
    python benchmarks/curate.py --part objective --objective-rows 50000 --objective-clusters 500

Parts: ``hierarchy`` (build, assign and select 25% from vectors on disk), ``objective`` (how long until the inertia is
within 1% of the peer's final one), ``threads`` (are clusters and selection the same for 1 and 2 threads). The vectors
are a seeded long-tailed mixture, written as float16 into a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from wsicurate.curation.clustering.hierarchy import build_hierarchy
from wsicurate.curation.clustering.kmeans import assign, spherical_kmeans
from wsicurate.curation.selection.draw import Groups, select

DIMENSIONS = 384
SLIDES = 1_038
SLIDES_PER_PATIENT = 1.03
PATIENTS_PER_SITE = 30


class PeakMemory:
    """The largest resident set of this process while the block runs, in GiB, sampled every 50 ms."""

    def __enter__(self) -> PeakMemory:
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.05):
            self.gib = max(self.gib, process.memory_info().rss / 2**30)


def make_vectors(path: Path, rows: int, seed: int = 0) -> NDArray[np.float16]:
    """A long-tailed mixture: kinds, sub-kinds, a direction of each slide's own, and noise; (rows, 384) on disk."""
    random = np.random.default_rng(seed)
    kinds = random.standard_normal((60, DIMENSIONS), dtype=np.float32)
    subkinds = 8_000
    weight = 1 / np.arange(1, subkinds + 1) ** 0.9
    of_kind = random.integers(len(kinds), size=subkinds)
    centres = kinds[of_kind] + 0.7 * random.standard_normal((subkinds, DIMENSIONS), dtype=np.float32)
    stains = 0.25 * random.standard_normal((SLIDES, DIMENSIONS), dtype=np.float32)
    slide = slides_of(rows)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, DIMENSIONS))
    for start in range(0, rows, 65_536):
        stop = min(start + 65_536, rows)
        subkind = random.choice(subkinds, stop - start, p=weight / weight.sum())
        noise = 0.6 * random.standard_normal((stop - start, DIMENSIONS), dtype=np.float32)
        vectors[start:stop] = centres[subkind] + stains[slide[start:stop]] + noise
    vectors.flush()
    del vectors
    return np.load(path, mmap_mode="r")


def slides_of(rows: int) -> NDArray[np.int32]:
    """Slides of unequal size, in order: int32 (rows,)."""
    share = np.random.default_rng(1).lognormal(0, 0.7, SLIDES)
    return np.searchsorted(np.cumsum(share / share.sum())[:-1] * rows, np.arange(rows), side="right").astype(np.int32)


def groups_of(rows: int) -> Groups:
    slide = slides_of(rows)
    patient = (slide / SLIDES_PER_PATIENT).astype(np.int32)
    return Groups(site=(patient // PATIENTS_PER_SITE).astype(np.int32), patient=patient, slide=slide)


def part_hierarchy(path: Path, rows: int, counts: Sequence[int]) -> None:
    vectors = np.load(path, mmap_mode="r")
    with PeakMemory() as peak:
        began, processor = time.perf_counter(), time.process_time()
        hierarchy = build_hierarchy(
            vectors,
            counts,
            seed=0,
            progress=lambda what, done, of: print(
                f"  {time.perf_counter() - began:6.1f} s  {what}: {done} of {of}", flush=True
            ),
        )
        built = time.perf_counter()
        clusters, similarity = hierarchy.assign(vectors)
        assigned = time.perf_counter()
        drawn = select(clusters, rows // 4, groups=groups_of(rows), seed=0)
        ended, processor = time.perf_counter(), time.process_time() - processor
    sizes = np.bincount(clusters[:, 0], minlength=counts[0])
    print(
        f"hierarchy {rows} x {DIMENSIONS}, {hierarchy.counts}: build {built - began:.1f} s, "
        f"assign {assigned - built:.1f} s, "
        f"select {ended - assigned:.1f} s; in all {(ended - began) / 60:.2f} min (target 12 at 2,055,742); "
        f"processor time {processor / 60:.2f} min, "
        f"peak {peak.gib:.2f} GiB "
        f"(target 6)"
    )
    print(
        f"  mean cosine {similarity.mean():.4f}, largest cluster {sizes.max()}, empty {np.count_nonzero(sizes == 0)}; "
        f"selected {drawn.selected.sum()}, over cap {drawn.over_cap.sum()}, notes {list(drawn.notes)}"
    )
    digest = hashlib.sha256(clusters.tobytes() + drawn.selected.tobytes()).hexdigest()[:16]
    print(f"  clusters and selection: {digest}")


def inertia(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    """Summed squared distance of unit rows, the objective of the published k-means."""
    return float(2 * (1 - assign(vectors, centroids).similarity.astype(np.float64)).sum())


def torch_kmeans(rows: NDArray[np.float32], clusters: int, iterations: int) -> tuple[NDArray[np.float32], float]:
    """Plain k-means as published by Vo et al.: one k-means++ draw after the other, then Lloyd with full products.

    Written here from the paper. Centroids are unit rows, as ours.
    """
    import torch

    torch.manual_seed(0)
    began = time.perf_counter()
    points = torch.from_numpy(rows)
    chosen = [int(torch.randint(len(points), (1,)))]
    left = torch.full((len(points),), torch.inf)
    random = np.random.default_rng(0)
    while len(chosen) < clusters:
        left = torch.minimum(left, (2 - 2 * (points @ points[chosen[-1]])).clamp(min=0))
        total = torch.cumsum(left.double(), 0)
        chosen.append(min(int(torch.searchsorted(total, float(total[-1]) * random.random())), len(points) - 1))
    centroids = points[chosen]
    print(f"  torch: k-means++ start {time.perf_counter() - began:.1f} s", flush=True)
    for _ in range(iterations):
        index = torch.cat([(block @ centroids.T).argmax(dim=1) for block in points.split(8_192)])
        sums = torch.zeros_like(centroids).index_add_(0, index, points)
        filled = torch.bincount(index, minlength=clusters) > 0
        centroids = torch.where(filled[:, None], torch.nn.functional.normalize(sums, dim=1), centroids)
    return centroids.numpy(), time.perf_counter() - began


def part_objective(path: Path, rows: int, clusters: int, iterations: int) -> None:
    stored = np.load(path, mmap_mode="r")
    vectors = np.array(stored[:: len(stored) // rows][:rows], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    history: list[tuple[float, float]] = []
    for steps in (2, 5, 10, 20):
        began = time.perf_counter()
        fitted = spherical_kmeans(vectors, clusters, seed=0, iterations=steps)
        ours = time.perf_counter() - began
        reached = inertia(vectors, fitted.centroids)
        print(
            f"  ours, {steps} steps: {ours:.1f} s, inertia {reached:.1f}, mean cosine {1 - reached / 2 / rows:.5f}",
            flush=True,
        )
        history.append((ours, reached))
    centroids, theirs = torch_kmeans(vectors, clusters, iterations)
    final = inertia(vectors, centroids)
    print(f"  torch, {iterations} steps: {theirs:.1f} s, inertia {final:.1f}, mean cosine {1 - final / 2 / rows:.5f}")
    reached = [took for took, value in history if value <= 1.01 * final]
    if reached:
        print(
            f"objective {rows} x {clusters}: within 1.01 of the peer's inertia after {reached[0]:.1f} s, "
            f"{reached[0] / theirs:.3f} of its {theirs:.1f} s (target 0.2)"
        )
    else:
        best = min(value for _, value in history)
        print(f"objective {rows} x {clusters}: NOT within 1.01 of the peer's inertia; best {best / final:.4f}")


def part_threads(path: Path, rows: int, counts: Sequence[int]) -> None:
    """The hierarchy part in fresh processes with 1 and 2 threads, on the first rows."""
    found = {}
    for threads in (1, 2):
        code = (
            "import sys, numpy as np, hashlib; sys.path.insert(0, 'benchmarks'); import curate\n"
            f"v = np.load({str(path)!r}, mmap_mode='r')[:{rows}]\n"
            f"h = curate.build_hierarchy(v, {tuple(counts)}, seed=0); c, s = h.assign(v)\n"
            f"d = curate.select(c, len(v) // 4, groups=curate.groups_of(len(v)), seed=0)\n"
            "print(hashlib.sha256(c.tobytes() + s.tobytes() + d.selected.tobytes()).hexdigest()[:16])"
        )
        found[threads] = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ).stdout.strip()
    print(f"threads {rows}: {found} -> {'the same' if len(set(found.values())) == 1 else 'DIFFERENT'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "hierarchy", "objective", "threads"], default="all")
    parser.add_argument("--rows", type=int, default=2_055_742)
    parser.add_argument("--counts", type=int, nargs="+", default=[20_000, 2_000, 200, 20])
    parser.add_argument("--objective-rows", type=int, default=200_000)
    parser.add_argument("--objective-clusters", type=int, default=2_000)
    parser.add_argument("--iterations", type=int, default=50, help="of the peer, as published")
    parser.add_argument("--folder", type=Path, help="where to write the vectors; a temporary folder if not given")
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "vectors.npy"
        rows = options.rows if options.part in ("all", "hierarchy") else max(options.objective_rows, 200_000)
        began = time.perf_counter()
        make_vectors(path, rows)
        print(f"{rows} vectors made in {time.perf_counter() - began:.0f} s", flush=True)
        if options.part in ("all", "hierarchy"):
            part_hierarchy(path, rows, options.counts)
        if options.part in ("all", "objective"):
            part_objective(path, options.objective_rows, options.objective_clusters, options.iterations)
        if options.part in ("all", "threads"):
            part_threads(path, min(rows, 200_000), [2_000, 200, 20, 4])


if __name__ == "__main__":
    main()
