"""`tile` with a tissue mask of one's own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.config import TileConfig
from wsicurate.errors import ConfigError, StoreSettingsError
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile

QUICK = TileConfig(patch_px=128, workers=2)


class Coloured:
    """What has a colour."""

    version = 1

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        return np.asarray(overview.max(axis=2) - overview.min(axis=2) > 30)


class ColouredTiles(Coloured):
    name, mpp, tile_px = "tiles", 2.0, 128

    def predict(self, tiles: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        return np.asarray(tiles.max(axis=3) - tiles.min(axis=3) > 30)


class Recording(Coloured):
    """Writes down what it is shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        self.seen.append((overview.shape, mpp))
        return super().__call__(overview, mpp)


class Second(Coloured):
    """Fails on the second slide that it sees."""

    def __init__(self, give: Any) -> None:
        self.calls, self.give = 0, give

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> Any:
        self.calls += 1
        return self.give() if self.calls == 2 else super().__call__(overview, mpp)


@pytest.mark.slow
def test_objects_work_in_processes_and_are_recorded(small_slides: Path, tmp_path: Path) -> None:
    masks = {}
    for mask in (Coloured(), ColouredTiles()):
        path = tmp_path / f"{type(mask).__name__}.zarr"
        config = replace(QUICK, mask=mask)
        assert [outcome.status for outcome in tile(small_slides, path, config).outcomes] == ["tiled"] * 3
        recorded = f"{getattr(mask, 'name', 'Coloured')}-1 ({__name__})"
        store = open_store(path)
        assert len(store) > 100
        assert {slide.record.settings["mask"] for slide in store.slides.values()} == {recorded}
        (run,) = (path / "runs").glob("2*.json")
        assert json.loads(run.read_text())["settings"]["mask"] == recorded
        masks[type(mask)] = [slide.tissue for slide in store.slides.values()]
        assert [outcome.status for outcome in tile(small_slides, path, config).outcomes] == ["unchanged"] * 3
    for small, tiled in zip(*masks.values(), strict=True):
        assert small.shape == tiled.shape
        assert (small == tiled).mean() > 0.8
        assert not np.array_equal(small, tiled)


def test_an_object_in_threads_sees_the_overview(small_slides: Path, tmp_path: Path) -> None:
    mask = Recording()
    with ThreadPoolExecutor(1) as threads:
        tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=mask), executor=threads)
    assert mask.seen == [((80, 96, 3), 8.0)] * 3


def test_slides_of_a_store_share_a_mask(small_slides: Path, tmp_path: Path) -> None:
    tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=Coloured()))
    newer = Coloured()
    newer.version = 2
    for other, recorded in ((newer, "Coloured-2"), ("otsu", "otsu-1")):
        with pytest.raises(StoreSettingsError, match=rf"mask.*{recorded}|{recorded}.*mask"):
            tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=other))


def fail() -> None:
    raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    ("give", "message"),
    [(fail, "failed: RuntimeError: CUDA out of memory"), (lambda: np.zeros((2, 3)), "gave float64 (2, 3), not bool ")],
)
def test_a_mask_that_fails_costs_its_slide_alone(small_slides: Path, tmp_path: Path, give: Any, message: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        report = tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=Second(give)), executor=threads)
    assert sorted(outcome.status for outcome in report.outcomes) == ["failed", "tiled", "tiled"]
    (failed,) = (outcome for outcome in report.outcomes if outcome.status == "failed")
    assert failed.reason == "mask"
    assert failed.message.startswith(f"the tissue mask 'Second' of {__name__} {message}")


def test_what_workers_cannot_have_is_refused_before_anything_is_done(small_slides: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which cannot be sent to worker processes"):
        tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=lambda overview, mpp: overview[..., 0] < 128))
    with pytest.raises(ConfigError, match="cannot be made without arguments"):
        tile(small_slides, tmp_path / "a.zarr", replace(QUICK, mask=Second))
    assert not (tmp_path / "a.zarr").exists()
