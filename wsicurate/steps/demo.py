"""`demo`: a small synthetic cohort through everything that exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wsicurate.config import TileConfig
from wsicurate.report.sheets import patch_sheet, slide_sheet
from wsicurate.slides.synthetic import CohortSlide, SyntheticSlide, write_cohort
from wsicurate.steps.check import CheckReport, check
from wsicurate.steps.opening import open_store
from wsicurate.steps.progress import ProgressCallback, no_progress
from wsicurate.steps.tile import TileReport, tile


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Where the demo left its things.

    Attributes:
        slides: folder of the cohort.
        store: the patch store.
        slide_sheet, patch_sheet: pictures.
        tiled: report of `tile`.
        checked: report of `check`.
    """

    slides: Path
    store: Path
    slide_sheet: Path
    patch_sheet: Path
    tiled: TileReport
    checked: CheckReport


def demo_cohort(width: int = 6_144, height: int = 5_120) -> list[SyntheticSlide]:
    """The demo's slides: what a laboratory's folder holds, trouble included. The last states no resolution."""
    base = SyntheticSlide(width=width, height=height, seed=11)
    return [
        replace(base, seed=11, pens=("green", "black"), copies=4),
        replace(base, seed=12, strength=0.42),
        replace(base, seed=13, folds=3, blurred=2, holes=2, pale=1),
        replace(base, seed=14, mpp=0.5, width=width // 2, height=height // 2, compression="jpeg2000", quality=42),
        replace(base, seed=15, tile_px=240, copies=4),
        replace(base, seed=16, width=2_048, height=2_048, states_mpp=False, states_power=False),
    ]


def write_demo_cohort(folder: Path) -> list[CohortSlide]:
    """Write the demo's slides (three patients, two sites, one frozen section) and one file that is broken."""
    written = write_cohort(folder, demo_cohort(), patients=3, sites=2, seed=1, frozen=(4,))
    broken = folder / "broken.svs"
    broken.write_bytes(written[0].path.read_bytes()[:3000])
    return written


def demo(
    folder: str | Path = "wsicurate-demo",
    *,
    workers: int | None = None,
    say: Callable[[str], None] = lambda message: None,
    progress: ProgressCallback = no_progress,
) -> DemoReport:
    """Make a small cohort of synthetic slides, tile it, check the store and draw what came out.

    Args:
        folder: where everything goes; slides and patches that are there already are kept.
        workers: processes; None means one per usable core.
        say: called with a sentence before each part.
        progress: passed on to `tile`.

    Returns:
        Where to look.
    """
    folder = Path(folder).absolute()
    slides, store = folder / "slides", folder / "patches.zarr"
    if not (slides / "broken.svs").exists():
        say(f"Painting six synthetic slides into {slides}")
        write_demo_cohort(slides)
    say(f"Tiling them into {store}")
    tiled = tile([slides], store, TileConfig(workers=workers), progress=progress)
    say("Checking every array, checksum and patch")
    checked = check(store, workers=workers)
    opened = open_store(store)
    sheets = folder / "slides.png", folder / "patches.png"
    slide_sheet(opened, sheets[0], columns=3)
    patch_sheet(opened, sheets[1])
    return DemoReport(
        slides=slides, store=store, slide_sheet=sheets[0], patch_sheet=sheets[1], tiled=tiled, checked=checked
    )
