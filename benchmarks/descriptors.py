"""What the weightless descriptors are worth: speed, copies found again, k-NN accuracy, and how alike the two see.

    python benchmarks/descriptors.py [--data ../shared/data] [--calibrate]

`--calibrate` measures their fixed constants anew and writes them into the package: a change of results, so a new
version. It uses every second source patch of each set and no label; the copies of the others are reported apart, as
"held out".

Protocol of the copies. A source is a labelled field (`patches/*`, byte-identical files taken once; osteosarcoma at half
size, which is what the descriptors work on), or a 256-px window with at least 60% tissue of a grid of pitch 256 over
the sections. Each has four copies: a random symmetry of the square, a turn of up to 25 degrees either way, a zoom of
0.8 to 1.25, interpolated bicubically. Of a field the largest central square without invented pixels is kept; of a
section, 256 px. For each copy the nearest of all copies of all sources but itself must be of the same source. For the
other changes the changed patch asks for its source among the unchanged sources of all sets, and its rank counts.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import platform
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import wsicurate.embedding
from wsicurate.embedding.descriptors.filter_bank import FilterBank, filter_bank_features
from wsicurate.embedding.descriptors.projection import CLIP
from wsicurate.embedding.descriptors.stain_texture import StainTexture, stain_texture_features
from wsicurate.pixels.stain import optical_density, separation_matrix

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]

SETS = ("colorectal", "oral", "osteosarcoma", "sections")
COPIES, COPIES_TO_CALIBRATE = 4, 6
SEED, SEED_TO_CALIBRATE = 7, 1
WINDOW, CONTEXT = 256, 512

#: Ridge on the within-copies covariance; weight in it of the scatter of the means of sets and sections, so that
#: what tells laboratories apart counts for less; how far directions keep Fisher's weight (1) or are made alike (0).
RIDGE = 0.001
BATCHES = 0.02
FISHER = {"stain-texture": 0.5, "filter-bank": 0.8}

RAW = {"stain-texture": stain_texture_features, "filter-bank": filter_bank_features}
DESCRIPTORS = {"stain-texture": StainTexture(), "filter-bank": FilterBank()}


# --- sources and their copies -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Source:
    """One patch, and for sections the 512 px around it."""

    name: str
    label: str
    patch: Image
    context: Image | None = None


def read(path: Path) -> Image:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def sources(data: Path, name: str) -> Iterator[Source]:
    if name == "sections":
        yield from grid(data / "sections")
        return
    seen = set()
    for path in sorted((data / "patches" / name).rglob("*.jpg")):
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        patch = read(path)
        if name == "osteosarcoma":
            patch = np.asarray(cv2.resize(patch, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        yield Source(name=path.name, label=path.name.replace("___", "_").split("_")[0], patch=patch)


def grid(folder: Path) -> Iterator[Source]:
    margin = (CONTEXT - WINDOW) // 2
    with (folder / "sections.csv").open() as table:
        names = [row["slide"] for row in csv.DictReader(table)]
    for name in names:
        image = read(folder / name)
        tissue = cv2.imread(str(folder / name.replace(".jpg", ".tissue.png")), cv2.IMREAD_GRAYSCALE) > 0
        for y in range(WINDOW, image.shape[0] - CONTEXT, WINDOW):
            for x in range(WINDOW, image.shape[1] - CONTEXT, WINDOW):
                if tissue[y // 8 : (y + WINDOW) // 8, x // 8 : (x + WINDOW) // 8].mean() > 0.6:
                    context = image[y - margin : y + WINDOW + margin, x - margin : x + WINDOW + margin].copy()
                    yield Source(name=f"{name} {x} {y}", label=name, patch=shifted(context, 0, 0), context=context)


def shifted(context: Image, right: int, down: int) -> Image:
    margin = (CONTEXT - WINDOW) // 2
    return np.ascontiguousarray(context[margin + down :, margin + right :][:WINDOW, :WINDOW])


def turned(source: Source, rng: np.random.Generator) -> Image:
    """A symmetry, a turn of up to 25 degrees and a zoom of 0.8 to 1.25."""
    degrees, zoom = rng.uniform(-25, 25), float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
    mirrored, quarters = rng.integers(2), int(rng.integers(4))
    image = source.patch if source.context is None else source.context
    height, width = image.shape[:2]
    radians = np.deg2rad(abs(degrees))
    side = WINDOW
    if source.context is None:
        side = int(min(height, height * zoom / (np.cos(radians) + np.sin(radians)))) - 1
    motion = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    motion[:, 2] += (side - 1) / 2 - np.array([(width - 1) / 2, (height - 1) / 2])
    smooth = image if zoom >= 1 else cv2.GaussianBlur(image, (0, 0), 0.35 / zoom)
    copy = cv2.warpAffine(smooth, motion, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    copy = np.rot90(copy, quarters)
    return np.ascontiguousarray(copy[:, ::-1] if mirrored else copy)


def restained(patch: Image, rng: np.random.Generator) -> Image:
    """Each stain's amount times 0.95 to 1.05, independently."""
    separation = separation_matrix()
    stains = optical_density(patch) @ separation.T * rng.uniform(0.95, 1.05, 3)
    return np.clip(255 * 10.0 ** -(stains @ np.linalg.inv(separation).T) + 0.5, 0, 255).astype(np.uint8)


def recompressed(patch: Image, rng: np.random.Generator) -> Image:
    """JPEG of quality 40 to 80, 4:2:0."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR), [1, int(rng.integers(40, 81))])
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def blurred(patch: Image, rng: np.random.Generator) -> Image:
    """Gaussian blur of 1 px and a gamma of 0.85 to 1.18."""
    smooth = cv2.GaussianBlur(patch, (0, 0), 1.0) / 255.0
    return np.clip(255 * smooth ** rng.uniform(0.85, 1.18) + 0.5, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "stains +-5%": restained,
    "JPEG 40-80": recompressed,
    "blur, gamma": blurred,
}
SHIFTS = {"shift up to 128 px, x and y": False, "shift of 128 px, x": True}


def changes(source: Source, rng: np.random.Generator) -> Iterator[tuple[str, Image]]:
    for name, change in CHANGES.items():
        yield name, change(source.patch, rng)
    if source.context is not None:
        half = WINDOW // 2
        right, down = rng.integers(-half, half + 1, 2)
        sideways = int(rng.choice([-half, half]))
        yield "shift up to 128 px, x and y", shifted(source.context, int(right), int(down))
        yield "shift of 128 px, x", shifted(source.context, sideways, 0)


# --- calibration --------------------------------------------------------------------------------------------------


def calibrate(data: Path) -> None:
    """Measure centre, spread and directions, and write them beside the modules."""
    rng = np.random.default_rng(SEED_TO_CALIBRATE)
    originals: dict[str, list[Matrix]] = {name: [] for name in RAW}
    within: dict[str, list[Matrix]] = {name: [] for name in RAW}
    batches: list[str] = []
    for set_name in SETS:
        for index, source in enumerate(sources(data, set_name)):
            if index % 2:
                continue
            batches.append(source.label if set_name == "sections" else set_name)
            copies = [turned(source, rng) for _ in range(COPIES_TO_CALIBRATE)]
            changed = [image for _, image in changes(source, rng)]
            for name, features in RAW.items():
                original = features(source.patch)
                originals[name].append(original)
                of_copies = np.array([features(copy) for copy in copies])
                unbiased = np.sqrt(COPIES_TO_CALIBRATE / (COPIES_TO_CALIBRATE - 1))
                within[name].extend((of_copies - of_copies.mean(axis=0)) * unbiased)
                within[name].extend((features(image) - original) / np.sqrt(2) for image in changed)
    for name in RAW:
        descriptor = DESCRIPTORS[name]
        centre, spread, directions = fisher(
            np.array(originals[name]), np.array(within[name]), batches, dim=descriptor.dim, weight=FISHER[name]
        )
        path = Path(wsicurate.embedding.__file__).parent / f"{name}-{descriptor.version}.npz"
        arrays = {"centre": centre, "spread": spread, "directions": directions}
        np.savez_compressed(path, **{key: value.astype(np.float32) for key, value in arrays.items()})
        print(
            f"{path.name}: {directions.shape[0]} features -> {directions.shape[1]}, {path.stat().st_size / 1e3:.0f} kB"
        )


def fisher(
    originals: Matrix, within: Matrix, batches: list[str], *, dim: int, weight: float
) -> tuple[Matrix, Matrix, Matrix]:
    """Whiten by the variation within copies and between batches, keep the directions in which sources differ most."""
    centre, spread = originals.mean(axis=0), originals.std(axis=0) + 1e-6
    standard, changes_ = np.clip((originals - centre) / spread, -CLIP, CLIP), within / spread
    of_batch = np.array(batches)
    means = np.array([standard[of_batch == batch].mean(axis=0) for batch in sorted(set(batches))])
    means -= means.mean(axis=0)
    nuisance = changes_.T @ changes_ / len(changes_) + BATCHES * means.T @ means / len(means)
    values, vectors = np.linalg.eigh(nuisance + RIDGE * np.eye(len(spread)))
    whiten = vectors / np.sqrt(values)
    between, directions = np.linalg.eigh((standard @ whiten).T @ (standard @ whiten) / len(standard))
    between, directions = between[::-1][:dim], directions[:, ::-1][:, :dim]
    return centre, spread, whiten @ directions * between ** (-(1 - weight) / 2)


# --- baselines ----------------------------------------------------------------------------------------------------


def colour_histogram(patch: Image) -> Matrix:
    """Square roots of a histogram of 8 x 8 x 8 colours."""
    counts = cv2.calcHist([patch], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return np.sqrt(counts.ravel().astype(np.float64) / counts.sum())


_KERNELS = np.random.default_rng(0).normal(size=(24, 7, 7)).astype(np.float32)
_KERNELS -= _KERNELS.mean(axis=(1, 2), keepdims=True)


def random_convolutions(patch: Image) -> Matrix:
    """24 random 7 x 7 filters on mean density at half and quarter size: mean and deviation after rectification."""
    density = optical_density(patch).mean(axis=-1)
    found: list[float] = []
    for _ in range(2):
        density = np.asarray(cv2.resize(density, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.float32)
        for kernel in _KERNELS:
            mean, deviation = cv2.meanStdDev(np.maximum(cv2.filter2D(density, -1, kernel), 0))
            found += [float(mean[0, 0]), float(deviation[0, 0])]
    return np.array(found)


BASELINES = {"colour histogram": colour_histogram, "random convolutions": random_convolutions}


# --- measurements -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Described:
    """Every set under one descriptor, rows of length 1."""

    names: dict[str, list[str]]
    labels: dict[str, list[str]]
    originals: dict[str, Matrix]
    copies: dict[str, Matrix]
    changed: dict[str, dict[str, Matrix]]


def describe(data: Path) -> dict[str, Described]:
    rng = np.random.default_rng(SEED)

    def rows(patch: Image) -> dict[str, Matrix]:
        vectors: dict[str, Matrix] = {name: call(patch[None])[0] for name, call in DESCRIPTORS.items()}
        return vectors | {name: features(patch) for name, features in BASELINES.items()}

    names: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    found: dict[str, dict[tuple[str, str], list[Matrix]]] = {name: {} for name in (*DESCRIPTORS, *BASELINES)}

    def add(set_name: str, kind: str, patch: Image) -> None:
        for name, row in rows(patch).items():
            found[name].setdefault((set_name, kind), []).append(row)

    for set_name in SETS:
        names[set_name], labels[set_name] = [], []
        for source in sources(data, set_name):
            names[set_name].append(source.name)
            labels[set_name].append(source.label)
            add(set_name, "original", source.patch)
            for _ in range(COPIES):
                add(set_name, "copy", turned(source, rng))
            for kind, image in changes(source, rng):
                add(set_name, kind, image)
    described = {}
    for name, lists in found.items():
        arrays = {key: np.array(rows_) for key, rows_ in lists.items()}
        if name in BASELINES:  # the descriptors have their own constants; these get those of the data itself
            everything = np.concatenate([arrays[set_name, "original"] for set_name in SETS])
            centre, spread = everything.mean(axis=0), everything.std(axis=0) + 1e-3 * everything.std()
            arrays = {key: (array - centre) / spread for key, array in arrays.items()}
        arrays = {key: array / np.linalg.norm(array, axis=1, keepdims=True) for key, array in arrays.items()}
        kinds = [*CHANGES, *SHIFTS]
        described[name] = Described(
            names=names,
            labels=labels,
            originals={set_name: arrays[set_name, "original"] for set_name in SETS},
            copies={set_name: arrays[set_name, "copy"] for set_name in SETS},
            changed={k: {s: arrays[s, k] for s in SETS if (s, k) in arrays} for k in kinds},
        )
    return described


def share_tissue(first: Image, second: Image) -> bool:
    """Whether SIFT and RANSAC find a similarity that maps 30 points or more, and half of all matches, on each other."""
    sift = cv2.SIFT_create()  # type: ignore[attr-defined]
    (points_1, about_1), (points_2, about_2) = (sift.detectAndCompute(image, None) for image in (first, second))
    if min(len(points_1), len(points_2)) < 2:
        return False
    pairs = [a for a, b in cv2.BFMatcher().knnMatch(about_1, about_2, k=2) if a.distance < 0.8 * b.distance]
    if len(pairs) < 30:
        return False
    here = np.array([points_1[pair.queryIdx].pt for pair in pairs])
    there = np.array([points_2[pair.trainIdx].pt for pair in pairs])
    cv2.setRNGSeed(0)
    _, inliers = cv2.estimateAffinePartial2D(here, there)
    return inliers is not None and int(inliers.sum()) >= max(30, len(pairs) // 2)


def copies_found(
    described: Described,
) -> tuple[NDArray[np.bool_], NDArray[np.str_], NDArray[np.bool_], list[tuple[str, str]]]:
    """For each copy: is its nearest of the same source; its set; was its source held out. And the mistakes."""
    rows = np.concatenate([described.copies[name] for name in SETS])
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    source, nearest = np.arange(len(rows)) // COPIES, similar.argmax(axis=1) // COPIES
    of_set = np.repeat(np.array(SETS), [len(described.copies[name]) for name in SETS])
    names = [name for set_name in SETS for name in described.names[set_name]]
    index_in_set = np.concatenate([np.arange(len(described.copies[name])) // COPIES for name in SETS])
    held_out = index_in_set % 2 == 1
    wrong = [(names[a], names[b]) for a, b in zip(source, nearest, strict=True) if a != b]
    return source == nearest, of_set, held_out, wrong


def ranks(described: Described, kind: str) -> NDArray[np.int64]:
    """How many sources of all sets are nearer to each changed patch than its own."""
    everything = np.concatenate([described.originals[name] for name in SETS])
    starts = dict(zip(SETS, np.cumsum([0, *(len(described.originals[name]) for name in SETS)]), strict=False))
    found = []
    for set_name, rows in described.changed[kind].items():
        similar = rows @ everything.T
        own = similar[np.arange(len(rows)), starts[set_name] + np.arange(len(rows))]
        found.append((similar > own[:, None]).sum(axis=1))
    return np.concatenate(found)


def knn_accuracy(rows: Matrix, labels: list[str], groups: list[str], k: int) -> float:
    """Share of patches whose k nearest of other groups vote for their label; summed similarity breaks ties."""
    similar = rows @ rows.T
    similar[np.array(groups)[:, None] == np.array(groups)[None]] = -np.inf
    right = 0
    for row, label in zip(similar, labels, strict=True):
        votes: dict[str, tuple[int, float]] = {}
        for other in np.argsort(-row, kind="stable")[:k]:
            count, total = votes.get(labels[other], (0, 0.0))
            votes[labels[other]] = (count + 1, total + float(row[other]))
        right += max(votes, key=votes.__getitem__) == label
    return right / len(labels)


def case_of(name: str) -> str:
    found = re.search(r"___(Case-\d+|P\d+)", name)
    assert found is not None, name
    return found.group(1)


def speed(call: Callable[[NDArray[np.uint8]], object], patches: NDArray[np.uint8]) -> float:
    """Patches a second of one core's time: the best of five."""
    call(patches[:8])
    times = []
    for _ in range(5):
        began = time.process_time()
        call(patches)
        times.append(time.process_time() - began)
    return len(patches) / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the weightless descriptors.")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--calibrate", action="store_true", help="measure their constants anew and write them")
    arguments = parser.parse_args()
    if arguments.calibrate:
        calibrate(arguments.data)
        return
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}")
    real = [source.patch for _, source in zip(range(64), grid(arguments.data / "sections"), strict=False)]
    for name, call in DESCRIPTORS.items():
        print(f"{name:20s} {speed(call, np.stack(real)):6.0f} patches/s of 256 px on one core")
    described = describe(arguments.data)
    for name, of in described.items():
        print(f"\n{name}, {of.copies['oral'].shape[1]} numbers")
        found, of_set, held_out, wrong = copies_found(of)
        each = ", ".join(f"{s} {found[of_set == s].mean():.4f}" for s in SETS)
        print(f"  turned and rescaled, nearest is a copy {found.mean():.4f} of {len(found)} ({each})")
        print(f"    of sources held out {found[held_out].mean():.4f} of {held_out.sum()}; {len(wrong)} wrong")
        if name in DESCRIPTORS:
            named = {one for pair in wrong for one in pair}
            images = {
                s.name: s.patch for set_name in SETS for s in sources(arguments.data, set_name) if s.name in named
            }
            same = {pair for pair in set(wrong) if share_tissue(images[pair[0]], images[pair[1]])}
            unmarked = sum(pair in same for pair in wrong)
            print(f"    {unmarked} of these are the same tissue in another file by SIFT: {sorted(same)[:3]} ...")
            print(f"    without them {found.sum() / (len(found) - unmarked):.4f}")
        for kind in of.changed:
            rank = ranks(of, kind)
            print(f"  {kind:30s} found at 1 {(rank < 1).mean():.4f}, at 64 {(rank < 64).mean():.4f} of {len(rank)}")
        for set_name in ("colorectal", "osteosarcoma"):
            names = of.names[set_name]
            groups = [case_of(patch) for patch in names] if set_name == "osteosarcoma" else names
            scores = [knn_accuracy(of.originals[set_name], of.labels[set_name], groups, k) for k in (1, 3, 5)]
            held = "cases" if set_name == "osteosarcoma" else "patches"
            print(
                f"  k-NN on {set_name}, {held} held out: "
                + ", ".join(f"k={k} {s:.3f}" for k, s in zip((1, 3, 5), scores, strict=True))
            )
    print("\ncorrelation of the two descriptors' similarities over all pairs of different sources")
    for set_name in SETS:
        first, second = (of.originals[set_name] for of in (described[name] for name in DESCRIPTORS))
        pairs = np.triu_indices(len(first), k=1)
        print(f"  {set_name:14s} {np.corrcoef((first @ first.T)[pairs], (second @ second.T)[pairs])[0, 1]:.3f}")


if __name__ == "__main__":
    main()
