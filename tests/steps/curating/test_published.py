"""Clusters that others made: joined by slide and place, balanced over as our own, refused where they cannot be."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import wsicurate.steps.curate as curate_module
import wsicurate.steps.curating.published as published_module
from tests.conftest import tree
from tests.steps.made import SELECTION_ENCODER, Made, again, directions, make_store, tissue
from wsicurate.cli import app
from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.errors import ConfigError, CurationError, EmbeddingMissingError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.curating.published import LEAST_SHARE, windows_of
from wsicurate.steps.embed import embed
from wsicurate.steps.run import run as run_all
from wsicurate.steps.tile import tile
from wsicurate.store.store import Store
from wsicurate.synthetic.published_clusters import write_published_clusters

#: Thresholds that take nothing out, so that clusters decide.
LOOSE: dict[str, Any] = {"min_tissue": 0, "min_focus": 0, "max_pen": 1, "max_dark": 1, "max_blank": 1, "budget": 0.5}

LEVELS = ["level_1", "level_2", "level_3"]
COUNTS = (12, 5, 2)


@pytest.fixture(scope="module")
def tiled(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides, two at 0.25 and one at 0.5 µm per pixel; nothing has embedded them."""
    store = tmp_path_factory.mktemp("published") / "a.zarr"
    tile(small_slides, store, TileConfig(workers=1, min_tissue=0.05))
    return store


@pytest.fixture
def store(tiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiled, tmp_path / "a.zarr"))


def slides_of(store: Store) -> dict[str, tuple[int, int, float]]:
    """What the generator asks of each slide, by its barcode and identifier."""
    return {
        Path(record.name).name.removesuffix(".svs"): (
            record.reading["width"],
            record.reading["height"],
            record.resolution["mpp"],
        )
        for record in (slide.record for slide in store.slides.values())
    }


@pytest.fixture
def clusters(store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "clusters.csv"
    write_published_clusters(path, slides_of(open_store(store)), clusters=COUNTS, missing=0.3, seed=2)
    return path


def run(store: Path, clusters: Path, **settings: Any) -> CurateReport:
    return curate(store, CurateConfig(clusters_from=clusters, **{**LOOSE, **settings}))


def manifest(store: Path, name: str = "default") -> pd.DataFrame:
    return open_store(store).curation(name).manifest().to_pandas()


def expected(store: Path, clusters: Path, tile_um: float = 112.0) -> np.ndarray:
    """The clusters of each patch, by comparing each with every tile of its slide."""
    table, found = pd.read_csv(clusters), []
    for slide in open_store(store).slides.values():
        of_slide = table[table["slide_id"] == Path(slide.record.name).name.removesuffix(".svs")]
        tiles = of_slide.drop(columns="slide_id").astype(int).to_dict("records")
        edge = round(tile_um / slide.record.resolution["mpp"])
        for low, high in zip(*(window.tolist() for window in windows_of(slide)), strict=True):
            best: tuple[int, int, int] | None = None
            ids = [-1] * len(COUNTS)
            for each in tiles:
                corner = (each["tile_x"], each["tile_y"])
                wide, tall = (min(high[a], corner[a] + edge) - max(low[a], corner[a]) for a in (0, 1))
                smaller = min((high[0] - low[0]) * (high[1] - low[1]), edge**2)
                key = (-wide * tall, corner[1], corner[0])
                if wide > 0 and tall > 0 and wide * tall >= LEAST_SHARE * smaller and (best is None or key < best):
                    best, ids = key, [each[level] for level in LEVELS]
            found.append(ids)
    return np.array(found)


@pytest.mark.parametrize(("patch_px", "mpp"), [(256, 0.5), (100, 0.5), (256, 1.0), (128, 0.61)])
def test_patches_take_the_clusters_of_the_tile_that_covers_most_of_them(
    small_slides: Path, tmp_path: Path, patch_px: int, mpp: float
) -> None:
    store, clusters = tmp_path / "a.zarr", tmp_path / "clusters.csv"
    tile(small_slides, store, TileConfig(workers=1, codec="none", patch_px=patch_px, mpp=mpp, min_tissue=0.2))
    write_published_clusters(clusters, slides_of(open_store(store)), clusters=COUNTS, missing=0.3)
    report = run(store, clusters, evaluate=False)
    table = manifest(store)
    wanted = expected(store, clusters)
    assert (table[["cluster_1", "cluster_2", "cluster_3"]].to_numpy() == wanted).all()
    without = (wanted < 0).any(axis=1)
    assert ((table["decision"] == "no_cluster") == without).all()
    assert report.counts.get("no_cluster", 0) == np.count_nonzero(without)
    facts = report.run["clusters"]["published"]
    assert facts["patches without"] == np.count_nonzero(without) and facts["slides"] == 3
    assert facts["tiles"] == len(pd.read_csv(clusters))
    if without.any():
        assert set(table.loc[without, "reason"]) == {"no tile of clusters.csv covers 20% of it"}
        assert f"{np.count_nonzero(without):,} of {len(table):,} patches are in no cluster" in " ".join(
            report.run["notes"]
        )
    assert check(store).problems == []


def test_a_store_that_nothing_embedded_is_balanced(store: Path, clusters: Path) -> None:
    report = run(store, clusters, separate_kinds=False)
    table = manifest(store)
    pool = table[table["decision"] != "no_cluster"]
    chosen = pool[pool["selected"]]
    assert report.selected == len(chosen) == round(0.5 * len(pool))
    # The coarsest clusters share the budget equally, as far as their patches and the caps on slides go.
    sizes, got = (each["cluster_3"].value_counts() for each in (pool, chosen))
    assert len(got) == 2 and all(got[each] == sizes[each] for each in got.index if got[each] < got.max() - 1)
    assert report.run["encoder"] is None and report.run["copies"]["rule"] == "none"
    note = " ".join(report.run["notes"])
    assert "copies were not looked for" in note and "no vectors by dinov2-small" in note
    assert "no evaluation encoder" in report.run["evaluation"]["reason"]
    arrays = open_store(store).curation("default").clusters()
    assert {"ids_1", "ids_2", "ids_3", "parents_1", "parents_2"} == set(arrays)
    assert arrays["ids_1"][0] == pool["cluster_1"].min() and len(arrays["parents_1"]) == len(arrays["ids_1"])
    quiet = run(store, clusters, name="quiet", copies="none", evaluate=False, separate_kinds=False)
    assert not any("copies" in note for note in quiet.run["notes"]) and quiet.counts == report.counts


def test_done_is_done_and_another_file_is_a_difference(store: Path, clusters: Path) -> None:
    assert run(store, clusters).status == "curated"
    assert run(store, clusters).status == "unchanged"
    text = clusters.read_text()
    clusters.write_text(text + "GTEX-1,0,0,0,0,0,0\n")
    with pytest.raises(ManifestError, match="inputs have changed since: the published clusters"):
        run(store, clusters)
    clusters.write_text(text)
    assert run(store, clusters).status == "unchanged"
    with pytest.raises(ManifestError, match=r"cluster_tile_um is 112.0 there and 128.0 now"):
        run(store, clusters, cluster_tile_um=128)
    with pytest.raises(ManifestError, match=r"clusters_from is 'clusters.csv' there and None now"):
        embed(store, EmbedConfig(encoder="stain-texture", workers=1))
        curate(store, CurateConfig(encoder="stain-texture", copies="none", **LOOSE))


def test_every_form_of_the_file_gives_the_same(store: Path, clusters: Path, tmp_path: Path) -> None:
    run(store, clusters)
    table = pd.read_csv(clusters)
    rows = len(table)
    shuffled = table.sample(frac=1, random_state=3)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("not clusters")
    for number in range(3):
        part = shuffled.iloc[number * rows // 3 : (number + 1) * rows // 3]
        part.to_parquet(tmp_path / "folder" / f"part-{number}.parquet")
    with gzip.open(tmp_path / "b.csv.gz", "wt") as stream:
        shuffled.to_csv(stream, index=False)
    named = table.rename(columns={"slide_id": "Slide", "tile_x": "X", "tile_y": "y", "level_1": "Cluster Level 1"})
    named["Slide"] = "cohort/" + named["Slide"].str.lower() + ".SVS"
    named.to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    barcodes = table.assign(slide_id=table["slide_id"].str.partition(".")[0])
    pq.write_table(pa.Table.from_pandas(barcodes), tmp_path / "d.PARQUET", row_group_size=20)
    dictionary = table.assign(slide_id=table["slide_id"].astype("category"), level_2=table["level_2"].astype(float))
    dictionary.to_parquet(tmp_path / "e.parquet")
    columns = ["slide_id", "row", "cluster_1", "cluster_2", "cluster_3", "selected"]
    for name in ("folder", "b.csv.gz", "c.tsv", "d.PARQUET", "e.parquet"):
        run(store, tmp_path / name, name=name)
        pd.testing.assert_frame_equal(manifest(store, name)[columns], manifest(store)[columns])


def test_our_own_clusters_as_a_file_give_our_own_subset(store: Path) -> None:
    embed(store, EmbedConfig(encoder="stain-texture", workers=1))
    settings = {"encoder": "stain-texture", "copies": "none", "evaluate": False, **LOOSE}
    report = curate(store, CurateConfig(clusters=(9, 4, 2), **settings))
    curate(store, CurateConfig(clusters_from=report.manifest, name="again", cluster_tile_um=128, **settings))
    columns = ["slide_id", "row", "cluster_1", "cluster_2", "cluster_3", "selected"]
    first, second = manifest(store), manifest(store, "again")
    pd.testing.assert_frame_equal(first[columns], second[columns])


def test_an_interrupted_run_does_not_read_the_file_again(
    store: Path, clusters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(store, tmp_path / "b.zarr"))
    run(store, clusters)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(curate_module, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(other, clusters)
    with monkeypatch.context() as patch:
        patch.setattr(published_module, "TileCover", interrupted)
        run(other, clusters)
    assert tree(other / "curations") == tree(store / "curations")
    assert not (other / ".wsicurate").exists()


def test_slides_and_places_that_the_file_does_not_know(store: Path, clusters: Path) -> None:
    table = pd.read_csv(clusters)
    gone = table["slide_id"].iloc[0]
    table[table["slide_id"] != gone].to_csv(clusters, index=False)
    run(store, clusters)
    found = manifest(store)
    of_slide = found["slide_id"].astype(str).str.contains(gone, regex=False)
    assert of_slide.any() and (found.loc[of_slide, "reason"] == "clusters.csv has no tile of its slide").all()
    assert (found.loc[of_slide, "decision"] == "no_cluster").all()


def test_a_tile_without_an_id_is_no_tile(store: Path, clusters: Path) -> None:
    table = pd.read_csv(clusters)
    empty = table["level_1"] == 0
    table[~empty].to_csv(clusters, index=False)
    run(store, clusters, name="gone")
    table["level_2"] = table["level_2"].astype("Int64").mask(empty)
    table.to_csv(clusters, index=False)
    run(store, clusters, name="empty")
    table["level_2"] = table["level_2"].fillna(-1)
    table.to_csv(clusters, index=False)
    run(store, clusters, name="negative")
    for name in ("empty", "negative"):
        pd.testing.assert_series_equal(manifest(store, name)["cluster_1"], manifest(store, "gone")["cluster_1"])


def test_with_vectors_copies_are_looked_for_and_the_evaluation_is_made(tmp_path: Path) -> None:
    """Patch 0 of a has no cluster: its copy in b stays, instead of leaving for one that cannot be selected."""
    pixels, vectors = tissue(1, 20), directions(1, 20)
    store = tmp_path / "made.zarr"
    slides = {
        "a": Made(pixels, vectors, patient="A", focus=6.0),
        "b": Made(again(pixels[:4]), vectors[:4], patient="A", focus=5.0),
        "c": Made(tissue(9, 16), directions(9, 16), patient="C"),
    }
    made = make_store(store, slides)
    lines = ["slide_id,tile_x,tile_y,level_1,level_2"]
    for slide in made.slides.values():
        for row, (x, y) in enumerate(slide.xy.tolist()):
            if (slide.slide_id, row) != ("a", 0):
                lines.append(f"{slide.slide_id},{x},{y},{row % 6},{row % 6 // 3}")
    clusters = tmp_path / "clusters.csv"
    clusters.write_text("\n".join(lines))
    report = run(
        store,
        clusters,
        encoder=SELECTION_ENCODER,
        evaluation_encoder="evaluation_encoder",
        evaluation_seeds=2,
        copy_threshold=0.9,
        cluster_tile_um=48,
    )
    table = manifest(store).set_index(["slide_id", "row"])
    assert table.loc[("a", 0), "decision"] == "no_cluster" and table.loc[("b", 0), "decision"] != "copy"
    assert table.loc[[("b", row) for row in (1, 2, 3)], "decision"].tolist() == 3 * ["copy"]
    assert report.run["copies"]["rule"] == "confirmed" and report.run["evaluation"]["comparisons"]
    assert report.run["encoder"]["encoder"] == SELECTION_ENCODER


def test_a_kept_curation_of_the_same_file_grows(store: Path, clusters: Path) -> None:
    first = run(store, clusters, name="first", budget=5, evaluate=False)
    run(store, clusters, name="second", keep="first", budget=9, evaluate=False)
    chosen = manifest(store, "first")["selected"]
    assert first.selected == 5 and (manifest(store, "second")["selected"] | ~chosen).all()
    embed(store, EmbedConfig(encoder="stain-texture", workers=1))
    with pytest.raises(ManifestError, match="has the clusters of clusters.csv; give --clusters-from that file"):
        curate(store, CurateConfig(encoder="stain-texture", keep="first", copies="none", **LOOSE))
    clusters.write_text(clusters.read_text() + "GTEX-1,0,0,0,0,0,0\n")
    with pytest.raises(
        ManifestError, match=r"has the clusters of clusters.csv, and not those of clusters.csv as it is"
    ):
        run(store, clusters, keep="first")


def test_run_embeds_nothing_that_is_not_used(small_slides: Path, store: Path, clusters: Path, tmp_path: Path) -> None:
    config = CurateConfig(clusters_from=clusters, copies="none", evaluate=False, **LOOSE)
    report = run_all(small_slides, tmp_path / "c.zarr", tile_config=TileConfig(workers=1), curate_config=config)
    assert report.embedded == [] and report.curated.selected and report.exit_status == 0


def test_the_command(store: Path, clusters: Path) -> None:
    words = ["curate", str(store), "--clusters-from", str(clusters), "--recipe", "patho-t1-2025", "--budget", "6"]
    ended = CliRunner().invoke(app, words, terminal_width=200)
    text = " ".join(ended.output.split())
    assert ended.exit_code == 0, text
    assert "balanced over the clusters of clusters.csv" in text and "--clusters is not used" in text


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"redundancy": 0.1}, ConfigError, "--redundancy makes clusters or needs centroids"),
        ({"within": "nearest"}, ConfigError, "--within nearest makes clusters or needs"),
        ({"seeds": "s.zarr", "retrieve": "cluster"}, ConfigError, "--retrieve cluster makes"),
        ({"clustering": "halves"}, ConfigError, "--clustering makes"),
        ({"cluster_tile_um": 0.5}, ConfigError, "--cluster-tile-um is 0.5"),
        ({"copies": "dinov2"}, EmbeddingMissingError, "have no embedding by 'dinov2-small'"),
        ({"within": "spread"}, EmbeddingMissingError, "have no embedding by 'dinov2-small'"),
        ({"evaluation_sets": ["s.zarr"]}, EmbeddingMissingError, "have no embedding by 'dinov2-small'"),
    ],
)
def test_settings_that_need_more_than_ids(
    store: Path, clusters: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(store, clusters, **settings)


Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"tile_x": "left"}), r"has no column tile_x \(there: slide_id, tile_idx, left"),
        (lambda t: t.drop(columns=LEVELS), "has no column level_1"),
        (lambda t: t.assign(cluster_1=1), "'level_1' and 'cluster_1' are both level 1; keep one"),
        (lambda t: t.assign(level_1="x"), "cannot be read: .*level_1|cannot be read: .*'x'"),
        (lambda t: t.assign(level_1=0.5), "level_1 of a tile of TCGA.* is 0.5; give whole numbers"),
        (lambda t: t.assign(level_1=2.0**40), "level_1 of a tile of TCGA.* is 1.09951e.12; give whole numbers"),
        (lambda t: t.assign(tile_x=np.nan), "tile_x of a tile of TCGA.* is nan"),
        (lambda t: t.assign(slide_id="GTEX-1.svs"), "such as GTEX-1.svs, and the store slides/TCGA"),
        (lambda t: t.assign(tile_x=t["tile_x"] + 1_000_000), "and none covers a patch, with 448 px for 112 µm"),
        (lambda t: t.assign(level_1=t["level_3"], level_3=t["level_1"]), "each must lie in one cluster of the next"),
        (lambda t: pd.concat([t, t.assign(level_1=50, level_2=50, level_3=50)]), "twice, in different clusters"),
        (
            lambda t: pd.concat([t, t.assign(slide_id=t["slide_id"] + ".svs")]),
            "gives one slide under two names, 'TCGA[^']*' and 'TCGA[^']*.svs'; keep the tiles of one",
        ),
        (lambda t: t.iloc[:0], "cannot be read|it names slides such as none"),
    ],
)
def test_files_that_cannot_be_used(store: Path, clusters: Path, change: Change, words: str) -> None:
    change(pd.read_csv(clusters)).to_csv(clusters, index=False)
    with pytest.raises(CurationError, match=words) as caught:
        run(store, clusters)
    assert "\n" not in str(caught.value)
    assert open_store(store).curations == ()


def test_files_that_are_none(store: Path, clusters: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    shutil.copy(clusters, tmp_path / "mixed" / "a.csv")
    pd.read_csv(clusters).drop(columns="level_3").to_csv(tmp_path / "mixed" / "b.csv", index=False)
    (tmp_path / "clusters.npy").write_bytes(b"x")
    (tmp_path / "bad.parquet").write_bytes(b"x")
    (tmp_path / "bad.csv.gz").write_bytes(b"x")
    pd.read_csv(clusters).astype({"level_2": str}).to_parquet(tmp_path / "text.parquet")
    for name, words in (
        ("nothing.csv", "cannot be read: No such file"),
        ("empty", "holds no .csv, .csv.gz or .parquet"),
        ("mixed", r"has the levels level_1, level_2, and a.csv level_1, level_2, level_3"),
        ("clusters.npy", "is neither CSV"),
        ("bad.parquet", "cannot be read"),
        ("bad.csv.gz", "cannot be read"),
        ("text.parquet", "the column 'level_2' holds .*string, not numbers"),
    ):
        with pytest.raises(CurationError, match=words):
            run(store, tmp_path / name)


def test_a_name_of_two_slides_is_refused(tmp_path: Path) -> None:
    made = {f"x.{ending}": Made(tissue(seed, 4), directions(seed, 4)) for seed, ending in enumerate(("svs", "tif"))}
    make_store(tmp_path / "made.zarr", made)
    clusters = tmp_path / "clusters.csv"
    clusters.write_text("slide_id,x,y,cluster\nx,0,0,1\n")
    with pytest.raises(CurationError, match="calls a slide 'x', and the store has several of that name"):
        run(tmp_path / "made.zarr", clusters, copies="none")
