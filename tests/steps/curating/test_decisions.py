"""What `curate` decides and keeps, on stores that are made by hand: each test is about one line that decides."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import wsicurate.steps.curate as curate_module
from tests.conftest import tree
from tests.steps.made import EVALUATION_ENCODER, SELECTION_ENCODER, Made, again, directions, make_store, near, tissue
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering import hierarchy
from wsicurate.curation.copies.registration import confirm
from wsicurate.engine.progress import Progress
from wsicurate.errors import CurationError, LeaseLostError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.curating import copies as clearing_copies
from wsicurate.steps.curating import copy_evidence as confirming
from wsicurate.steps.curating import draw as drawing
from wsicurate.steps.curating import inputs as curate_inputs
from wsicurate.store.arrays import to_json
from wsicurate.store.checksums import CHECKSUM, UNSEALED, seal
from wsicurate.store.layout import curation_work_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.owners import this_process

PLAIN: dict[str, Any] = {"encoder": SELECTION_ENCODER, "copies": "none", "evaluate": False, "copy_threshold": 0.8}


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def run(executor: ThreadPoolExecutor) -> Any:
    def curated(store: Path, progress: Any = None, **settings: Any) -> CurateReport:
        more = {} if progress is None else {"progress": progress}
        return curate(store, CurateConfig(**{**PLAIN, **settings}), executor=executor, **more)

    return curated


def manifest(store: Path, name: str = "default") -> pd.DataFrame:
    table = open_store(store).curation(name).manifest().to_pandas()
    return table.assign(decision=table["decision"].astype(str), reason=table["reason"].astype(str))


def of_slide(table: pd.DataFrame, slide_id: str) -> pd.DataFrame:
    return table[table["slide_id"] == slide_id].reset_index(drop=True)


# Copies and leaks


def test_copies_of_a_listed_patient_s_patches_leak_with_their_group(run: Any, tmp_path: Path) -> None:
    """Slide b, of nobody who is listed, holds scans of slide a's fields; c is tissue of its own."""
    fields, vectors = tissue(1, 6), directions(1, 6)
    slides = {
        "a": Made(fields, vectors, patient="P"),
        "b": Made(again(fields), near(vectors), patient="Q"),
        "c": Made(tissue(2, 6), directions(2, 6), patient="R"),
    }
    make_store(tmp_path / "s.zarr", slides)
    (tmp_path / "listed.txt").write_text("P\n")
    run(tmp_path / "s.zarr", copies="confirmed", exclude_patients=tmp_path / "listed.txt", budget=1.0)
    table = manifest(tmp_path / "s.zarr")
    assert of_slide(table, "a")["reason"].tolist() == 6 * ["listed: P"]
    assert of_slide(table, "b")["decision"].tolist() == 6 * ["leakage"]
    assert of_slide(table, "b")["reason"].tolist() == 6 * ["in the group of a listed patient's patch"]
    assert of_slide(table, "c")["decision"].tolist() == 6 * ["selected"]


def test_a_copy_of_evaluation_data_says_of_what_and_takes_its_group_with_it(run: Any, tmp_path: Path) -> None:
    """Row 2 is nearer to rows 0 and 1 than to the evaluation patch: it goes as a member of their group."""
    field, base = tissue(1, 1), directions(1, 1)
    pixels = np.concatenate([field, again(field, 1), tissue(3, 2)])
    vectors = np.concatenate([base, near(base, 2), directions(7, 2)])
    make_store(tmp_path / "s.zarr", {"a": Made(pixels, vectors)})
    beyond = near(base, 5, off=0.7)  # similar to row 0 alone
    while not (beyond @ vectors[0] > 0.8 > beyond @ vectors[1])[0]:
        beyond = near(base, int(1e6 * abs(beyond[0, 0])), off=0.7)
    make_store(tmp_path / "e.zarr", {"e": Made(np.concatenate([tissue(9, 1), again(field, 4)]),
                                               np.concatenate([directions(8, 1), beyond]))})  # fmt: skip
    report = run(tmp_path / "s.zarr", copies="confirmed", evaluation_sets=[tmp_path / "e.zarr"], budget=1.0)
    table = manifest(tmp_path / "s.zarr")
    assert table["decision"].tolist() == ["leakage", "leakage", "selected", "selected"]
    assert table["reason"][0].startswith("copy of e row 1 of e.zarr: correlation 1.00 over 100%")
    assert table["reason"][1] == "in the group of a copy of e.zarr"
    assert report.run["copies"]["decided"]["leaked by stores"] == {
        str(tmp_path / "e.zarr"): {"copies": 1, "their groups": 1}
    }


def test_a_copy_names_the_row_that_stays_among_several_resolutions(run: Any, tmp_path: Path) -> None:
    """One slide is there at two resolutions: slide and row alone do not say which patch a copy is of."""
    fields, vectors = tissue(1, 3), directions(1, 3)
    for mpp, focus, seed in ((0.5, 4.0, 1), (1.0, 6.0, 2)):
        pixels = again(fields, seed)
        make_store(tmp_path / "s.zarr", {"a": Made(pixels, near(vectors, seed), mpp=mpp, focus=focus)})
    make_store(tmp_path / "s.zarr", {"b": Made(again(fields, 3), near(vectors, 3), focus=2.0)})
    run(tmp_path / "s.zarr", copies="confirmed", min_focus=0.0, budget=1.0)
    table = manifest(tmp_path / "s.zarr")
    copies = table[table["decision"] == "copy"]
    assert len(copies) == 6
    assert copies["copy_of_mpp"].tolist() == 6 * [1.0]
    assert table.loc[table["decision"] != "copy", ["copy_of_slide", "copy_of_mpp", "copy_of_row"]].isna().all().all()
    stays = table.set_index(["slide_id", "mpp", "row"])["decision"]
    for copy in copies.itertuples():
        assert stays[(copy.copy_of_slide, copy.copy_of_mpp, int(copy.copy_of_row))] == "selected"
        assert copy.reason.startswith("correlation 1.00 over 100%")


def test_the_evaluation_patch_that_is_confirmed_best_is_named(run: Any, tmp_path: Path) -> None:
    """Three scans of one field are evaluation data: a moved one, a noisy one, and one that is nearly the same."""
    field, base = tissue(1, 1), directions(1, 1)
    moved = np.concatenate([field[:, :, 40:], tissue(6, 1)[:, :, :40]], axis=2)
    assert confirm(field[0], moved[0]).is_copy and confirm(field[0], moved[0]).overlap < 0.6
    noise = np.random.default_rng(0).integers(-60, 60, field.shape)
    noisy = (field.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    scans = np.concatenate([moved, noisy, again(field), noisy])
    make_store(tmp_path / "s.zarr", {"a": Made(np.concatenate([field, tissue(3, 2)]), directions(1, 3))})
    make_store(tmp_path / "e.zarr", {"e": Made(scans, near(np.repeat(directions(1, 3)[:1], 4, axis=0)))})
    run(tmp_path / "s.zarr", copies="confirmed", evaluation_sets=[tmp_path / "e.zarr"], budget=1)
    table = manifest(tmp_path / "s.zarr")
    assert table["decision"].tolist()[0] == "leakage" and base.shape == (1, 16)
    assert table["reason"][0].startswith("copy of e row 2 of e.zarr: correlation 1.00 over 100%")


@pytest.mark.parametrize("listed", [True, False])
def test_dinov2_s_rule_takes_components_of_evaluation_data_and_of_listed_patients(
    run: Any, tmp_path: Path, listed: bool
) -> None:
    """Three components: one touches the evaluation data, one holds a listed patient's patch, one is of its own."""
    heads = directions(4, 3)
    assert np.abs(heads @ heads.T - np.eye(3)).max() < 0.4
    of = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    vectors = near(heads[of], off=0.3)
    slides = {
        "a": Made(tissue(1, 8), vectors[:8], patient="P", focus=[4, 5, 6, 7, 8, 4, 5, 6]),
        "b": Made(tissue(2, 2), np.concatenate([near(heads[1:2], 7, off=0.3), directions(9, 1)]), patient="Q"),
    }
    make_store(tmp_path / "s.zarr", slides)
    make_store(tmp_path / "e.zarr", {"e": Made(tissue(3, 2), np.concatenate([near(heads[:1], 5), -heads[2:]]))})
    (tmp_path / "listed.txt").write_text("Q\n")
    settings = {"exclude_patients": tmp_path / "listed.txt"} if listed else {}
    run(tmp_path / "s.zarr", copies="dinov2", evaluation_sets=[tmp_path / "e.zarr"], budget=1, **settings)
    table = manifest(tmp_path / "s.zarr")
    words = "in one component with evaluation data or a listed patient (DINOv2's rule)"
    leaks = (table["reason"] == words).to_numpy()
    in_first, in_second = np.append(of[:8] == 0, [False, False]), np.append(of[:8] == 1, [False, False])
    np.testing.assert_array_equal(leaks, in_first | (in_second & listed))
    copies = table[table["decision"] == "copy"]
    assert (copies["reason"] == "in one component with the patch that stays (DINOv2's rule)").all()
    stays = {(copy.slide_id, copy.row): copy.copy_of_row for copy in copies.itertuples()}
    third, second = {("a", 5): 2}, {("a", 1): 4, ("a", 7): 4, ("b", 0): 4}  # rows 2 and 4 are the sharpest
    assert stays == (third if listed else third | second)


@pytest.mark.parametrize("copies", ["none", "confirmed", "dinov2"])
def test_what_is_like_evaluation_data_leaks_above_a_threshold(run: Any, tmp_path: Path, copies: str) -> None:
    """Cosines to the nearest patch of two evaluation stores; no pixel is alike."""
    axes = np.eye(8)
    cosines = [0.96, 0.94, 0.2, 0.97]
    vectors = np.array([[c, 0, 0, 0, 0, 0, 0, 0] for c in cosines])
    vectors[3] = (0, 0.97, 0, 0, 0, 0, 0, 0)
    for row, cosine in enumerate(cosines):
        vectors[row, 2 + row] = np.sqrt(1 - cosine**2)
    make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 4), vectors)})
    make_store(tmp_path / "e.zarr", {"e": Made(tissue(2, 2), axes[[0, 7]])})
    make_store(tmp_path / "f.zarr", {"f": Made(tissue(3, 1), axes[[1]])})
    stores = [tmp_path / "e.zarr", tmp_path / "f.zarr"]
    settings = {"copies": copies, "evaluation_sets": stores, "leakage_threshold": 0.95}
    report = run(tmp_path / "s.zarr", budget=1, **settings)
    table = manifest(tmp_path / "s.zarr")
    if copies == "dinov2":  # its own threshold, 0.45, comes first
        assert table["decision"].tolist() == ["leakage", "leakage", "selected", "leakage"]
        return
    assert table["decision"].tolist()[0] == table["decision"].tolist()[3] == "leakage"
    assert not (table["decision"][[1, 2]] == "leakage").any() and report.selected == 1
    assert table["reason"][0] == "cosine above 0.95 to a patch of e.zarr"
    assert table["reason"][3] == "cosine above 0.95 to a patch of f.zarr"
    found = report.run["copies"]["leakage by similarity"]
    assert found == {"threshold": 0.95, "dropped": {str(path): 1 for path in stores}}


def test_where_the_encoder_is_not_at_hand_the_preset_s_threshold_is_taken_and_said(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing_copies, "reembedder", lambda *_: (None, "its weights are gated"))
    copied_store(tmp_path / "s.zarr")
    report = run(tmp_path / "s.zarr", copies="confirmed", copy_threshold=None, budget=1)
    assert report.run["copies"]["threshold"] == 0.9 and report.counts["copy"] == 12
    assert report.run["copies"]["calibration"]["note"] == "uncalibrated: the threshold was given"
    notes = [note for note in report.run["notes"] if "uncalibrated (0.9): its weights are gated" in note]
    assert len(notes) == 1


def test_one_patient_gives_no_calibration_and_that_is_said(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def reembedder(*args: Any) -> Any:
        asked.append(args)
        return lambda pixels: pixels.mean(axis=(1, 2)), ""

    monkeypatch.setattr(clearing_copies, "reembedder", reembedder)
    make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 6), directions(1, 6))})
    report = run(tmp_path / "s.zarr", copies="confirmed", copy_threshold=None, budget=1, weights="w.pth", arch="vit")
    assert any("the candidates' threshold is uncalibrated: fewer than two" in note for note in report.run["notes"])
    assert report.run["copies"]["threshold"] == 0.9
    ((record, weights, arch),) = asked
    assert (record.encoder, weights, arch) == (SELECTION_ENCODER, Path("w.pth"), "vit")


def test_the_sharpest_of_a_group_stays_then_that_with_most_tissue(run: Any, tmp_path: Path) -> None:
    field, base = tissue(1, 1), directions(1, 1)
    pixels = np.concatenate([again(field, seed) for seed in range(4)])
    vectors = near(np.repeat(base, 4, axis=0))
    made = Made(pixels, vectors, focus=[4, 6, 6, 5], tissue=[1, 0.7, 0.9, 1])
    make_store(tmp_path / "s.zarr", {"a": made})
    run(tmp_path / "s.zarr", copies="confirmed", budget=1)
    assert manifest(tmp_path / "s.zarr")["decision"].tolist() == ["copy", "copy", "selected", "copy"]


def test_look_alikes_that_are_discarded_do_not_hide_a_copy(run: Any, tmp_path: Path) -> None:
    base = directions(1, 1)
    copy = near(base, 7, off=0.6)
    field = tissue(1, 1)
    pixels = np.concatenate([field, again(field), tissue(2, 20)])
    vectors = np.concatenate([base, copy, near(np.repeat((base + copy) / 2, 20, axis=0), 3)])
    make_store(tmp_path / "s.zarr", {"a": Made(pixels, vectors, focus=[5, 6] + 20 * [1])})
    run(tmp_path / "s.zarr", copies="confirmed", copy_threshold=0.7, budget=1)
    assert manifest(tmp_path / "s.zarr")["decision"].tolist() == ["copy", "selected"] + 20 * ["low_quality"]


def test_a_patch_that_is_dropped_for_its_quality_stands_for_no_other(run: Any, tmp_path: Path) -> None:
    """The sharper of two copies has too little tissue: the other one stays."""
    field = tissue(1, 1)
    made = Made(np.concatenate([field, again(field)]), near(np.repeat(directions(1, 1), 2, axis=0)), focus=[9, 4])
    make_store(tmp_path / "s.zarr", {"a": dataclasses.replace(made, tissue=[0.3, 0.9])})
    run(tmp_path / "s.zarr", copies="confirmed", budget=1)
    assert manifest(tmp_path / "s.zarr")["decision"].tolist() == ["low_quality", "selected"]
    assert manifest(tmp_path / "s.zarr")["reason"][0] == "tissue < 0.5"


# What is kept


def kept_store(path: Path) -> None:
    """Fifteen fields of a slide, of which an earlier curation has chosen ten."""
    make_store(path, {"a": Made(tissue(1, 15), directions(1, 15), patient="P", focus=4.0)})


def rescan(path: Path, **more: Any) -> None:
    """The same tissue, scanned again and sharper, as another slide."""
    fields, vectors = tissue(1, 15), directions(1, 15)
    make_store(path, {"b": Made(again(fields), near(vectors), **{"patient": "P", "focus": 9.0, **more})})


@pytest.mark.parametrize("rule", ["confirmed", "dinov2"])
def test_a_sharper_rescan_does_not_evict_what_is_kept(run: Any, tmp_path: Path, rule: str) -> None:
    store = tmp_path / "s.zarr"
    kept_store(store)
    run(store, name="first", budget=10)
    chosen = manifest(store, "first")["selected"].to_numpy()
    rescan(store)
    report = run(store, name="second", keep="first", copies=rule, budget=12)
    a, b = (of_slide(manifest(store, "second"), name) for name in "ab")
    assert a.loc[chosen, "decision"].tolist() == 10 * ["selected"]
    assert b.loc[chosen, "decision"].tolist() == 10 * ["copy"]
    assert b.loc[chosen, "copy_of_slide"].tolist() == 10 * ["a"]
    assert b.loc[chosen, "copy_of_row"].tolist() == a.loc[chosen, "row"].tolist()
    assert a.loc[~chosen, "decision"].tolist() == 5 * ["copy"]  # of what nobody keeps, the sharper stays
    assert report.selected == 12 and "10 patches kept from first" in report.run["notes"]
    assert not any("are not kept" in note for note in report.run["notes"])


@pytest.mark.parametrize("rule", ["confirmed", "dinov2"])
def test_kept_patches_stay_even_if_they_are_copies_of_each_other(run: Any, tmp_path: Path, rule: str) -> None:
    store = tmp_path / "s.zarr"
    kept_store(store)
    rescan(store)
    run(store, name="first", budget=1.0)
    report = run(store, name="second", keep="first", copies=rule, budget=30)
    assert report.counts == {"selected": 30}


def test_thinning_keeps_what_is_kept(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    kept_store(store)
    run(store, name="first", budget=10, clusters=(2,))
    chosen = manifest(store, "first")["selected"].to_numpy()
    rescan(store)
    report = run(store, name="second", keep="first", redundancy=0.1, budget=12)
    a, b = (of_slide(manifest(store, "second"), name) for name in "ab")
    assert a.loc[chosen, "decision"].tolist() == 10 * ["selected"]
    assert b.loc[chosen, "decision"].tolist() == 10 * ["redundant"]
    assert report.run["redundancy"]["dropped"] == 15


def test_retrieval_keeps_what_is_kept(run: Any, tmp_path: Path) -> None:
    """The seeds lie beside the newcomers, which are nearer to them than what is kept."""
    store = tmp_path / "s.zarr"
    kept_store(store)
    run(store, name="first", budget=10)
    chosen = manifest(store, "first")["selected"].to_numpy()
    rescan(store)
    vectors = near(directions(1, 15))
    make_store(tmp_path / "seeds.zarr", {"s": Made(tissue(5, 15), near(vectors, 9, off=0.001))})
    report = run(store, name="second", keep="first", seeds=tmp_path / "seeds.zarr", retrieve_k=1, budget=12)
    a, b = (of_slide(manifest(store, "second"), name) for name in "ab")
    assert a.loc[chosen, "decision"].tolist() == 10 * ["selected"]
    assert a.loc[~chosen, "decision"].tolist() == 5 * ["not_retrieved"]
    assert set(b["decision"]) == {"selected", "not_drawn"} and report.selected == 12


def test_what_quality_lists_and_evaluation_data_take_of_the_kept_is_said(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    fields, vectors = tissue(1, 8), directions(1, 8)
    make_store(store, {"a": Made(fields, vectors, patient="P", focus=[4, 4, 4, 9, 9, 9, 9, 9])})
    make_store(store, {"b": Made(tissue(2, 2), directions(2, 2), patient="Q", focus=9.0)})
    make_store(tmp_path / "e.zarr", {"e": Made(again(fields[3:5]), near(vectors[3:5]))})
    (tmp_path / "listed.txt").write_text("Q\n")
    run(store, name="first", budget=10)
    report = run(
        store,
        name="second",
        keep="first",
        copies="confirmed",
        min_focus=5.0,
        evaluation_sets=[tmp_path / "e.zarr"],
        exclude_patients=tmp_path / "listed.txt",
        budget=3,
    )
    assert report.counts == {"low_quality": 3, "leakage": 4, "selected": 3}
    (note,) = [note for note in report.run["notes"] if "not kept" in note]
    assert note.startswith(
        "7 patches of first are not kept: 3 low_quality (focus < 5); 4 leakage (copy of e row 0 of e.zarr: "
    )
    assert note.endswith("and 2 other reasons)")
    assert "3 patches kept from first" in report.run["notes"]


def test_more_is_kept_than_the_budget_only_where_the_filters_leave_more(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 8), directions(1, 8), focus=[4, 4, 4, 9, 9, 9, 9, 9])})
    run(store, name="first", budget=8)
    assert run(store, name="second", keep="first", min_focus=5.0, budget=5).selected == 5
    with pytest.raises(CurationError, match="first keeps 8 patches and --budget is 5; raise it to 8"):
        run(store, name="third", keep="first", budget=5)


# What is not done twice


CONFIRM_PAIRS = confirming.confirm_pairs


class Counted:
    """Counts the pairs whose pixels are compared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int = 10**9) -> None:
        self.pairs = 0
        self.stop_at = stop_at
        monkeypatch.setattr(confirming, "confirm_pairs", self)

    def __call__(self, task: Any) -> Any:
        if self.pairs >= self.stop_at:
            raise KeyboardInterrupt
        self.pairs += len(task.pairs)
        return CONFIRM_PAIRS(task)


def copied_store(path: Path) -> None:
    fields, vectors = tissue(1, 12), directions(1, 12)
    slides = {"a": Made(fields, vectors), "b": Made(again(fields), near(vectors))}
    make_store(path, slides)


def test_a_budget_that_cannot_be_does_not_throw_away_what_was_found(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 patches pass the first look, 12 are left after the copies: the message comes late, and nothing is lost."""
    store = tmp_path / "s.zarr"
    copied_store(store)
    counted = Counted(monkeypatch)
    clusterings: list[int] = []
    build = hierarchy.build_hierarchy

    def counting(*args: Any, **more: Any) -> Any:
        clusterings.append(1)
        return build(*args, **more)

    monkeypatch.setattr(hierarchy, "build_hierarchy", counting)
    with pytest.raises(CurationError, match="--budget is 20, but only 12 patches are left"):
        run(store, copies="confirmed", budget=20)
    assert counted.pairs > 0 and len(clusterings) == 1
    left = [path.name for path in (store / curation_work_path("default")).iterdir()]
    assert left and all(name.endswith(".npz") for name in left)
    before = counted.pairs
    report = run(store, copies="confirmed", budget=6)
    assert (counted.pairs, len(clusterings)) == (before, 1)
    assert report.selected == 6 and not (store / ".wsicurate").exists()
    fresh = run(store, copies="confirmed", budget=6, name="fresh")
    assert counted.pairs == 2 * before
    assert tree(report.manifest) == tree(fresh.manifest)


def test_an_interrupted_search_for_copies_goes_on_and_shows_how_far_it_is(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "_PIECE_PAIRS", 8)
    monkeypatch.setattr(confirming, "_in_neighbourhoods", lambda pairs, _: np.array_split(np.arange(len(pairs)), 4))
    store = tmp_path / "s.zarr"
    copied_store(store)
    whole = Counted(monkeypatch)
    undisturbed = run(store, copies="confirmed", budget=6, name="undisturbed")
    stopped = Counted(monkeypatch, stop_at=whole.pairs // 2)
    with pytest.raises(KeyboardInterrupt):
        run(store, copies="confirmed", budget=6)
    assert open_store(store).curations == ("undisturbed",)
    news: list[Progress] = []
    rest = Counted(monkeypatch)
    report = run(store, copies="confirmed", budget=6, progress=news.append)
    assert 0 < rest.pairs <= whole.pairs - stopped.pairs // 2 < whole.pairs
    assert tree(report.manifest) == tree(undisturbed.manifest)
    counts = [(each.stage_done, each.stage_total) for each in news if each.stage == "candidate pairs compared"]
    assert len(counts) > 3 and counts == sorted(counts)
    assert counts[-1][0] == counts[-1][1] >= whole.pairs


def test_a_calibration_is_not_made_twice(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "s.zarr"
    fields = [tissue(seed, 5) for seed in (1, 2)]

    def embed(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), 8, 12, 8, 12, 3).mean(axis=(2, 4)).reshape(len(pixels), -1) - 150

    slides = {name: Made(field, embed(field), patient=name) for name, field in zip("ab", fields, strict=True)}
    make_store(store, slides)
    loaded: list[int] = []

    def reembedder(*_: Any) -> Any:
        loaded.append(1)
        return embed, ""

    monkeypatch.setattr(clearing_copies, "reembedder", reembedder)
    monkeypatch.setattr(confirming, "confirm_pairs", lambda task: confirming.Evidence.unchecked(len(task.pairs)))
    news: list[Progress] = []
    with pytest.raises(CurationError, match="--budget is 1,000"):
        run(store, copies="confirmed", copy_threshold=None, budget=1_000)
    assert not loaded  # refused before the long stages
    with monkeypatch.context() as patch:
        patch.setattr(curate_module, "draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(store, copies="confirmed", copy_threshold=None, budget=3, progress=news.append)
    report = run(store, copies="confirmed", copy_threshold=None, budget=4)
    assert loaded == [1]
    calibration = report.run["copies"]["calibration"]
    assert calibration["note"] == "calibrated" and report.run["copies"]["threshold"] == calibration["threshold"]
    counts = [(each.stage_done, each.stage_total) for each in news if each.stage == "changed patches embedded"]
    assert len(counts) > 3 and counts == sorted(counts) and counts[-1][0] == counts[-1][1]


# Whose curation it is


def test_a_run_that_was_overtaken_writes_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    work = curation_work_path("default")
    theirs = f"{work}/hierarchy-of-theirs.npz"
    real = curate_module.draw  # type: ignore[attr-defined]

    def overtaken(*args: Any) -> Any:
        LocalBytes(store).put(f"{work}/lease-000002", [b"{}"])
        for fence in LocalBytes(store).fences(work):
            LocalBytes(store).lower_fence(fence)
        LocalBytes(store).put(theirs, [b"theirs"])
        LocalBytes(store).put(f"{work}/vectors.npy", [b"theirs"])
        return real(*args)

    monkeypatch.setattr(curate_module, "draw", overtaken)
    with pytest.raises(LeaseLostError, match=f"another run took over {curation_work_path('default')}"):
        run(store)
    assert open_store(store).curations == ()
    for key in (theirs, f"{work}/vectors.npy"):
        assert LocalBytes(store).get(key) == b"theirs"


def test_what_a_killed_run_left_is_tidied_up(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    for name in ("default", "other"):
        for file in ("vectors.npy", "trained.npy", "evaluation_encoder.npy", "copies-pairs-0.npz"):
            LocalBytes(store).put(f"{curation_work_path(name)}/{file}", [b"large"])
    run(store)
    others = list(LocalBytes(store).keys(".wsicurate"))
    assert others == [f"{curation_work_path('other')}/copies-pairs-0.npz"]  # that run may go on from it
    LocalBytes(store).put(f"{curation_work_path('default')}/hierarchy-0.npz", [b"left between mark and removal"])
    assert run(store).status == "unchanged"
    assert list(LocalBytes(store).keys(".wsicurate")) == others


def test_half_written_files_of_killed_runs_are_removed(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name = f".partial-{this_process().machine}-{ended.pid}-1-0"
    work = store / curation_work_path("default")
    for _ in range(2):  # a run that curates, and one that finds the curation there
        for folder in (work, store / "curations" / "default" / "manifest"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"half of the vectors")
        run(store)
        assert not list(store.rglob(".partial-*")) and not work.exists()
    assert check(store, workers=1).problems == []


SLOWLY = """
import sys, time
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from wsicurate.config import CurateConfig
from wsicurate.steps.curating import copy_evidence as confirming
from wsicurate.steps.curate import curate

compare = confirming.confirm_pairs
def slowly(task):
    time.sleep(0.2)
    return compare(task)
confirming.confirm_pairs = slowly
confirming._PIECE_PAIRS = 1
confirming._in_neighbourhoods = lambda pairs, _: [np.array([place]) for place in range(len(pairs))]
curate(sys.argv[1], CurateConfig(encoder="selection_encoder", copies="confirmed", copy_threshold=0.8, evaluate=False, budget=6),
       executor=ThreadPoolExecutor(1))
"""


@pytest.mark.slow
def test_a_search_for_copies_that_is_killed_goes_on(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "s.zarr"
    copied_store(store)
    shutil.copytree(store, tmp_path / "undisturbed.zarr")
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(store)])
    work = store / curation_work_path("default")
    while len(list(work.glob("copies-pairs-*"))) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = len(list(work.glob("copies-pairs-*")))
    counted = Counted(monkeypatch)
    monkeypatch.setattr(confirming, "_PIECE_PAIRS", 1)
    monkeypatch.setattr(
        confirming, "_in_neighbourhoods", lambda pairs, _: [np.array([place]) for place in range(len(pairs))]
    )
    report = run(store, copies="confirmed", budget=6)
    pairs = sum(report.run["copies"]["pairs"].values())
    assert counted.pairs == pairs - kept > 0
    undisturbed = run(tmp_path / "undisturbed.zarr", copies="confirmed", budget=6)
    assert tree(report.manifest) == tree(undisturbed.manifest)
    assert not (store / ".wsicurate").exists() and check(store, workers=1).problems == []


@pytest.mark.parametrize("budget", [10**6, 3])
def test_vectors_are_not_left_behind(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    monkeypatch.setattr(curate_module, "draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises((KeyboardInterrupt, CurationError)):
        run(store, budget=budget, evaluate=True, evaluation_encoder=EVALUATION_ENCODER)
    assert not any(key.endswith(".npy") for key in LocalBytes(store).keys(".wsicurate"))


# Versions and inputs


def test_an_update_does_not_make_a_curation_another_one(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    assert run(store).notes == ()
    record = store / "curations" / "default" / "run.json"
    run_json = json.loads(record.read_text())
    run_json["versions"]["wsicurate"] = "0.0.9"
    record.write_bytes(seal(to_json({**run_json, CHECKSUM: UNSEALED})))
    report = run(store)
    assert report.status == "unchanged"
    (note,) = report.notes
    assert "made by wsicurate 0.0.9" in note and curate_inputs.__version__ in note and "--overwrite" in note  # type: ignore[attr-defined]
    with pytest.raises(ManifestError, match=r"budget is 0.25 there and 0.5 now.*made by wsicurate 0.0.9, this is"):
        run(store, budget=0.5)
    assert run(store, overwrite=True).notes == ()


def test_a_setting_that_is_newer_than_a_record_had_its_default(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    run(store, retrieve_k=4)
    record = store / "curations" / "default" / "run.json"
    run_json = json.loads(record.read_text())
    assert run_json["settings"].pop("retrieve_k") == 4
    record.write_bytes(seal(to_json({**run_json, CHECKSUM: UNSEALED})))
    assert run(store, retrieve_k=4).status == "unchanged"
    with pytest.raises(ManifestError, match=r"made otherwise: retrieve_k is None there and 5 now\. Give"):
        run(store, retrieve_k=5)
    del run_json["depends_on"]
    record.write_bytes(seal(to_json({**run_json, CHECKSUM: UNSEALED})))
    with pytest.raises(ManifestError, match="its record does not name what it was made from"):
        run(store, retrieve_k=4)


@pytest.mark.parametrize("what", ["the vectors", "the labels", "the seeds", "the curation that is kept"])
def test_the_inputs_that_have_changed_are_named(run: Any, tmp_path: Path, what: str) -> None:
    store, seeds, labels = tmp_path / "s.zarr", tmp_path / "seeds.zarr", tmp_path / "labels.csv"
    make_store(store, {"a": Made(tissue(1, 6), directions(1, 6))})
    make_store(seeds, {"s": Made(tissue(2, 6), directions(1, 6))})
    labels.write_text("slide_id,row,label\na,0,x\na,1,y\n")
    run(store, name="first", budget=1)
    settings = {"seeds": seeds, "labels": labels, "keep": "first", "budget": 2}
    run(store, **settings)
    assert run(store, **settings).status == "unchanged"
    if what == "the vectors":
        make_store(store, {"a": Made(tissue(1, 6), near(directions(1, 6)))})
    elif what == "the labels":
        labels.write_text("slide_id,row,label\na,0,x\na,1,z\n")
    elif what == "the seeds":
        make_store(seeds, {"s": Made(tissue(2, 6), directions(2, 6))})
    else:
        run(store, name="first", budget=2, overwrite=True)
    with pytest.raises(ManifestError, match=rf"made otherwise: its inputs have changed since: {what}\. Give another"):
        run(store, **settings)


def test_the_manifest_of_imported_images_says_which_file_a_patch_is(run: Any, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    names = [f"folder/{number}.png" for number in range(5)]
    slides = {
        "a": Made(tissue(1, 5), directions(1, 5), names=names),
        "b": Made(tissue(2, 2), directions(2, 2)),
    }
    make_store(store, slides)
    run(store, budget=1)
    for table in (manifest(store), open_store(store).table().to_pandas()):
        assert of_slide(table, "a")["name"].tolist() == names
        assert of_slide(table, "b")["name"].isna().all()
        assert list(table.columns)[8:10] == ["label", "name"]


# The draw


def frozen_and_not(path: Path) -> None:
    slides = {
        "d1": Made(tissue(1, 20), directions(1, 20), kind="DX", patient="A"),
        "d2": Made(tissue(2, 20), directions(2, 20), kind="DX", patient="B"),
        "f": Made(tissue(3, 10), near(np.repeat(directions(3, 1), 10, axis=0)), kind="TS", patient="C"),
    }
    make_store(path, slides)


def test_frozen_sections_are_balanced_separately(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the patches is frozen, all in one cluster: in proportion they get a fifth, by clusters far less."""
    store = tmp_path / "s.zarr"
    frozen_and_not(store)
    strata: list[list[int]] = []
    real = drawing.select_by_strata  # type: ignore[attr-defined]

    def looked_at(*args: Any, **more: Any) -> Any:
        strata.append(more["strata"].tolist())
        return real(*args, **more)

    monkeypatch.setattr(drawing, "select_by_strata", looked_at)
    for separate in (True, False):
        run(store, name=str(separate), separate_kinds=separate, budget=20, clusters=(12, 3))
    apart, together = (of_slide(manifest(store, str(separate)), "f")["selected"].sum() for separate in (True, False))
    assert apart == 4 != together
    assert strata == [40 * [0] + 10 * [1], 50 * [0]]


def test_the_subset_is_drawn_again_at_the_next_seeds_for_the_comparison(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    make_store(store, {"a": Made(tissue(1, 30), directions(1, 30)), "b": Made(tissue(2, 30), directions(2, 30))})
    drawn: list[Any] = []
    real = curate_module.draw  # type: ignore[attr-defined]

    def looked_at(*args: Any) -> Any:
        drawn.append(real(*args))
        return drawn[-1]

    monkeypatch.setattr(curate_module, "draw", looked_at)
    for seed in (7, 8, 9):
        run(
            store,
            name=f"seed-{seed}",
            seed=seed,
            budget=20,
            evaluate=True,
            evaluation_encoder=EVALUATION_ENCODER,
            evaluation_seeds=3,
            clusters=(1,),
        )
    first = drawn[0]
    assert [len(each.again) for each in drawn] == [2, 2, 2]
    selections = [first.selected, *first.again]
    assert all(each.sum() == 20 for each in selections) and len({each.tobytes() for each in selections}) == 3
    for number, other in enumerate(drawn):  # one cluster, so that only the draw depends on the seed
        np.testing.assert_array_equal(selections[number], other.selected)
    run(store, name="none", budget=20, evaluate=False, evaluation_encoder=EVALUATION_ENCODER)
    for path in (store / "slides").glob("*/embeddings/evaluation_encoder"):
        shutil.rmtree(path)
    run(store, name="no-evaluation_encoder", budget=20, evaluate=True)
    assert [len(each.again) for each in drawn[3:]] == [0, 0]


@pytest.mark.parametrize(("patches", "noted"), [(40, False), (45, True)])
def test_a_slide_with_more_than_four_fifths_of_the_pool_is_noted(
    run: Any, tmp_path: Path, patches: int, noted: bool
) -> None:
    slides = {"a": Made(tissue(1, patches), directions(1, patches)), "b": Made(tissue(2, 10), directions(2, 10))}
    make_store(tmp_path / "s.zarr", slides)
    notes = run(tmp_path / "s.zarr", budget=3).run["notes"]
    words = f"the slide made/a has {patches / (patches + 10):.0%} of the {patches + 10} patches to draw from"
    assert any(note.startswith(words) for note in notes) == noted
    make_store(tmp_path / "alone.zarr", {"a": Made(tissue(1, 10), directions(1, 10))})
    assert not any("to draw from" in note for note in run(tmp_path / "alone.zarr", budget=3).run["notes"])


@pytest.mark.parametrize("within", ["nearest", "spread", "k-center", "facility-location", "random"])
def test_each_rule_draws_what_it_says_within_a_cluster(run: Any, tmp_path: Path, within: str) -> None:
    """One cluster: a bundle of eleven, and four that lie apart from it and from each other."""
    bundle = near(np.repeat(directions(1, 1), 11, axis=0), 2, off=0.2)
    apart = near(np.repeat(directions(1, 1), 4, axis=0), 5, off=1.5)
    vectors = np.concatenate([bundle, apart])
    make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 15), vectors)})
    run(tmp_path / "s.zarr", within=within, clusters=(1,), budget=5, name=within, seed=3)
    chosen = manifest(tmp_path / "s.zarr", within)["selected"].to_numpy()
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centre = open_store(tmp_path / "s.zarr").curation(within).clusters()["centroids_1"][0]
    assert chosen.sum() == 5
    radius = (1 - (units @ units[chosen].T).max(axis=1)).max()
    if within == "nearest":
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-(units @ centre))[:5])
    elif within in ("spread", "k-center"):
        assert chosen[11:].all() and chosen[:11].sum() == 1
    elif within == "facility-location":
        similarity = np.maximum(units @ units.T, 0)
        random = np.random.default_rng(0)
        others = [similarity[random.permutation(15)[:5]].max(axis=0).sum() for _ in range(200)]
        assert similarity[chosen].max(axis=0).sum() >= max(others) - 1e-6
    else:
        assert radius > 0.05 and not chosen[11:].all()


def test_the_seeds_of_another_store_retrieve_what_lies_beside_them(run: Any, tmp_path: Path) -> None:
    vectors = directions(1, 12)
    make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 12), vectors, focus=[5] * 11 + [1])})
    near_some = np.concatenate([near(vectors[[2, 5, 11]], 3, off=0.01), near(vectors[[2, 2]], 4, off=0.01)])
    make_store(tmp_path / "seeds.zarr", {"s": Made(tissue(2, 5), near_some)})
    settings = {"seeds": tmp_path / "seeds.zarr", "budget": 1}
    report = run(tmp_path / "s.zarr", retrieve_k=1, name="sample", **settings)
    table = manifest(tmp_path / "s.zarr", "sample")
    left = table["decision"].isin(["selected", "not_drawn"]).to_numpy()
    assert left[[2, 5]].all() and not left[11]  # low in quality, however near
    # Three seeds ask for row 2: the first has it, the others their next; no patch is retrieved twice.
    assert left.sum() == report.run["retrieval"]["retrieved"] == 5
    assert table.loc[~left & (np.arange(12) < 11), "reason"].unique().tolist() == ["not near a seed (sample, 1)"]
    capped = run(tmp_path / "s.zarr", retrieve_k=1, retrieve_cap=2, name="cap", **settings)
    assert capped.run["retrieval"]["retrieved"] == 2
    run(
        tmp_path / "s.zarr",
        retrieve="cluster",
        retrieve_k=5,
        retrieve_min_seeds=3,
        clusters=(10,),
        name="c",
        **settings,
    )
    by_cluster = manifest(tmp_path / "s.zarr", "c")
    retrieved = by_cluster["decision"].isin(["selected", "not_drawn"])
    assert retrieved[2] and set(by_cluster.loc[retrieved, "cluster_1"]) == {by_cluster["cluster_1"][2]}
    with pytest.raises(CurationError, match="retrieve nothing"):
        run(tmp_path / "s.zarr", retrieve="cluster", retrieve_min_seeds=6, clusters=(10,), name="n", **settings)


def test_a_pool_of_one_is_not_evaluated_and_stands(run: Any, tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", {"a": Made(tissue(1, 4), directions(1, 4), focus=[9, 1, 1, 1])})
    report = run(tmp_path / "s.zarr", evaluate=True, evaluation_encoder=EVALUATION_ENCODER, budget=1)
    assert report.counts == {"low_quality": 3, "selected": 1}
    assert "a pool of 1 patches has no typical distance; it takes at least two" in report.run["evaluation"]["reason"]


def test_check_is_content_with_a_curation_of_every_kind(run: Any, tmp_path: Path) -> None:
    copied_store(tmp_path / "s.zarr")
    run(
        tmp_path / "s.zarr",
        copies="confirmed",
        redundancy=0.3,
        evaluation_encoder=EVALUATION_ENCODER,
        evaluate=True,
        evaluation_seeds=2,
    )
    assert check(tmp_path / "s.zarr", workers=1).problems == []
    assert dataclasses.asdict(run(tmp_path / "s.zarr", copies="confirmed", redundancy=0.3, evaluation_encoder=EVALUATION_ENCODER, evaluate=True,
                                  evaluation_seeds=2))["status"] == "unchanged"  # fmt: skip
