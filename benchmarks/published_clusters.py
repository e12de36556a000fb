"""Joining published clusters: 20 million tiles of 1,200 slides, as CSV, compressed CSV and Parquet; time and memory.

    python benchmarks/published_clusters.py --folder /tmp/clusters

Each form is joined in a process of its own, to a store of some of the slides and to one of all. Stores are made up in
memory: what is measured is the hash of the file, its reading, and the join.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wsicurate.steps.curating.published import join_tiles
from wsicurate.steps.curating.published_file import PublishedFile
from wsicurate.synthetic.cohort import cohort_names
from wsicurate.synthetic.published_clusters import write_published_clusters

#: Tiles in a row and column of a slide; a tile's edge on a slide of 0.25 µm per pixel; a patch's (256 px at 20x).
SIDE, TILE, PATCH, MPP = 150, 448, 512, 0.25


def made_store(names: list[str], rng: np.random.Generator) -> Any:
    """What the join asks of the inputs of a curation: slides with half of the grid's patches."""
    slides, counts = {}, []
    across = SIDE * TILE // PATCH
    for name in names:
        rows, columns = np.divmod(np.flatnonzero(rng.random(across**2) < 0.5), across)
        record = SimpleNamespace(
            slide_id=f"{name}.svs",
            name=f"slides/{name}.svs",
            source={"path": f"/slides/{name}.svs"},
            reading={"pitch": float(PATCH)},
            resolution={"mpp": MPP},
        )
        corners = (np.column_stack([columns, rows]) * PATCH).astype(np.int32)
        slides[name] = SimpleNamespace(slide_id=record.slide_id, record=record, xy=corners)
        counts.append(len(corners))
    store = SimpleNamespace(slides=slides)
    pool = SimpleNamespace(store=store, slide=np.repeat(np.arange(len(names), dtype=np.int32), counts))
    return SimpleNamespace(pool=pool, store=store, config=SimpleNamespace(cluster_tile_um=112.0))


def measure(path: Path, names: list[str]) -> None:
    """Join one file to a store of these slides, and print what it took."""
    inputs: Any = made_store(names, np.random.default_rng(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.perf_counter()
    published = PublishedFile(path)
    published.content_hash()
    hashed = time.perf_counter() - began
    work: Any = SimpleNamespace(count=lambda *_: None)
    arrays, facts = join_tiles(inputs, published, work)
    seconds = time.perf_counter() - began - hashed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    patches = len(inputs.pool.slide)
    print(
        f"{path.name:8} {path.stat().st_size / 1e9:5.2f} GB, {len(names):,} slides, {patches:,} patches: hash "
        f"{hashed:.1f} s, join {seconds:.1f} s ({facts['tiles']:,} tiles), peak {peak:.2f} GiB ({before:.2f} before), "
        f"{np.count_nonzero(arrays['ids'][:, 0] >= 0) / patches:.1%} of the patches in clusters",
        flush=True,
    )


def main() -> None:
    """Write the files where they are not there, and join each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slides", type=int, default=1200)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "SLIDES"))
    options = parser.parse_args()
    names = [name for name, _, _ in cohort_names(options.slides, max(options.slides * 2 // 3, 1), 30, 1)]
    if options.one:
        measure(options.folder / options.one[0], names[:: max(len(names) // int(options.one[1]), 1)])
        return
    slides = dict.fromkeys(names, (SIDE * TILE, SIDE * TILE, MPP))
    for ending in ("csv", "csv.gz", "parquet"):
        path = options.folder / f"c.{ending}"
        if not path.exists():
            write_published_clusters(path, slides, clusters=(3_500_000, 35_000, 350, 62), missing=0.26)
        for some in (max(options.slides // 30, 1), options.slides):
            again = [sys.executable, __file__, "--folder", str(options.folder), "--slides", str(options.slides)]
            subprocess.run([*again, "--one", path.name, str(some)], check=True)


if __name__ == "__main__":
    main()
