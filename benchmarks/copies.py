"""Neighbours, grouping and registration: time, memory and recall; with ``--quality``, what is found and what is not.

python benchmarks/copies.py                    # 200,000 vectors of 384 dimensions, 5% planted copies; FAISS beside us
python benchmarks/copies.py --full             # 2,055,742
python benchmarks/copies.py --quality SHARED   # SHARED: the folder of real data that tests use

FAISS's indices are searched twice: with the number of lists that is usual, and with the least that finds as many of the
planted copies as our inverted file does.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from copies_faiss import Searched, searches
from numpy.typing import NDArray

from wsicurate.curation.copies.groups import grouped
from wsicurate.curation.copies.registration import Criteria, PreparedPatch, confirm
from wsicurate.curation.copies.threshold import changed
from wsicurate.curation.neighbours.nearest import nearest_neighbours
from wsicurate.curation.threads import one_blas_thread
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

DIMENSIONS, COMPONENTS, RANK = 384, 2_000, 32

#: Share of planted copies, the noise added to each number of a unit vector (a cosine of 0.98), what counts as a copy.
PLANTED, COPY_NOISE, COPY_COSINE = 0.05, 0.01, 0.95

#: Candidate threshold: most of the 16 nearest that are no copies pass it.
LEAST = 0.8
CONFIRM_PAIRS = 300


def mixture(path: Path, count: int, seed: int = 0) -> tuple[NDArray[np.int64], int]:
    """A long-tailed mixture of flat clouds, the last 5% copies with some noise.

    As in embeddings, variance falls over the dimensions (as i^-0.8: participation ratio 65). Components have Zipf
    shares. Within one the spectrum falls as 1/sqrt(i) over 32 directions of its own kind (participation ratio 24) and
    holds half as much as the centre.
    """
    rng = np.random.default_rng(seed)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, DIMENSIONS))
    share = 1.0 / np.arange(1, COMPONENTS + 1)
    centres = rng.normal(size=(COMPONENTS, DIMENSIONS)).astype(np.float32)
    scale = (np.arange(1, DIMENSIONS + 1) ** -0.4).astype(np.float32)
    scale *= np.sqrt(DIMENSIONS / (scale**2).sum())
    centres *= scale
    spectrum = 1.0 / np.sqrt(np.arange(1, RANK + 1))
    axes = rng.normal(size=(64, RANK, DIMENSIONS)).astype(np.float32)
    axes *= np.sqrt(0.5 * spectrum / spectrum.sum()).astype(np.float32)[:, None] * scale
    planted = int(count * PLANTED)
    own = count - planted
    for start in range(0, own, 65_536):
        size = min(65_536, own - start)
        component = rng.choice(COMPONENTS, size, p=share / share.sum())
        block = centres[component] + 0.1 * rng.normal(size=(size, DIMENSIONS)).astype(np.float32)
        offsets = rng.normal(size=(size, RANK)).astype(np.float32)
        for kind in range(64):
            members = component % 64 == kind
            block[members] += offsets[members] @ axes[kind]
        vectors[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    sources = np.sort(rng.choice(own, planted, replace=False))
    for start in range(0, planted, 65_536):
        some = sources[start : start + 65_536]
        noise = COPY_NOISE * rng.normal(size=(len(some), DIMENSIONS)).astype(np.float32)
        vectors[own + start : own + start + len(some)] = vectors[some].astype(np.float32) + noise
    vectors.flush()
    return sources, own


def neighbours(count: int, k: int = 16) -> None:
    """Time, memory and recall of neighbours and grouping, with FAISS's indices beside ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        sources, own = mixture(path, count)
        vectors = np.load(path, mmap_mode="r")
        timed = [_times()]
        found = nearest_neighbours(vectors, k, least=LEAST, exact_below=0)
        timed.append(_times())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        pairs, _ = found.pairs(COPY_COSINE)
        copy_of = grouped(count, pairs[:, 0], pairs[:, 1])
        timed.append(_times())
        print(f"{count:,} x {DIMENSIONS}, k = {k}: {found.method}")
        print(f"  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        for what, before, after in zip(("neighbours", "grouping"), timed, timed[1:], strict=False):
            print(f"  {what}: {after[0] - before[0]:.0f} s, {after[1] - before[1]:.0f} s of processor time")
        print(
            f"  peak {memory:.1f} GiB resident after the neighbours, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} in all, the mapped vectors included"
        )
        truth = Truth.of(vectors, sources, own, k)
        reported = 1.0 if found.recall is None else found.recall
        print(f"  recall: {reported:.4f} of neighbours from {LEAST} on, as reported; on another sample:")
        shares = [f"{truth.recall(found.index):.4f} of the {k} nearest, whatever their similarity"]
        shares += [f"{truth.recall(found.index, least):.4f} from {least} on" for least in (0.99, 0.9, 0.85, 0.8, 0.75)]
        print(f"  {'; '.join(shares)}")
        print(f"  {truth.planted(found.index):.4f} of all {len(sources):,} planted copies")
        print(f"  {len(pairs):,} pairs from {COPY_COSINE} on, {int((copy_of >= 0).sum()):,} grouped", flush=True)
        ours = Searched("ours", found.index, timed[1][0] - timed[0][0], timed[1][1] - timed[0][1])
        _print_beside(ours, searches(vectors, k, sources, own, truth.planted(found.index)), truth)


def _print_beside(ours: Searched, others: Iterable[Searched], truth: Truth) -> None:
    """A table: time, also as a ratio to ours, and recall."""
    print(f"\n  {'':38} {'s':>7} {'cpu s':>7} {'x ours':>7} {f'>= {LEAST}':>7} {'copies':>7}")
    for one in chain([ours], others):
        print(
            f"  {one.name:38} {one.seconds:7.1f} {one.processor:7.1f} {one.processor / ours.processor:7.2f} "
            f"{truth.recall(one.index, LEAST):7.4f} {truth.planted(one.index):7.4f}",
            flush=True,
        )


@dataclass(frozen=True)
class Truth:
    """What a search should find.

    Attributes:
        rows: int64, (q,): a sample of rows. index, similarity: (q, k + 1): their true neighbours, with themselves.
        others: bool, (q, k + 1): which of these count.
        sources: int64: the row that each planted copy was made of. own: number of rows that are no copies.
    """

    rows: NDArray[np.int64]
    index: NDArray[np.int64]
    similarity: NDArray[np.float32]
    others: NDArray[np.bool_]
    sources: NDArray[np.int64]
    own: int

    @classmethod
    def of(cls, vectors: NDArray[np.float16], sources: NDArray[np.int64], own: int, k: int) -> Truth:
        """The truth about some vectors."""
        rows = np.sort(np.random.default_rng(9).choice(len(vectors), min(1_000, len(vectors)), replace=False))
        true = nearest_neighbours(vectors, k + 1, queries=vectors[rows], exact_below=len(vectors) + 1)
        others = true.index != rows[:, None]
        others[others.all(axis=1), -1] = False  # an equal vector took the row's own place
        return cls(rows, true.index, true.similarity, others, sources, own)

    def recall(self, index: NDArray[np.int64], threshold: float = -1.0) -> float:
        """Share of the true neighbours from a similarity on that were found; NaN where there are none."""
        hit = (self.index[:, :, None] == index[self.rows][:, None, :]).any(axis=2)
        counted = self.others & (self.similarity >= threshold)
        return float(hit[counted].mean()) if counted.any() else float("nan")

    def planted(self, index: NDArray[np.int64]) -> float:
        """Share of the planted copies that found what they were made of."""
        return float((index[self.own :] == self.sources[:, None]).any(axis=1).mean())


def _times() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def confirmation() -> None:
    """Pairs a second on one core: 256-px patches of a synthetic slide, each new to the program; half of them copies.

    Copies are turned by quarters and mirrored, re-compressed, stained and blurred otherwise; in the last row turned by
    up to 25 degrees and cropped, so that all pairs, true and false, need local features.
    """
    from copies_quality import turned_and_cropped

    cv2.setNumThreads(1)
    patches = _synthetic_patches(CONFIRM_PAIRS)
    rng = np.random.default_rng(0)
    with one_blas_thread():
        for name, criteria, copy in (
            ("shifts and symmetries", Criteria(), lambda patch: changed(patch, "together", rng)),
            ("turns and scales as well", Criteria(turns=True), lambda patch: changed(patch, "together", rng)),
            ("copies turned and cropped", Criteria(turns=True), lambda patch: turned_and_cropped(patch, rng)),
        ):
            pairs = [(patch, copy(patch) if place % 2 else patches[place - 1]) for place, patch in enumerate(patches)]
            _rates(name, pairs, criteria)


def _rates(name: str, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], criteria: Criteria) -> None:
    began = time.process_time()
    decided = [confirm(first, second, criteria).is_copy for first, second in pairs]
    fresh = len(pairs) / (time.process_time() - began)
    prepared = [(PreparedPatch(first), PreparedPatch(second)) for first, second in pairs]
    for first, second in prepared:
        confirm(first, second, criteria)
    began = time.process_time()
    for first, second in prepared:
        confirm(first, second, criteria)
    again = len(pairs) / (time.process_time() - began)
    print(
        f"{name}: {fresh:.0f} pairs/s of new patches, {again:.0f} of prepared ones; {sum(decided)} of {len(pairs)} "
        "confirmed",
        flush=True,
    )


def _synthetic_patches(count: int) -> list[NDArray[np.uint8]]:
    from wsicurate.slides.opening import open_slide

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_slide(path, SyntheticSlide(width=8_192, height=8_192, mpp=0.5, seed=1, tissue=0.7))
        slide = open_slide(path)
        whole = slide.read(0, 0, 0, 8_192, 8_192)
        slide.close()
    cells = [whole[y : y + 256, x : x + 256] for y in range(0, 8_192, 256) for x in range(0, 8_192, 256)]
    tissue = [np.ascontiguousarray(cell) for cell in cells if cell.mean() < 225]
    return tissue[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="vectors that neighbours are searched among")
    parser.add_argument("--full", action="store_true", help="2,055,742 of them")
    parser.add_argument("--quality", type=Path)
    parser.add_argument("--picture", type=Path, help="with --quality: write a sheet of pairs instead")
    parser.add_argument("--only", choices=["neighbours", "confirmation"])
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    if options.quality:
        from copies_quality import picture, quality

        if options.picture:
            picture(options.quality, options.picture)
        else:
            quality(options.quality)
        return
    if options.only != "confirmation":
        neighbours(2_055_742 if options.full else options.rows)
    if options.only != "neighbours":
        confirmation()


if __name__ == "__main__":
    main()
