from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import wsicurate.steps.curate as curate_module
from tests.conftest import tree
from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.curation.clustering import hierarchy
from wsicurate.curation.neighbours.blocks import exact_products, unit_rows
from wsicurate.errors import ConfigError, CurationError, EmbeddingMissingError, LeaseLostError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.demo import write_truth_labels
from wsicurate.steps.embed import embed
from wsicurate.steps.tile import tile
from wsicurate.store import leases
from wsicurate.store.layout import curation_work_path
from wsicurate.store.leases import Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.owners import Owner

ENCODERS = ("stain-texture", "filter-bank")

#: Everything that is slow left out: tests ask for what they are about.
PLAIN: dict[str, Any] = {
    "encoder": "stain-texture",
    "evaluation_encoder": "filter-bank",
    "copies": "none",
    "evaluation_seeds": 2,
}


@pytest.fixture(scope="module")
def embedded(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("curate") / "a.zarr"
    tile(small_slides, store, TileConfig(workers=2))
    for encoder in ENCODERS:
        embed(store, EmbedConfig(encoder=encoder, workers=1))
    return store


@pytest.fixture
def store(embedded: Path, tmp_path: Path) -> Path:
    shutil.copytree(embedded, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def run(store: Path, **settings: Any) -> CurateReport:
    return curate(store, CurateConfig(**{**PLAIN, **settings}))


def manifest(store: Path, name: str = "default") -> pd.DataFrame:
    return open_store(store).curation(name).manifest().to_pandas()


def test_every_patch_has_a_decision_and_the_budget_is_met(store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    write_truth_labels(open_store(store), labels)
    report = run(store, copies="confirmed", copy_threshold=0.9, labels=labels)
    table = manifest(store)
    assert len(table) == len(open_store(store))
    assert table["decision"].astype(str).value_counts().to_dict() == report.counts
    assert (table["selected"] == (table["decision"] == "selected")).all()
    left = report.counts["selected"] + report.counts["not_drawn"] + report.counts.get("over_cap", 0)
    assert report.selected == round(0.25 * left) == report.run["budget"]
    low = table["decision"] == "low_quality"
    assert (table.loc[low, "reason"] != "").all()
    assert not (low & (table["tissue"] >= 0.5) & (table["focus"] >= 3) & (table["pen"] <= 0.1)).any()
    columns = list(table.columns)
    assert columns[:10] == ["slide_id", "mpp", "row", "x", "y", "patient", "site", "kind", "label", "name"]
    assert columns[-6:] == ["copy_of_mpp", "copy_of_slide", "copy_of_row", "decision", "reason", "selected"]
    assert "cluster_1" in columns
    evaluation = report.run["evaluation"]
    assert evaluation["evaluation_encoder"] == "filter-bank" and evaluation["labels"] and evaluation["summary"]
    measures = {comparison["measure"] for comparison in evaluation["comparisons"]}
    assert {"radius_90", "vendi", "class_balanced_recall"} <= measures
    assert {comparison["baseline"] for comparison in evaluation["comparisons"]} == {
        "random over slides",
        "stratified by patient",
        "random",
    }
    assert report.run["encoder"]["licence"]
    assert check(store).problems == []


def test_pandas_polars_and_duckdb_open_the_manifest(store: Path) -> None:
    import duckdb
    import polars

    report = run(store, evaluate=False)
    files = str(report.manifest / "*.parquet")
    assert polars.read_parquet(files)["selected"].sum() == report.selected
    found = duckdb.sql(f"select decision, count(*) from '{files}' group by decision").fetchall()
    assert dict(found) == report.counts
    assert pd.read_parquet(report.manifest)["selected"].sum() == report.selected


@pytest.mark.slow
def test_the_same_bytes_whatever_the_workers_and_interruptions(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "b.zarr"
    shutil.copytree(store, other)
    run(store, copies="confirmed", copy_threshold=0.92, workers=1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(curate_module, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(other, copies="confirmed", copy_threshold=0.92, workers=2)
    assert open_store(other).curations == ()
    stages = [path.name for path in (other / curation_work_path("default")).iterdir()]
    assert {name.partition("-")[0] for name in stages if name.endswith(".npz")} == {"copies", "hierarchy"}
    with monkeypatch.context() as patch:
        patch.setattr(hierarchy, "build_hierarchy", interrupted)  # is not called again
        run(other, copies="confirmed", copy_threshold=0.92, workers=2)
    assert tree(other / "curations") == tree(store / "curations")
    assert not (other / ".wsicurate").exists()


def test_done_is_done_and_other_settings_are_named(store: Path) -> None:
    first = run(store, evaluate=False)
    again = run(store, evaluate=False)
    assert (first.status, again.status) == ("curated", "unchanged")
    assert again.counts == first.counts
    with pytest.raises(ManifestError, match=r"budget is 0.25 there and 0.5 now.*--overwrite"):
        run(store, evaluate=False, budget=0.5)
    assert run(store, evaluate=False, budget=0.5, overwrite=True).status == "curated"
    assert run(store, evaluate=False, name="other").status == "curated"
    assert open_store(store).curations == ("default", "other")


def test_one_run_at_a_time(store: Path) -> None:
    held = Leases(LocalBytes(store), renewal_s=0.1)
    held.acquire(curation_work_path("default"))
    try:
        with pytest.raises(LeaseLostError, match="is being made by process"):
            run(store, evaluate=False)
    finally:
        held.close()


def test_a_run_that_died_on_another_machine_is_taken_over(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.3)
    elsewhere = Owner(host="node12", machine="0123456789ab", pid=1, started="1")
    value = json.dumps({"token": "theirs", "beat": 0, "owner": dataclasses.asdict(elsewhere)}).encode()
    LocalBytes(store).put(f"{curation_work_path('default')}/lease-000001", [value])
    assert run(store, evaluate=False).status == "curated"
    assert not (store / ".wsicurate").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"evaluation_encoder": "stain-texture"}, ConfigError, "the selection encoder"),
        ({"budget": 10_000}, CurationError, "--budget is 10,000, but only .* patches are left"),
        ({"budget": 1e-9}, CurationError, "is no patch"),
        ({"encoder": "uni"}, EmbeddingMissingError, "3 of 3 slides .* have no embedding by 'uni'"),
        ({"evaluation_encoder": "uni"}, EmbeddingMissingError, "wsicurate embed .* --encoder uni"),
        ({"min_tissue": 1.0, "min_focus": 12.0}, CurationError, "no patch is left"),
        ({"clusters": (5_000, 10)}, CurationError, "5,?000"),
        ({"evaluation_sets": ["e.zarr"]}, ConfigError, "--evaluation-sets with --copies none finds nothing"),
        ({"share_cap": float("inf")}, ConfigError, "--share-cap is inf; give a number from 1 .* to 1e9"),
        ({"share_cap": 1e308}, ConfigError, "--share-cap is 1e.308; give a number from 1 .* to 1e9"),
        ({"evaluation_encoder": "uni", "evaluate": False}, EmbeddingMissingError, "wsicurate embed .* --encoder uni"),
        ({"slides": ["nowhere"]}, ConfigError, "--slides is nowhere, and there is no such folder"),
        ({"slides": [os.devnull]}, ConfigError, "--slides is /dev/null, and there is no such folder"),
        ({"device": "tpu"}, ConfigError, "--device is 'tpu'; choose auto, cpu, mps, cuda"),
        ({"device": "cuda:x"}, ConfigError, "--device is 'cuda:x'"),
        ({"evaluate": "no"}, ConfigError, "--evaluate is 'no'"),
        ({"slides": 5}, ConfigError, "--slides is 5"),
        ({"labels": 5}, ConfigError, "--labels is 5"),
        ({"name": "../x"}, ConfigError, "cannot name a curation"),
        ({"keep": "none"}, ManifestError, "has no curation 'none'"),
        ({"labels": "nothing.csv"}, CurationError, "nothing.csv cannot be read"),
        ({"exclude_patients": "nothing.txt"}, CurationError, "nothing.txt cannot be read"),
    ],
)
def test_bad_input_is_explained(store: Path, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run(store, **settings)
    assert open_store(store).curations == ()
    assert not (store / ".wsicurate").exists()  # nothing is left that the same command could go on with


def test_listed_patients_are_leakage(store: Path, tmp_path: Path) -> None:
    slide = next(iter(open_store(store).slides.values()))
    listed = tmp_path / "listed.txt"
    listed.write_text(f"# evaluation\n{slide.record.patient}\nTCGA-XX-0000\n")
    report = run(store, exclude_patients=listed, evaluate=False)
    table = manifest(store)
    mine = table["patient"] == slide.record.patient
    assert set(table.loc[mine, "decision"]) <= {"leakage", "low_quality"}
    assert "leakage" not in set(table.loc[~mine, "decision"])
    assert set(table.loc[table["decision"] == "leakage", "reason"]) == {f"listed: {slide.record.patient}"}
    assert report.run["listed"]["unmatched"] == ["line 3: TCGA-XX-0000"]
    listed.write_text("TCGA-XX-0000\n")
    with pytest.raises(CurationError, match="none of the 1 lines"):
        run(store, exclude_patients=listed, evaluate=False, name="nobody")


def test_copies_of_an_evaluation_store_are_leakage(store: Path, small_slides: Path, tmp_path: Path) -> None:
    evaluation, slides = tmp_path / "evaluation.zarr", tmp_path / "slides"
    slides.mkdir()
    chosen = sorted(small_slides.glob("*.svs"))[0]
    shutil.copy(chosen, slides / "renamed.svs")
    tile(slides, evaluation, TileConfig(workers=1))
    embed(evaluation, EmbedConfig(encoder="stain-texture", workers=1))
    run(store, evaluation_sets=[evaluation], copies="confirmed", copy_threshold=0.95, evaluate=False)
    table = manifest(store)
    leaked = table["slide_id"].str.contains(chosen.stem)
    good = table["decision"] != "low_quality"
    assert (table.loc[leaked & good, "decision"] == "leakage").mean() > 0.9
    assert not (table.loc[~leaked, "decision"] == "leakage").any()
    run(store, evaluation_sets=[evaluation], leakage_threshold=0.99, evaluate=False, name="similar", budget=2)
    by_similarity = manifest(store, "similar")
    assert (by_similarity.loc[leaked & good, "decision"] == "leakage").all()


def test_earlier_choices_are_kept(store: Path, tmp_path: Path) -> None:
    run(store, evaluate=False, budget=5, name="first")
    earlier = manifest(store, "first")["selected"]
    report = run(store, evaluate=False, budget=12, name="second", keep="first", seed=9)
    later = manifest(store, "second")
    assert report.selected == 12
    assert later.loc[earlier, "selected"].all()
    assert "5 patches kept from first" in report.run["notes"]
    first, second = (open_store(store).curation(name).clusters() for name in ("first", "second"))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    with pytest.raises(CurationError, match="first keeps 5 patches and --budget is 3"):
        run(store, evaluate=False, budget=3, name="third", keep="first")


def test_redundancy_is_thinned_only_when_asked_for(store: Path) -> None:
    assert "redundant" not in run(store, evaluate=False).counts
    report = run(store, evaluate=False, redundancy=0.25, name="thin", budget=3)
    table = manifest(store, "thin")
    opened = open_store(store)
    units = unit_rows(opened.vectors("stain-texture"), slice(None))
    cosine = exact_products(units, units)
    left = table["decision"].isin(["selected", "not_drawn", "over_cap"]).to_numpy()
    together = (table["cluster_1"].to_numpy()[:, None] == table["cluster_1"].to_numpy()) & ~np.eye(
        len(table), dtype=bool
    )
    near_one = ((cosine > 0.75) & together & left).any(axis=1)
    redundant = (table["decision"] == "redundant").to_numpy()
    assert redundant.sum() == report.counts["redundant"] > 10
    assert near_one[redundant].all() and not near_one[left].any()
    shares = report.run["redundancy"]["kept_share"]
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["0.25"] == pytest.approx(left.sum() / (left.sum() + redundant.sum()), abs=1e-6)


def test_dinov2s_rule_says_how_much_it_merges(store: Path) -> None:
    report = run(store, evaluate=False, copies="dinov2", budget=1)
    largest = report.run["copies"]["largest component"]
    assert largest > 1
    assert any(f"largest component holds {largest:,} patches" in note for note in report.run["notes"])
    table = manifest(store)
    copies = table[table["decision"] == "copy"]
    assert copies["copy_of_slide"].notna().all()
    stays = table.set_index(["slide_id", "row"])["decision"]
    heads = {
        stays[(slide, int(row))] for slide, row in zip(copies["copy_of_slide"], copies["copy_of_row"], strict=True)
    }
    assert not heads & {"copy", "low_quality", "leakage"}


@pytest.mark.parametrize("sampler", ["random-over-slides", "patient-stratified", "random"])
def test_baselines_can_be_asked_for(store: Path, sampler: str) -> None:
    report = run(store, sampler=sampler, budget=9)
    assert report.selected == 9
    if sampler == "random":  # nothing is better than itself
        same = [each for each in report.run["evaluation"]["comparisons"] if each["baseline"] == "random"]
        assert {each["verdict"] for each in same} == {"not discriminating"}


def test_a_rule_that_takes_most_of_a_slide_is_noted(store: Path) -> None:
    focus = open_store(store).table()["focus"].to_numpy()
    threshold = round(float(np.percentile(focus, 70)), 2)
    report = run(store, evaluate=False, min_focus=threshold, budget=1)
    words = f"--min-focus {threshold:g} takes more than half of the patches of"
    assert any(note.startswith(words) for note in report.run["notes"])


def test_without_a_judge_there_is_no_proof_and_the_record_says_so(embedded: Path, tmp_path: Path) -> None:
    shutil.copytree(embedded, tmp_path / "b.zarr")
    for folder in (tmp_path / "b.zarr" / "slides").glob("*/embeddings/filter-bank"):
        shutil.rmtree(folder)
    report = run(tmp_path / "b.zarr", evaluation_encoder=None)
    assert "give --evaluation-encoder" in report.run["evaluation"]["reason"]


@pytest.mark.slow
def test_new_slides_are_drawn_without_undoing_earlier_choices(small_slides: Path, tmp_path: Path) -> None:
    slides, store = tmp_path / "slides", tmp_path / "a.zarr"
    slides.mkdir()
    first, *others = sorted(small_slides.glob("*.svs"))
    shutil.copy(first, slides)

    def add_and_embed() -> None:
        tile(slides, store, TileConfig(workers=1))
        for encoder in ENCODERS:
            embed(store, EmbedConfig(encoder=encoder, workers=1))

    add_and_embed()
    run(store, evaluate=False, budget=4, name="first")
    earlier = manifest(store, "first")
    for path in others:
        shutil.copy(path, slides)
    add_and_embed()
    report = run(store, budget=9, name="second", keep="first", share_cap=3.0)
    later = manifest(store, "second")
    kept = later.merge(earlier.loc[earlier["selected"], ["slide_id", "row"]], on=["slide_id", "row"])
    assert len(kept) == 4 and kept["selected"].all()
    assert report.selected == 9 and later.loc[later["selected"], "slide_id"].nunique() > 1
    assert list(report.run["clusters"]["counts"]) == list(open_store(store).curation("first").run["clusters"]["counts"])


def test_what_is_damaged_is_made_again(store: Path) -> None:
    first = run(store, evaluate=False)
    part = next(first.manifest.glob("*.parquet"))
    part.write_bytes(b"PAR1")
    assert [problem.where for problem in check(store, workers=1).problems] == ["curations/default"]
    assert run(store, evaluate=False).status == "curated"
    assert check(store, workers=1).problems == []


def test_new_labels_are_new_inputs(store: Path, tmp_path: Path) -> None:
    """Labels and scores are not among the patches' bytes, and count all the same."""
    labels = tmp_path / "labels.csv"
    write_truth_labels(open_store(store), labels)
    run(store, labels=labels)
    labels.write_text(labels.read_text().replace("stroma", "collagen"))
    with pytest.raises(ManifestError, match="inputs have changed"):
        run(store, labels=labels)
