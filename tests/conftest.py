"""Shared data: the real slides where they are at hand, and a small synthetic cohort."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.steps.curate import curate
from wsicurate.steps.demo import write_demo_cohort
from wsicurate.steps.embed import embed
from wsicurate.steps.tile import tile
from wsicurate.synthetic.cohort import CohortSlide, write_cohort
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.synthetic.slide import write_slide

pytest.register_assert_rewrite("wsicurate.testing")

settings.register_profile("project", deadline=None)  # shared machines pause when they like
settings.load_profile("project")

REPOSITORY = Path(__file__).parent.parent
SHARED = Path(os.environ.get("WSICURATE_SHARED", REPOSITORY.parent / "shared" / "data"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background jobs; commands under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, described in its DATA.md."""
    if not SHARED.is_dir():
        pytest.skip(f"the real slides are not at {SHARED}; WSICURATE_SHARED names another place")
    return SHARED


@pytest.fixture(scope="session")
def sections(shared: Path) -> Path:
    return shared / "sections"


@pytest.fixture(scope="session")
def demo_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's cohort: six slides and a broken file."""
    folder = tmp_path_factory.mktemp("demo") / "slides"
    write_demo_cohort(folder)
    return folder


SMALL = SyntheticSlide(width=3_072, height=2_560, seed=3)


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> list[CohortSlide]:
    """Three small slides of two patients: a second's work for `tile`."""
    folder = tmp_path_factory.mktemp("small") / "slides"
    slides = [SMALL, replace(SMALL, seed=4, mpp=0.5, width=1_536, height=1_280, tile_px=240), replace(SMALL, seed=5)]
    return write_cohort(folder, slides, patients=2, sites=2, seed=7, frozen=(2,))


@pytest.fixture(scope="session")
def small_slides(small_cohort: list[CohortSlide]) -> Path:
    return small_cohort[0].path.parent


@pytest.fixture
def paint(tmp_path: Path) -> Callable[..., tuple[Path, GroundTruth]]:
    """Write a slide of one's own: ``paint("name.svs", seed=1, ...)``."""

    def write(name: str = "slides/slide.svs", **features: object) -> tuple[Path, GroundTruth]:
        path = tmp_path / name
        return path, write_slide(path, replace(SMALL, **features))  # type: ignore[arg-type]

    return write


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def curated_store(tmp_path_factory: pytest.TempPathFactory, small_slides: Path) -> Path:
    """A store of three slides with a curation ``half``: read it, never write to it."""
    path = tmp_path_factory.mktemp("curated") / "patches.zarr"
    tile([small_slides], path, TileConfig(workers=1))
    embed(path, EmbedConfig(encoder="stain-texture", workers=1))
    curate(
        path,
        CurateConfig(encoder="stain-texture", name="half", budget=0.6, copies="none", clusters=(12, 4), evaluate=False),
    )
    return path
