"""`demo`: a small synthetic cohort through everything that exists."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from wsicurate.config import CurateConfig, EmbedConfig, ReportConfig, TileConfig
from wsicurate.engine.progress import ProgressCallback, no_progress
from wsicurate.errors import ConfigError, StoreWriteError, WsicurateError, in_words
from wsicurate.opening import open_store
from wsicurate.steps.check import CheckReport, check
from wsicurate.steps.curate import CurateReport, curate
from wsicurate.steps.embed import embed
from wsicurate.steps.report import write_report
from wsicurate.steps.tile import TileReport, tile
from wsicurate.store.store import Store
from wsicurate.synthetic.cohort import CohortSlide, write_cohort
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth, truth_path
from wsicurate.synthetic.layout import Kind
from wsicurate.validation import exists, require_callables, require_path, require_workers

#: The selection encoder and the evaluation encoder, both descriptors: neither needs weights.
SELECTION_ENCODER, EVALUATION_ENCODER = "stain-texture", "filter-bank"


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Where the demo left its things.

    Attributes:
        slides: folder of the cohort.
        store: the patch store.
        labels: ground truth of the patches, a CSV.
        report: the page that shows what came out, an HTML file.
        tiled: report of `tile`.
        curated: report of `curate`.
        checked: report of `check`.
    """

    slides: Path
    store: Path
    labels: Path
    report: Path
    tiled: TileReport
    curated: CurateReport
    checked: CheckReport


def demo_cohort(width: int = 6_144, height: int = 5_120) -> list[SyntheticSlide]:
    """The demo's slides: what a laboratory's folder holds, invalid ones included.

    The last has no resolution metadata.
    """
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


def write_truth_labels(store: Store, path: Path) -> int:
    """Write the ground truth of synthetic slides as labels that `curate` reads: the commonest kind in each patch.

    Args:
        store: patches of synthetic slides; slides without a ground truth beside them are passed over.
        path: the CSV.

    Returns:
        Number of labelled patches.
    """
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("slide_id", "row", "label"))
        for slide in store.slides.values():
            truth = truth_path(Path(slide.record.source["path"]))
            if not truth.exists():
                continue
            kinds, _ = GroundTruth.load(truth).labels(slide.xy, slide.record.reading["pitch"])
            for row, kind in enumerate(kinds.tolist()):
                writer.writerow((slide.slide_id, row, Kind(kind).name.lower()))
                count += 1
    return count


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Turn an error of writing below ``folder`` into a `StoreWriteError` that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WsicurateError):
            raise
        where = error.filename or folder
        raise StoreWriteError(f"{where} cannot be written: {in_words(error)}") from error


def demo(
    folder: str | Path = "wsicurate-demo",
    *,
    workers: int | None = None,
    say: Callable[[str], None] = lambda message: None,
    progress: ProgressCallback = no_progress,
) -> DemoReport:
    """Make a small cohort of synthetic slides, tile, embed and curate it, check the store and report what came out.

    Args:
        folder: where everything goes; slides, patches and vectors that are there already are kept.
        workers: processes; None means one per usable core.
        say: called with a sentence before each part.
        progress: passed on to the steps.

    Returns:
        Where to look.

    Raises:
        ConfigError: if an argument is wrong, or ``folder`` is a file.
        StoreWriteError: if the folder cannot be written.
    """
    folder, workers = require_path("folder", folder).absolute(), require_workers(workers)
    require_callables(say=say, progress=progress)
    if exists(folder) and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder for the demo")
    slides, store, labels = folder / "slides", folder / "patches.zarr", folder / "labels.csv"
    if not exists(slides / "broken.svs"):
        say(f"Painting six synthetic slides into {slides}")
        with _written(folder):
            write_demo_cohort(slides)
    say(f"Tiling them into {store}")
    tiled = tile([slides], store, TileConfig(workers=workers), progress=progress)
    for encoder in (SELECTION_ENCODER, EVALUATION_ENCODER):
        say(f"Embedding the patches by {encoder}, which needs no weights")
        embed(store, EmbedConfig(encoder=encoder, workers=workers), progress=progress)
    with _written(folder):
        write_truth_labels(open_store(store), labels)
    say("Selecting a quarter of the patches, and evaluating it with the other descriptor and the ground truth")
    config = CurateConfig(
        encoder=SELECTION_ENCODER, evaluation_encoder=EVALUATION_ENCODER, labels=labels, budget=0.25, workers=workers
    )
    curated = curate(store, config, progress=progress)
    say("Checking every array, checksum and patch")
    checked = check(store, workers=workers)
    say("Writing the report, a page to look at")
    page = write_report(store, folder / "report.html", ReportConfig(curation=config.name)).path
    return DemoReport(
        slides=slides,
        store=store,
        labels=labels,
        report=page,
        tiled=tiled,
        curated=curated,
        checked=checked,
    )
