"""`report` of a cohort: how long it takes, how large the page is, and how much memory it needs.

python benchmarks/report.py                # 100 synthetic slides of some 120 patches
python benchmarks/report.py --slides 400   # 100 of them are shown: size and memory stay nearly as they are
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.tile import tile
from wsicurate.synthetic.cohort import write_cohort
from wsicurate.synthetic.description import SyntheticSlide

REPORT = """
import resource, sys
from wsicurate.steps.report import write_report
found = write_report(*sys.argv[1:])
print(found.slides, found.clusters, found.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=100, help="synthetic slides of the cohort")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.slides)


def measure(place: Path, slides: int) -> None:
    store = cohort(place, slides)
    print(f"{len(open_store(store)):,} patches of {slides} slides")
    began = time.perf_counter()
    command = [sys.executable, "-c", REPORT, str(store), str(place / "report.html")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shown, clusters, size, memory = map(int, done.stdout.split())
    print(
        f"{shown} slides and {clusters} clusters on a page of {size / 1e6:.1f} MB in "
        f"{time.perf_counter() - began:.1f} s, start included; at most {memory / 1024:,.0f} MB of memory"
    )


def cohort(place: Path, slides: int) -> Path:
    """A curated store, evaluated, with copies and pen marks."""
    described = [
        SyntheticSlide(
            width=4_096,
            height=3_072,
            mpp=0.5,
            seed=number,
            pens=("green",) if number % 10 == 0 else (),
            copies=2 if number % 5 == 0 else 0,
        )
        for number in range(slides)
    ]
    write_cohort(place / "slides", described, patients=max(slides // 2, 1), sites=5)
    store = place / "patches.zarr"
    tile([place / "slides"], store, TileConfig())
    for encoder in ("stain-texture", "filter-bank"):
        embed(store, EmbedConfig(encoder=encoder))
    curate(store, CurateConfig(encoder="stain-texture", evaluation_encoder="filter-bank", budget=0.25))
    return store


if __name__ == "__main__":
    main()
