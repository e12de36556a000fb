"""Resolutions that files state, as a user of `tile` meets them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsicurate.config import TileConfig
from wsicurate.engine.progress import SlideOutcome
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile

PER_CM = {"resolutionunit": "CENTIMETER"}
NO_UNIT: dict[str, Any] = {"resolution": (1, 1), "resolutionunit": "NONE"}


def tissue() -> np.ndarray:
    """A pink square on white, 1,024 pixels a side."""
    pixels = np.full((1024, 1024, 3), 240, dtype=np.uint8)
    noise = np.random.default_rng(0).integers(-30, 30, (96, 96, 3))
    pixels[128:896, 128:896] = np.kron(noise, np.ones((8, 8, 1))) + np.array([190, 90, 160])
    return pixels


def tiled(tmp_path: Path, description: str | None, tags: dict[str, Any], **config: Any) -> SlideOutcome:
    path = tmp_path / "slides" / "slide.tif"
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(
        path, tissue(), photometric="rgb", metadata=None, tile=(256, 256), compression="deflate",
        description=description, **tags,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as thread:
        (outcome,) = tile(path, tmp_path / "s.zarr", TileConfig(patch_px=64, **config), executor=thread).outcomes
    return outcome


def test_a_description_gives_the_scale(tmp_path: Path) -> None:
    outcome = tiled(tmp_path, "Some scanner|AppMag = 20|MPP = 0,5", NO_UNIT, mpp=1.0)
    assert (outcome.status, outcome.warnings) == ("tiled", ())
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert slide.record.resolution == {"mpp": 0.5, "origin": "metadata", "objective_power": 20.0, "warnings": []}
    assert slide.record.reading["pitch"] == 128.0


def test_ten_times_too_small_is_skipped_or_corrected(tmp_path: Path) -> None:
    tags = {"resolution": (198_649, 198_649), **PER_CM}  # 0.0503 um/px, of a slide of 0.503
    outcome = tiled(tmp_path, None, tags)
    assert (outcome.status, outcome.reason) == ("skipped", "no_resolution")
    assert "ten times too small" in outcome.message and "--default-mpp" in outcome.message
    outcome = tiled(tmp_path, None, tags, default_mpp=0.5)
    assert outcome.status == "tiled" and "ten times too small" in outcome.warnings[0]
    (slide,) = open_store(tmp_path / "s.zarr").slides.values()
    assert (slide.record.resolution["origin"], slide.record.reading["pitch"]) == ("default mpp", 64.0)


@pytest.mark.parametrize(
    ("description", "words"),
    [(None, "0.499002 would be usual"), ("X|AppMag = 20", "ten times too large, a mistake of units")],
)
def test_a_suspicion_is_part_of_the_reason_why_a_slide_is_too_coarse(
    tmp_path: Path, description: str | None, words: str
) -> None:
    outcome = tiled(tmp_path, description, {"resolution": (2004, 2004), **PER_CM})
    assert (outcome.status, outcome.reason) == ("skipped", "too_coarse")
    assert "Its resolution is in doubt: " in outcome.message and words in outcome.message
