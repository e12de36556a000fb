"""The search for copies, end to end: synthetic slides with planted copies, real slides of one region, bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.steps.made import SELECTION_ENCODER, Made, again, directions, make_store, near, tissue
from wsicurate.config import TileConfig
from wsicurate.curation.copies.groups import Copies
from wsicurate.embedding.descriptors.stain_texture import StainTexture
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    CurationError,
    EmbeddingMissingError,
    EncoderError,
    VectorError,
)
from wsicurate.opening import open_store
from wsicurate.steps.curating.copy_search import find_copies, stored_best_first
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.curating.copy_threshold import calibrate_threshold
from wsicurate.steps.tile import tile
from wsicurate.store.embeddings import EmbeddingRecord, write_embedding
from wsicurate.store.store import Store
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.synthetic.slide import write_slide

NAME = "stain-texture"
THREAD = ThreadPoolExecutor(1)  # a pool of processes takes seconds to start; one slow test has one
ALONE = CopiesConfig(workers=1, turns="never", calibration_patches=40)


def embedded(path: Path, *, weights: str = "w", content: str | None = None, spoil: float | None = None) -> Store:
    store, embed = open_store(path), StainTexture()
    for key, slide in store.slides.items():
        vectors = np.asarray(embed(slide[:]), dtype=np.float32) if len(slide) else np.empty((0, 8), np.float32)
        if spoil is not None:
            vectors[1] = spoil
        record = EmbeddingRecord(
            encoder=NAME,
            dim=vectors.shape[1],
            weights_hash=weights,
            preprocessing={},
            pooling="",
            mpp=None,
            licence="",
            terms="",
            content_hash=slide.record.content_hash if content is None else content,
            settings={},
            fingerprint="f",
        )
        write_embedding(store.bytes, key, record, vectors)
    return open_store(path)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, GroundTruth]:
    """A slide with eight patches planted again, and one of another patient without."""
    folder = tmp_path_factory.mktemp("planted")
    slide = SyntheticSlide(width=2_304, height=2_304, mpp=0.5, seed=21, tissue=0.7, copies=8)
    truth = write_slide(folder / "slides" / "a.svs", slide)
    write_slide(folder / "slides" / "b.svs", replace(slide, seed=22, copies=0, width=1_280, height=1_280))
    tile(folder / "slides", folder / "s.zarr", TileConfig(workers=1))
    return embedded(folder / "s.zarr"), truth


@pytest.fixture(scope="module")
def found(planted: tuple[Store, GroundTruth]) -> Copies:
    return find_copies(planted[0], NAME, ALONE, embed=StainTexture(), executor=THREAD)


def truth_pairs(store: Store, truth: GroundTruth) -> set[tuple[int, int]]:
    """Rows of the planted pairs of which both are stored."""
    row_of = {tuple(xy): row for row, xy in enumerate(next(iter(store.slides.values())).xy.tolist())}
    pairs = [(row_of.get((c.x, c.y)), row_of.get((c.source_x, c.source_y))) for c in truth.copies]
    return {(min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None}


def test_planted_copies_are_found_and_nothing_else(planted: tuple[Store, GroundTruth], found: Copies) -> None:
    store, truth = planted
    expected = truth_pairs(store, truth)
    assert len(expected) >= 6
    copies = found.pairs.having("copy")
    got = set(zip(found.pairs.a[copies].tolist(), found.pairs.b[copies].tolist(), strict=True))
    assert len(got & expected) >= 0.95 * len(expected)
    assert len(got - expected) == 0
    gone = np.flatnonzero(found.copy_of >= 0)
    assert len(gone) == len(got)
    rank = np.argsort(stored_best_first(store))
    assert (rank[found.copy_of[gone]] < rank[gone]).all()


def test_the_record_says_how_it_was_decided(found: Copies) -> None:
    calibration = found.record["calibration"]
    assert calibration["note"] == "calibrated"
    assert calibration["recall"]["together"] >= 0.97
    assert found.record["threshold"] == calibration["threshold"]
    assert found.record["pairs"]["copy"] == found.record["copies"]
    assert found.record["pairs"]["unchecked"] == 0
    assert not found.leaked.any()
    assert found.evaluation_pairs == ()


@pytest.mark.slow
def test_workers_change_nothing(planted: tuple[Store, GroundTruth], found: Copies) -> None:
    again = find_copies(planted[0], NAME, replace(ALONE, workers=3), embed=StainTexture())
    for name in ("a", "b", "similarity", "correlation", "overlap", "verdict"):
        assert getattr(again.pairs, name).tobytes() == getattr(found.pairs, name).tobytes()
    assert again.copy_of.tobytes() == found.copy_of.tobytes()
    assert again.record == found.record


def test_pairs_beyond_the_bound_are_unchecked_and_stay(planted: tuple[Store, GroundTruth]) -> None:
    done: list[tuple[int, int]] = []
    few = find_copies(
        planted[0],
        NAME,
        replace(ALONE, threshold=0.0, max_pairs=20),
        executor=THREAD,
        progress=lambda *p: done.append(p),
    )
    unchecked = few.pairs.having("unchecked")
    assert (~unchecked).sum() == 20
    assert few.pairs.similarity[~unchecked].min() >= few.pairs.similarity[unchecked].max()
    assert set(few.copy_of[few.copy_of >= 0].tolist()) <= set(few.pairs.a[~unchecked]) | set(few.pairs.b[~unchecked])
    assert done[-1] == (20, 20)


@pytest.mark.slow
def test_copies_of_the_evaluation_store_leak_with_their_group(
    planted: tuple[Store, GroundTruth], tmp_path: Path
) -> None:
    store, truth = planted
    slide = SyntheticSlide(width=2_304, height=2_304, mpp=0.5, seed=21, tissue=0.7, copies=8)
    write_slide(tmp_path / "slides" / "again.svs", replace(slide, quality=50))
    tile(tmp_path / "slides", tmp_path / "e.zarr", TileConfig(workers=1, max_patches_per_slide=12))
    evaluation = embedded(tmp_path / "e.zarr")
    result = find_copies(store, NAME, replace(ALONE, threshold=0.8), evaluations=[evaluation], executor=THREAD)
    xy = next(iter(store.slides.values())).xy
    held = {tuple(corner) for corner in next(iter(evaluation.slides.values())).xy.tolist()}
    direct = np.array([tuple(corner) in held for corner in xy.tolist()])
    expected = direct.copy()
    for a, b in truth_pairs(store, truth):
        expected[[a, b]] |= direct[a] | direct[b]
    assert direct.sum() == 12
    assert result.leaked[: len(xy)][direct].mean() >= 0.9
    assert not result.leaked[: len(xy)][~expected].any()
    assert not result.leaked[len(xy) :].any()
    assert result.record["leaked"] == result.leaked.sum()


def test_one_region_in_two_formats(shared: Path, tmp_path: Path) -> None:
    slides = [shared / "slides" / "CMU-1-Small-Region.svs", shared / "slides" / "CMU-1-Small-Region.dicom"]
    tile(slides, tmp_path / "s.zarr", TileConfig(workers=1))
    store = embedded(tmp_path / "s.zarr")
    result = find_copies(store, NAME, replace(ALONE, threshold=0.8), executor=THREAD)
    first, second = store.slides.values()
    places = [tuple(xy) for xy in np.concatenate([first.xy, second.xy]).tolist()]
    gone = np.flatnonzero(result.copy_of >= 0)
    assert len(gone) >= 0.95 * min(len(first), len(second))
    assert all(places[row] == places[result.copy_of[row]] for row in gone)


def spoiled(planted: tuple[Store, GroundTruth], tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(planted[0].path, tmp_path / "copy.zarr"))


def test_bad_input_is_refused_in_words(planted: tuple[Store, GroundTruth], tmp_path: Path) -> None:
    store, _ = planted
    with pytest.raises(EmbeddingMissingError, match="uni"):
        find_copies(store, "uni", ALONE)
    with pytest.raises(CurationError, match="give embed, or a threshold"):
        find_copies(store, NAME, ALONE)
    other = spoiled(planted, tmp_path)
    with pytest.raises(EncoderError, match="different weights"):
        find_copies(store, NAME, replace(ALONE, threshold=0.9), evaluations=[embedded(other, weights="x")])
    with pytest.raises(CorruptStoreError, match="other patches"):
        find_copies(embedded(other, content="0"), NAME, replace(ALONE, threshold=0.9))
    with pytest.raises(VectorError, match="vector 1 is zero"):
        find_copies(embedded(other, spoil=0.0), NAME, replace(ALONE, threshold=0.9))
    for wrong, word in (
        ({"turns": "maybe"}, "turns"),
        ({"threshold": 2.0}, "threshold"),
        ({"candidates": 0}, "candid"),
    ):
        with pytest.raises(ConfigError, match=word):
            CopiesConfig(**wrong)


def test_what_does_not_count_does_not_crowd_out_what_does(tmp_path: Path) -> None:
    """Twenty look-alikes of low quality lie nearer to a patch than its copy: more than there are candidates."""
    base = directions(1, 1)
    copy = near(base, 7, off=0.6)
    between = np.repeat((base + copy) / 2, 20, axis=0)
    originals, others = tissue(1, 1), tissue(2, 20)
    vectors = np.concatenate([base, copy, near(between, 3, off=0.05)])
    pixels = np.concatenate([originals, again(originals), others])
    store = make_store(tmp_path / "s.zarr", {"a": Made(pixels, vectors, patient="P")})
    good = np.arange(22) < 2
    config = replace(ALONE, threshold=0.7, candidates=16)
    everything = find_copies(store, SELECTION_ENCODER, config, executor=THREAD)
    assert not everything.pairs.having("copy").any()
    found = find_copies(store, SELECTION_ENCODER, config, among=good, executor=THREAD)
    assert (found.pairs.a.tolist(), found.pairs.b.tolist()) == ([0], [1])
    assert found.pairs.having("copy").all() and (found.copy_of >= 0).sum() == 1
    nothing = find_copies(store, SELECTION_ENCODER, config, among=np.zeros(22, dtype=bool), executor=THREAD)
    assert len(nothing.pairs) == 0 and not (nothing.copy_of >= 0).any()


def test_what_does_not_count_does_not_crowd_out_leaks(tmp_path: Path) -> None:
    base = directions(1, 1)
    originals = tissue(1, 1)
    pixels = np.concatenate([originals, tissue(2, 20)])
    vectors = np.concatenate([near(base, 7, off=0.4), near(np.repeat(base, 20, axis=0), 3, off=0.1)])
    store = make_store(tmp_path / "s.zarr", {"a": Made(pixels, vectors)})
    evaluation = make_store(tmp_path / "e.zarr", {"e": Made(again(originals), base)})
    for among in (None, np.arange(21) < 1):
        found = find_copies(
            store,
            SELECTION_ENCODER,
            replace(ALONE, threshold=0.8),
            evaluations=[evaluation],
            among=among,
            executor=THREAD,
        )
        assert found.leaked.tolist() == [True] + 20 * [False]


def test_the_threshold_is_calibrated_among_what_counts(tmp_path: Path) -> None:
    """Blurred patches that look like another patient's do not raise the similarity that chance reaches."""
    one, other = tissue(1, 12), tissue(2, 12)
    blurred = np.repeat(tissue(3, 1), 12, axis=0)
    embed = StainTexture()

    def made(pixels: NDArray[np.uint8], patient: str) -> Made:
        return Made(pixels, np.asarray(embed(pixels)), patient=patient)

    slides = {"a": made(np.concatenate([one, blurred]), "P"), "b": made(np.concatenate([other, blurred]), "Q")}
    store = make_store(tmp_path / "s.zarr", slides)
    good = np.tile(np.arange(24) < 12, 2)
    config = CopiesConfig(calibration_patches=10, recall=None)
    for among, low in ((None, 0.999), (good, 0.0)):
        found = calibrate_threshold(store, store.vectors(SELECTION_ENCODER), embed, config, among=among)
        assert found.strict is not None and (found.strict > 0.999) == (low > 0)


def test_look_alikes_that_follow_one_motion_are_serial_cuts(tmp_path: Path) -> None:
    """Two slides of one patient whose patches look alike place by place and share no pixel; and one of another's."""
    base = directions(1, 60)
    slides = {
        "a": Made(tissue(1, 60), base, patient="P"),
        "b": Made(tissue(2, 60), near(base, 2), patient="P"),
        "c": Made(tissue(3, 60), near(base, 3), patient="Q"),
        "d": Made(tissue(4, 60), near(base, 4), patient="P", reading={"lattice": "virtual"}),
    }
    store = make_store(tmp_path / "s.zarr", slides)
    found = find_copies(store, SELECTION_ENCODER, replace(ALONE, threshold=0.9), executor=THREAD)
    slide = np.repeat(np.arange(4), 60)
    both = {tuple(pair) for pair in np.stack([slide[found.pairs.a], slide[found.pairs.b]], axis=1).tolist()}
    assert both == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    serial = found.pairs.having("serial")
    assert (found.pairs.having("refused") | serial).all()
    of_one_block = (slide[found.pairs.a] == 0) & (slide[found.pairs.b] == 1)
    np.testing.assert_array_equal(serial, of_one_block)
    assert serial.sum() == 60 and found.record["pairs"]["serial"] == 60
    assert not (found.copy_of >= 0).any()


def test_no_more_candidates_of_a_patch_than_asked_for(tmp_path: Path) -> None:
    vectors = near(np.repeat(directions(1, 1), 12, axis=0), 2, off=0.1)
    store = make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 12), vectors)})
    for candidates in (1, 4):
        found = find_copies(
            store, SELECTION_ENCODER, replace(ALONE, threshold=0.5, candidates=candidates), executor=THREAD
        )
        asked = np.bincount(np.concatenate([found.pairs.a, found.pairs.b]), minlength=12)
        assert len(found.pairs) <= 12 * candidates and (asked >= 1).all()
        assert found.record["neighbours"]["k"] == candidates


def test_what_is_kept_is_no_copy_and_leaks_all_the_same(tmp_path: Path) -> None:
    """Rows 0, 1, 2 show one field, 0 and 1 of them are kept; row 3 is a copy of row 2's scan, and so of all."""
    field, base = tissue(1, 1), directions(1, 1)
    pixels = np.concatenate([field, again(field, 1), again(field, 2), tissue(5, 1)])
    vectors = np.concatenate([near(np.repeat(base, 3, axis=0), 1), directions(9, 1)])
    store = make_store(tmp_path / "s.zarr", {"a": Made(pixels, vectors, focus=[3, 4, 9, 5])})
    kept = np.array([True, True, False, False])
    config = replace(ALONE, threshold=0.8)
    plain = find_copies(store, SELECTION_ENCODER, config, executor=THREAD)
    assert plain.copy_of.tolist() == [2, 2, -1, -1] == plain.groups.tolist()
    found = find_copies(store, SELECTION_ENCODER, config, kept=kept, executor=THREAD)
    assert found.copy_of.tolist() == [-1, -1, 1, -1]  # of the kept ones, the sharper stands for the newcomer
    assert found.groups.tolist() == [1, -1, 1, -1]
    evaluation = make_store(tmp_path / "e.zarr", {"e": Made(again(field, 3), near(base, 8))})
    leaking = find_copies(store, SELECTION_ENCODER, config, kept=kept, evaluations=[evaluation], executor=THREAD)
    assert leaking.leaked.tolist() == [True, True, True, False]


def test_empty_stores_are_refused_in_words(planted: tuple[Store, GroundTruth], tmp_path: Path) -> None:
    write_slide(tmp_path / "slides" / "blank.svs", SyntheticSlide(width=1_024, height=1_024, mpp=0.5, tissue=0.0))
    tile(tmp_path / "slides", tmp_path / "blank.zarr", TileConfig(workers=1))
    blank = open_store(tmp_path / "blank.zarr")
    assert len(blank) == 0
    with pytest.raises(CurationError, match="evaluation store .* holds no patches"):
        find_copies(planted[0], NAME, replace(ALONE, threshold=0.9), evaluations=[blank])
    with pytest.raises(CurationError, match="holds no patches"):
        find_copies(blank, NAME, replace(ALONE, threshold=0.9))


def test_the_best_patch_comes_first(planted: tuple[Store, GroundTruth]) -> None:
    order: NDArray[np.int64] = stored_best_first(planted[0])
    focus = planted[0].table()["focus"].to_numpy()
    assert (np.diff(focus[order]) <= 0).all()
