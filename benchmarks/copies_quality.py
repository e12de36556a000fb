"""What the search for copies finds and what it takes wrongly, on real and synthetic data; called by ``copies.py``."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pairs import PatchPair, pair_sheet

from wsicurate.config import ImportConfig, TileConfig
from wsicurate.curation.copies.registration import Criteria, PreparedPatch, confirm
from wsicurate.curation.copies.threshold import changed
from wsicurate.curation.neighbours.nearest import nearest_neighbours
from wsicurate.embedding.descriptors.stain_texture import StainTexture
from wsicurate.opening import open_store
from wsicurate.steps.curating.copy_search import find_copies
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile
from wsicurate.store.embeddings import EmbeddingRecord, write_embedding
from wsicurate.store.store import Store
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.synthetic.slide import write_slide

Image = NDArray[np.uint8]

#: Files that are turned and cropped.
TURNED = 150

CONFIG = CopiesConfig(threshold=0.5, turns="never")

#: Files of the oral set that show one field, shifted or turned (of every second file, as `_files` takes them): proposed
#: by this search from a cosine of 0.2 on, and all looked at. The first is one picture in both classes.
OVERLAPPING = """
Normal_100x_69 OSCC_100x_350 / Normal_400x_178 OSCC_400x_126 / Normal_100x_70 OSCC_100x_350
Normal_100x_11 Normal_100x_13 / Normal_100x_22 Normal_100x_24 / Normal_100x_69 Normal_100x_70
Normal_100x_76 Normal_100x_87 / Normal_100x_80 Normal_100x_83 / Normal_400x_1 Normal_400x_2
Normal_400x_110 Normal_400x_126 / Normal_400x_113 Normal_400x_116 / Normal_400x_12 Normal_400x_13
Normal_400x_189 Normal_400x_190 / Normal_400x_77 Normal_400x_79
OSCC_100x_163 OSCC_100x_166 / OSCC_100x_194 OSCC_100x_199 / OSCC_100x_217 OSCC_100x_219
OSCC_100x_235 OSCC_100x_237 / OSCC_100x_241 OSCC_100x_243 / OSCC_100x_411 OSCC_100x_419
OSCC_100x_411 OSCC_100x_422 / OSCC_100x_413 OSCC_100x_415 / OSCC_100x_419 OSCC_100x_422
OSCC_100x_85 OSCC_100x_87 / OSCC_400x_117 OSCC_400x_119 / OSCC_400x_179 OSCC_400x_180
OSCC_400x_19 OSCC_400x_20 / OSCC_400x_259 OSCC_400x_260 / OSCC_400x_411 OSCC_400x_413
"""
_OVERLAPPING = {frozenset(pair.split()) for line in OVERLAPPING.split("\n") for pair in line.split("/")}


def quality(shared: Path) -> None:
    for part in (_formats, _distinct, _planted, _half_lattice, _augmented, _turned):
        part(shared)


def embedded(path: Path) -> Store:
    """The store, with the vectors of stain-texture."""
    store, embed = open_store(path), StainTexture()
    for key, slide in store.slides.items():
        parts = [embed(slide[start : start + 64]) for start in range(0, len(slide), 64)]
        vectors = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
        record = EmbeddingRecord(
            encoder="stain-texture",
            dim=vectors.shape[1],
            weights_hash="benchmark",
            preprocessing={},
            pooling="",
            mpp=None,
            licence="",
            terms="",
            content_hash=slide.record.content_hash,
            settings={},
            fingerprint="benchmark",
        )
        write_embedding(store.bytes, key, record, vectors)
    return open_store(path)


def _formats(shared: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        slides = [shared / "slides" / name for name in ("CMU-1-Small-Region.svs", "CMU-1-Small-Region.dicom")]
        tile(slides, f"{folder}/s.zarr", TileConfig())
        store = embedded(Path(folder) / "s.zarr")
        found = find_copies(store, "stain-texture", CONFIG)
        first, second = store.slides.values()
        places = [tuple(xy) for xy in np.concatenate([first.xy, second.xy]).tolist()]
        gone = np.flatnonzero(found.copy_of >= 0)
        right = sum(places[row] == places[found.copy_of[row]] for row in gone)
        smaller = min(len(first), len(second))
        print(f"CMU-1 as SVS and DICOM: {right} of {smaller} found ({right / smaller:.1%}), {len(gone) - right} wrong")


def _distinct(shared: Path) -> None:
    slides = {
        "sections": (shared / "sections", TileConfig(mpp=0.7, slide_table=shared / "sections" / "sections.csv")),
        "TCGA-CR": (shared / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", TileConfig(default_mpp=0.5)),
        "CMU-1": (shared / "slides" / "CMU-1-Small-Region.svs", TileConfig()),
        "CropBreast": (shared / "slides" / "CropBreastSlide.tiff", TileConfig(default_mpp=0.5)),
    }
    for name, (path, config) in slides.items():
        with tempfile.TemporaryDirectory() as folder:
            tile(path, f"{folder}/s.zarr", config)
            store = embedded(Path(folder) / "s.zarr")
            if not len(store):
                print(f"distinct tissue, {name}: no patches")
                continue
            found = find_copies(store, "stain-texture", replace(CONFIG, threshold=-1.0))
            gone, counts = int((found.copy_of >= 0).sum()), found.pairs.counts()
            print(f"distinct tissue, {name}: {gone} of {len(store)} dropped ({gone / len(store):.2%}); pairs {counts}")


def _planted(shared: Path) -> None:
    true = got = wrong = 0
    for seed in (51, 52, 53, 54):
        with tempfile.TemporaryDirectory() as folder:
            slide = SyntheticSlide(width=5_120, height=5_120, mpp=0.5, seed=seed, tissue=0.7, copies=40)
            truth: GroundTruth = write_slide(Path(folder) / "slides" / "a.svs", slide)
            tile(Path(folder) / "slides", f"{folder}/s.zarr", TileConfig())
            store = embedded(Path(folder) / "s.zarr")
            found = find_copies(store, "stain-texture", CONFIG)
            row_of = {tuple(xy): row for row, xy in enumerate(next(iter(store.slides.values())).xy.tolist())}
            sides = [(row_of.get((c.x, c.y)), row_of.get((c.source_x, c.source_y))) for c in truth.copies]
            expected = {(min(a, b), max(a, b)) for a, b in sides if a is not None and b is not None}
            copies = found.pairs.having("copy")
            pairs = set(zip(found.pairs.a[copies].tolist(), found.pairs.b[copies].tolist(), strict=True))
            true, got, wrong = true + len(expected), got + len(pairs & expected), wrong + len(pairs - expected)
    precision, recall = got / max(1, got + wrong), got / max(1, true)
    print(f"planted in synthetic slides: precision {precision:.3f}, recall {recall:.3f} of {true}")


def _half_lattice(shared: Path) -> None:
    slide = cv2.cvtColor(cv2.imread(str(shared / "sections" / "5714_HE_BT_D1.jpg")), cv2.COLOR_BGR2RGB)[
        2_000:6_000, 2_000:6_000
    ]
    grids = []
    for start in (0, 128):
        corners = [(y, x) for y in range(start, 3_700, 256) for x in range(start, 3_700, 256)]
        patches = [np.ascontiguousarray(slide[y : y + 256, x : x + 256]) for y, x in corners]
        grids.append([(c, p) for c, p in zip(corners, patches, strict=True) if PreparedPatch(p).mask.mean() > 0.5])
    embed = StainTexture()
    base, moved = (np.concatenate([embed(patch[None]) for _, patch in grid]) for grid in grids)
    near = nearest_neighbours(base, 16, queries=moved)
    prepared = [[PreparedPatch(patch) for _, patch in grid] for grid in grids]
    found = wrong = possible = 0
    for row, (corner, _) in enumerate(grids[1]):
        over = {
            i
            for i, (other, _) in enumerate(grids[0])
            if max(abs(corner[0] - other[0]), abs(corner[1] - other[1])) == 128
        }
        if not over:
            continue
        possible += 1
        copies = {int(i) for i in near.index[row] if confirm(prepared[0][int(i)], prepared[1][row]).is_copy}
        found += bool(copies & over)
        wrong += len(copies - over)
    print(
        f"lattice moved by half a patch both ways: {found} of {possible} find an overlap ({found / possible:.1%}), "
        f"{wrong} wrong"
    )


def _files(shared: Path) -> list[tuple[str, Image]]:
    """Every second file of the sets, by name; of identical ones the first."""
    paths = [
        p
        for folder in ("oral/Normal", "oral/OSCC", "colorectal", "osteosarcoma")
        for p in sorted((shared / "patches" / folder).glob("*"))
    ]
    seen: set[bytes] = set()
    images = []
    for path in paths[::2]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            images.append((path.stem, np.asarray(image, dtype=np.uint8)))
    return images


def _sources(shared: Path) -> list[tuple[str, Image]]:
    """Squares of 336 px to cut 224-px patches from, by file: fields enlarged where they are no larger than a patch."""
    sources = []
    for name, image in _files(shared):
        if image.shape[0] >= 1_024:
            corners = ((0, 0), (0, 600), (600, 300))
            squares = [np.ascontiguousarray(image[y : y + 336, x : x + 336]) for y, x in corners]
        else:
            squares = [np.asarray(cv2.resize(image, (336, 336), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)]
        sources += [(name, square) for square in squares]
    return [source for source in sources if PreparedPatch(source[1][:224, :224].copy()).mask.mean() > 0.05]


def _overlap(first: str, second: str) -> bool:
    """Whether two files show one field: then a pair of them is neither right nor wrong."""
    return frozenset((first, second)) in _OVERLAPPING


def _score(name: str, files: list[str], originals: list[Image], copies: list[Image], criteria: Criteria) -> None:
    embed = StainTexture()
    patches = originals + copies
    vectors = np.concatenate([embed(patch[None]) for patch in patches])
    prepared = [PreparedPatch(patch) for patch in patches]
    pairs, _ = nearest_neighbours(vectors, 16).pairs(0.3)
    count = len(originals)
    proposed = right = alike = wrong = 0
    for a, b in pairs.tolist():
        true = a % count == b % count
        proposed += true
        if confirm(prepared[a], prepared[b], criteria).is_copy:
            overlap = not true and _overlap(files[a % count], files[b % count])
            right, alike, wrong = right + true, alike + overlap, wrong + (not true and not overlap)
    precision, recall = right / max(1, right + wrong), right / count
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    print(
        f"{name}: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f} of "
        f"{count} pairs ({proposed} proposed among {len(pairs)}; {alike} pairs of files that truly overlap, "
        f"were they wrong, precision {right / max(1, right + wrong + alike):.3f})"
    )


def _augmented(shared: Path) -> None:
    rng = np.random.default_rng(0)
    files, sources = zip(*_sources(shared), strict=True)
    originals = [np.ascontiguousarray(source[:224, :224]) for source in sources]
    copies = []
    for source in sources:
        dy, dx = rng.integers(0, 113, size=2)
        copies.append(changed(np.ascontiguousarray(source[dy : dy + 224, dx : dx + 224]), "together", rng))
    _score("augmented copies (shift to half, turn, JPEG, stain, rescan)", list(files), originals, copies, Criteria())


def _turned(shared: Path) -> None:
    """Files turned and cropped, as public sets augment them, imported and searched as a user would.

    Sources: `TURNED` files of the sets at 224 px, fields of 1,024 px as three squares; half of the copies mirrored.
    """
    rng = np.random.default_rng(5)
    files, squares = zip(*_sources(shared), strict=True)
    sources = [np.ascontiguousarray(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA)) for square in squares]
    chosen = np.sort(rng.permutation(len(sources))[:TURNED])
    with tempfile.TemporaryDirectory() as folder:
        for place, number in enumerate(chosen.tolist()):
            for kind, image in (("a", sources[number]), ("b", turned_and_cropped(sources[number], rng))):
                path = Path(folder) / "patches" / f"{place:03d}{kind}.png"
                path.parent.mkdir(exist_ok=True)
                cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        import_patches(Path(folder) / "patches", f"{folder}/s.zarr", ImportConfig(mpp=0.5, codec="zstd", workers=1))
        store = embedded(Path(folder) / "s.zarr")
        names = [Path(name).stem for slide in store.slides.values() for name in slide.names or []]
        clock = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(1) as alone:
            pairs = find_copies(
                store, "stain-texture", replace(CONFIG, threshold=0.3, turns="always"), executor=alone
            ).pairs
        spent, took = time.process_time() - clock[0], time.perf_counter() - clock[1]
        copies = pairs.having("copy")
        proposed = sum(names[a][:3] == names[b][:3] for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))
        right = alike = wrong = 0
        for a, b in zip(pairs.a[copies].tolist(), pairs.b[copies].tolist(), strict=True):
            first, second = int(names[a][:3]), int(names[b][:3])
            if first == second:
                right += 1
            elif _overlap(files[chosen[first]], files[chosen[second]]):
                alike += 1
            else:
                wrong += 1
    count = len(chosen)
    precision, recall = right / max(1, right + wrong), right / count
    print(
        f"turned to 25 degrees, mirrored, cropped, through a store: precision {precision:.3f}, recall {recall:.3f}, "
        f"F1 {2 * precision * recall / max(1e-9, precision + recall):.3f} of {count} pairs ({proposed} proposed among "
        f"{len(pairs)}; {alike} pairs of files that truly overlap); {len(pairs) / spent:.0f} pairs/s of processor "
        f"time, {took:.0f} s"
    )


def turned_and_cropped(original: Image, rng: np.random.Generator) -> Image:
    """A patch as public sets augment it: turned by up to 25 degrees, cropped to what is whole, mirrored or not."""
    edge, angle = len(original), float(rng.uniform(-25, 25))
    matrix = cv2.getRotationMatrix2D((edge / 2 - 0.5, edge / 2 - 0.5), angle, 1)
    whole = cv2.warpAffine(original, matrix, (edge, edge), flags=cv2.INTER_CUBIC)
    side = int(edge / (np.cos(np.deg2rad(abs(angle))) + np.sin(np.deg2rad(abs(angle)))))
    begin = (edge - side) // 2
    cut = cv2.resize(whole[begin : begin + side, begin : begin + side], (edge, edge), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.ascontiguousarray(cut[:, ::-1] if rng.random() < 0.5 else cut), dtype=np.uint8)


def picture(shared: Path, path: Path) -> None:
    """Ten confirmed pairs (CMU-1 in two formats, its copies changed), ten refused just below, ten serial ones."""
    rng = np.random.default_rng(0)
    rows: list[PatchPair] = []
    with tempfile.TemporaryDirectory() as folder:
        cmu = [shared / "slides" / name for name in ("CMU-1-Small-Region.svs", "CMU-1-Small-Region.dicom")]
        tile(cmu, f"{folder}/c.zarr", TileConfig())
        table = shared / "sections" / "sections.csv"
        tile(shared / "sections", f"{folder}/s.zarr", TileConfig(mpp=0.7, slide_table=table))
        for name in ("c", "s"):
            store = embedded(Path(folder) / f"{name}.zarr")
            pairs = find_copies(store, "stain-texture", replace(CONFIG, threshold=0.5)).pairs
            evidence = pairs.correlation * np.sqrt(pairs.overlap)
            for verdict in ("copy",) if name == "c" else ("refused", "serial"):
                chosen = np.flatnonzero(pairs.having(verdict))  # type: ignore[arg-type]
                order = -evidence[chosen] if verdict == "refused" else -pairs.similarity[chosen]
                for place in chosen[np.argsort(order, kind="stable")[: 5 if name == "c" else 10]]:
                    a, b = store[int(pairs.a[place])], store[int(pairs.b[place])]
                    numbers = (
                        f"cos {pairs.similarity[place]:.2f} r {pairs.correlation[place]:.2f} {pairs.overlap[place]:.0%}"
                    )
                    rows.append(PatchPair(a, b, f"{verdict} {numbers}"))
                    if name == "c":
                        turned = changed(a, "together", rng)
                        found = confirm(a, turned)
                        word = "copy" if found.is_copy else "refused"
                        rows.append(
                            PatchPair(a, turned, f"changed: {word} r {found.correlation:.2f} {found.overlap:.0%}")
                        )
    pair_sheet(rows, path)
    print(f"{len(rows)} pairs in {path}")
