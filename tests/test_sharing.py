"""Stores that are pickled and shared by threads, and executors with several threads a process."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import tree
from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig, TileConfig
from wsicurate.curation.copies.registration import Criteria, PreparedPatch, confirm
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.imports import import_patches
from wsicurate.steps.tile import tile

CODECS = ("jpeg", "zstd", "none")


@pytest.fixture(scope="module")
def stores(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store for each codec."""
    folder = tmp_path_factory.mktemp("shared")
    for codec in CODECS:
        settings = TileConfig(patch_px=128, max_patches_per_slide=12, workers=1, codec=codec)  # type: ignore[arg-type]
        tile(small_slides, folder / codec, settings)
    return {codec: folder / codec for codec in CODECS}


@pytest.mark.parametrize("codec", CODECS)
def test_an_open_store_can_be_pickled(stores: dict[str, Path], codec: str) -> None:
    store = open_store(stores[codec])
    unread = pickle.loads(pickle.dumps(store))
    first, all_of_them = store[0], store[:]
    for again in (unread, pickle.loads(pickle.dumps(store))):
        np.testing.assert_array_equal(again[0], first)
        np.testing.assert_array_equal(again[:], all_of_them)
        assert again.table().equals(store.table()) and list(again.slides) == list(store.slides)
    slide = pickle.loads(pickle.dumps(next(iter(store.slides.values()))))
    np.testing.assert_array_equal(slide[0], first)


@pytest.mark.parametrize("codec", CODECS)
def test_threads_share_an_open_store(stores: dict[str, Path], codec: str, rng: np.random.Generator) -> None:
    wanted = open_store(stores[codec])[:]
    store = open_store(stores[codec])
    rows = rng.integers(0, len(store), 120)
    with ThreadPoolExecutor(4) as threads:
        for row, patch in zip(rows, threads.map(lambda row: store[int(row)], rows), strict=True):
            np.testing.assert_array_equal(patch, wanted[row])
        for batch in threads.map(lambda _: store[:], range(4)):
            np.testing.assert_array_equal(batch, wanted)


@pytest.mark.parametrize("codec", CODECS)
def test_patches_can_be_written_to_and_are_their_callers(stores: dict[str, Path], codec: str) -> None:
    store = open_store(stores[codec])
    slide = next(iter(store.slides.values()))
    for patch in (slide[0], store[0], slide[:2], store[:2], slide[[0, 1]]):
        assert patch.flags.writeable and patch.flags.c_contiguous
        before = patch.copy()
        patch += 1
        assert not np.array_equal(patch, before)
        np.testing.assert_array_equal(slide[0], store[0])
        np.testing.assert_array_equal(slide[0], before if before.ndim == 3 else before[0])


def bytes_of(store: Path) -> dict[str, bytes]:
    """Arrays, marks and manifests: without the records of runs, and what a curation's record says of time."""
    return {
        name: data
        for name, data in tree(store).items()
        if not name.startswith("runs/") and not name.endswith("run.json")
    }


def write_images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(24):
        path = folder / f"slide{number % 4}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder


Verb = Callable[[Path, Path, Executor | None], object]

VERBS: dict[str, Verb] = {
    "tile": lambda store, slides, executor: tile(
        slides, store, TileConfig(patch_px=64, max_patches_per_slide=300, workers=4), executor=executor
    ),
    "embed": lambda store, _, executor: [
        embed(store, EmbedConfig(encoder=name, workers=4), executor=executor)
        for name in ("stain-texture", "filter-bank")
    ],
    "curate": lambda store, _, executor: curate(
        store,
        CurateConfig(encoder="stain-texture", budget=10, evaluate=False, copy_threshold=0.3, workers=4),
        executor=executor,
    ),
    "check": lambda store, _, executor: check(store, workers=4, executor=executor),
    "import": lambda store, slides, executor: import_patches(
        write_images(slides.parent / "images"), store, ImportConfig(workers=4), executor=executor
    ),
}


def finished(
    verb: str, folder: Path, prepared: Path | None, slides: Path, executor: Executor | None
) -> dict[str, bytes]:
    store = folder / "store"
    if prepared is not None:
        shutil.copytree(prepared, store)
    report = VERBS[verb](store, slides, executor)
    assert getattr(report, "exit_status", 0) == 0, report
    return bytes_of(store)


@pytest.fixture(scope="module")
def embedded(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with patches on coordinates alone, so that every task opens slides, and vectors."""
    store = tmp_path_factory.mktemp("threads") / "store"
    tile(small_slides, store, TileConfig(patch_px=128, max_patches_per_slide=8, workers=1, codec="none"))
    for name in ("stain-texture", "filter-bank"):
        embed(store, EmbedConfig(encoder=name, workers=1))
    return store


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=pytest.mark.slow if verb == "curate" else ()) for verb in VERBS]
)
def test_four_threads_give_the_bytes_of_a_pool(
    verb: str, embedded: Path, stores: dict[str, Path], small_slides: Path, tmp_path: Path
) -> None:
    prepared = {"curate": embedded, "check": embedded, "embed": stores["none"]}.get(verb)
    one = ThreadPoolExecutor(1) if verb == "curate" else None  # whose processes would import for ten seconds
    wanted = finished(verb, tmp_path / "pool", prepared, small_slides, one)
    for again in range(1 if verb == "curate" else 2):
        with ThreadPoolExecutor(4) as threads:
            found = finished(verb, tmp_path / f"threads{again}", prepared, small_slides, threads)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []


def test_nothing_depends_on_opencv_s_threads(small_slides: Path, tmp_path: Path) -> None:
    """Whatever a program has set, bytes and vectors are the same; nobody has to set it for us."""
    before, found = cv2.getNumThreads(), []
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            store = tmp_path / str(count)
            with ThreadPoolExecutor(1) as one:
                tile(small_slides, store, TileConfig(patch_px=128, max_patches_per_slide=6), executor=one)
                for name in ("stain-texture", "filter-bank"):
                    embed(store, EmbedConfig(encoder=name), executor=one)
            patches = [PreparedPatch(patch) for patch in open_store(store)[:4]]
            turned = [PreparedPatch(np.ascontiguousarray(np.rot90(patch))) for patch in open_store(store)[:4]]
            evidence = [confirm(a, b, Criteria(turns=True)) for a, b in zip(patches, turned[::-1], strict=True)]
            found.append((bytes_of(store), [(each.correlation, each.overlap) for each in evidence]))
            assert cv2.getNumThreads() == count
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1]
