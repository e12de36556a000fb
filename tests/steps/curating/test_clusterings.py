"""Clusterings of other packages and objects: what is recorded, what is refused, and what `check` says of them."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.steps.made import EVALUATION_ENCODER, SELECTION_ENCODER, Made, directions, make_store, near, tissue
from wsicurate.cli import app
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering.hierarchy import Hierarchy
from wsicurate.errors import ConfigError, CurationError, ManifestError
from wsicurate.opening import open_store
from wsicurate.plugins import plugins
from wsicurate.steps.check import check
from wsicurate.steps.curate import CurateReport, curate

#: A module of another package: one level, no centroids.
MODULE = """
import numpy as np

class Halves:
    has_centroids, settings = False, {"version": 1}
    fits = 0

    def fit(self, vectors, counts, *, seed, device, progress):
        Halves.fits += 1
        self.notes = (f"asked for {counts}",)
        return self.from_arrays({"halves": (vectors[:, 0] > np.median(vectors[:, 0])).astype(np.int32)})

    def from_arrays(self, arrays):
        self.halves, self.counts = arrays["halves"], (2,)
        return self

    def to_arrays(self):
        return {"halves": self.halves}

    def assign(self, vectors, *, device):
        assert len(vectors) == len(self.halves)
        return self.halves[:, None], None
"""


class Mine(Hierarchy):
    """A hierarchy by another name."""

    settings = {"depth": 2}  # type: ignore[assignment] # noqa: RUF012

    def fit(self, vectors: Any, counts: Any, **more: Any) -> Mine:
        return Mine(levels=super().fit(vectors, counts, **more).levels)

    @staticmethod
    def from_arrays(arrays: Any) -> Mine:
        return Mine(levels=Hierarchy.from_arrays(arrays).levels)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of twelve patches, three of each too blurred."""
    path = tmp_path_factory.mktemp("made") / "s.zarr"
    focus = [1.0] * 3 + [5.0] * 9
    make_store(
        path, {name: Made(tissue(seed, 12), directions(seed, 12), focus=focus) for seed, name in enumerate("ab", 1)}
    )
    make_store(path.parent / "seeds.zarr", {"c": Made(tissue(3, 4), near(directions(1, 4)))})
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package ``halving`` 1.2, installed."""
    site = tmp_path / "site"
    (site / "halving-1.2.dist-info").mkdir(parents=True)
    (site / "halving-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.2\n")
    points = "[wsicurate.clusterings]\nhalves = halving:Halves\nnothing = halving:np\nhierarchy = halving:Halves\n"
    (site / "halving-1.2.dist-info" / "entry_points.txt").write_text(points)
    (site / "halving.py").write_text(MODULE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(__import__("sys").modules, "halving", raising=False)
    plugins.cache_clear()
    yield site
    plugins.cache_clear()
    importlib.invalidate_caches()


def run(store: Path, clustering: Any, **settings: Any) -> CurateReport:
    plain: dict[str, Any] = {"encoder": SELECTION_ENCODER, "copies": "none", "evaluate": False, "budget": 6}
    return curate(store, CurateConfig(clustering=clustering, **{**plain, **settings}))


def test_a_clustering_of_another_package_is_used_recorded_and_checked(store: Path, package: Path) -> None:
    report = run(store, "halves")
    assert report.selected == 6
    assert report.run["settings"]["clustering"] == {
        "name": "halves",
        "package": "halving 1.2",
        "settings": {"version": 1},
    }
    assert report.run["clusters"]["counts"] == [2] and report.run["clusters"]["arrays"] == {"halves": 18}
    assert any(note.startswith("asked for (4,") for note in report.run["notes"])
    curation = open_store(store).curation("default")
    table = curation.manifest().to_pandas()
    assert "cluster_2" not in table
    low = table["decision"] == "low_quality"
    assert low.sum() == 6 and (table.loc[low, "cluster_1"] == -1).all()
    # Half of the budget from each half: they have nine patches each.
    assert table.loc[table["selected"], "cluster_1"].value_counts().to_dict() == {0: 3, 1: 3}
    np.testing.assert_array_equal(curation.clusters()["halves"], table.loc[~low, "cluster_1"])
    assert check(store).problems == []
    assert run(store, "halves").status == "unchanged"


def test_a_lost_array_is_a_problem(store: Path, package: Path) -> None:
    run(store, "halves")
    shutil.rmtree(store / "curations" / "default" / "clusters" / "halves")
    assert any("not {'halves': 18}" in problem.what for problem in check(store).problems)


def test_another_version_of_the_package_makes_another_curation(store: Path, package: Path) -> None:
    run(store, "halves")
    metadata = package / "halving-1.2.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.2", "1.3"))
    plugins.cache_clear()
    importlib.invalidate_caches()
    with pytest.raises(ManifestError, match=r"clustering is .*halving 1\.2.* there and .*halving 1\.3.* now"):
        run(store, "halves")


def test_the_default_leaves_no_trace_in_the_record(store: Path, package: Path) -> None:
    """Its name cannot be taken, and curations that were made before there was a choice are still the same."""
    report = run(store, "hierarchy")
    assert "clustering" not in report.run["settings"] and "arrays" not in report.run["clusters"]
    assert run(store, Hierarchy(), name="mine").run["fingerprint"] != report.run["fingerprint"]
    with pytest.raises(ManifestError, match="clustering is None there and .*Mine"):
        run(store, Mine())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keep": "first"}, "--keep"),
        ({"seeds": "seeds.zarr", "retrieve": "cluster"}, "--retrieve cluster"),
        ({"redundancy": 0.1}, "--redundancy"),
        ({"within": "nearest"}, "--within nearest"),
    ],
)
def test_what_needs_centroids_is_refused_by_name(
    store: Path, made: Path, package: Path, settings: dict[str, Any], named: str
) -> None:
    if "seeds" in settings:
        settings = {**settings, "seeds": made.parent / "seeds.zarr"}
    with pytest.raises(ConfigError, match=f"{named} needs centroids, and --clustering halves makes none"):
        run(store, "halves", **settings)
    if "keep" in settings:
        run(store, "hierarchy", name="first")
    run(store, "hierarchy", name="second", **{"retrieve_min_seeds": 1, **settings})


def test_what_needs_none_is_done(store: Path, made: Path, package: Path) -> None:
    report = run(
        store,
        "halves",
        seeds=made.parent / "seeds.zarr",
        retrieve_k=3,
        evaluate=True,
        evaluation_seeds=2,
        evaluation_encoder=EVALUATION_ENCODER,
    )
    assert report.counts["not_retrieved"] > 0 and report.run["evaluation"]["comparisons"]


@pytest.mark.parametrize("clustering", [Mine(), Mine])
def test_an_object_with_centroids_can_be_kept(store: Path, clustering: Any) -> None:
    first = run(store, clustering, name="first")
    assert first.run["settings"]["clustering"]["name"].endswith("test_clusterings.Mine")
    assert first.run["settings"]["clustering"]["settings"] == {"depth": 2}
    make_store(store, {"c": Made(tissue(3, 8), directions(3, 8))})
    with pytest.raises(
        ManifestError, match=r"--keep first has clusters by .*Mine, and --clustering is hierarchy; give"
    ):
        run(store, "hierarchy", name="second", keep="first")
    second = run(store, clustering, name="second", keep="first", budget=9)
    assert second.selected == 9 and second.run["clusters"]["from"] == "first"
    assert check(store).problems == []


def test_a_fit_is_not_done_twice(store: Path, package: Path) -> None:
    with pytest.raises(CurationError, match="only 4 patches are left"):
        run(store, "halves", seeds=store, retrieve_k=1, retrieve_cap=4)
    halving = importlib.import_module("halving")

    assert halving.Halves.fits == 1
    run(store, "halves", seeds=store, retrieve_k=1, retrieve_cap=4, budget=2)
    assert halving.Halves.fits == 1


class Faulty(Mine):
    """A clustering that assigns what a draw cannot use."""

    clusters: NDArray[Any]

    @staticmethod
    def from_arrays(arrays: Any) -> Faulty:
        return Faulty(levels=Hierarchy.from_arrays(arrays).levels)

    def assign(self, vectors: Any, **_: Any) -> Any:
        return Faulty.clusters, np.zeros(len(vectors), np.float32)


@pytest.mark.parametrize(
    ("clusters", "words"),
    [
        (np.zeros((24, 1), np.int32), r"assigns int32 \(24, 1\); it must be int32 \(24, 2\)"),
        (np.zeros((24, 2), np.int64), r"assigns int64 \(24, 2\)"),
        (np.full((24, 2), -1, np.int32), "ids of level 1 are -1 to -1; with 4 clusters they must be 0 to 3"),
        (np.full((24, 2), 4, np.int32), "ids of level 1 are 4 to 4"),
        (np.stack([np.zeros(24), np.arange(24) % 2], axis=1).astype(np.int32), "levels must nest"),
    ],
)
def test_what_a_draw_cannot_use_is_named(
    store: Path, clusters: NDArray[Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "clusters", clusters, raising=False)
    with pytest.raises(CurationError, match=f"--clustering .*Faulty.*{words}"):
        run(store, Faulty(), clusters=(4, 2))


def test_centroids_without_similarities_are_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mine, "assign", lambda self, vectors, **_: (Hierarchy.assign(self, vectors)[0], None))
    with pytest.raises(CurationError, match="Mine has centroids and gives no similarity to them"):
        run(store, Mine())


def test_arrays_that_a_store_does_not_hold_are_named(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mine, "to_arrays", lambda self: {**Hierarchy.to_arrays(self), "words": np.array(["a"])})
    with pytest.raises(CurationError, match="Mine stores 'words'; a clustering's arrays are of numbers"):
        run(store, Mine())


def test_the_command_names_those_that_there_are(store: Path, package: Path) -> None:
    command = [
        "curate",
        str(store),
        "--encoder",
        SELECTION_ENCODER,
        "--copies",
        "none",
        "--no-evaluate",
        "--budget",
        "6",
    ]
    ended = CliRunner().invoke(app, [*command, "--clustering", "leiden"])
    assert ended.exit_code == 2
    assert "--clustering is 'leiden'; choose one of hierarchy, halves, nothing" in " ".join(ended.output.split())
    ended = CliRunner().invoke(app, [*command, "--clustering", "nothing"])
    assert ended.exit_code == 2 and "--clustering nothing has no 'has_centroids'" in " ".join(ended.output.split())
    assert CliRunner().invoke(app, [*command, "--clustering", "halves"]).exit_code == 0
