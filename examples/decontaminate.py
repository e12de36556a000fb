"""Find what a pool of patch images shares with a benchmark, and list the files that may be trained on.

python examples/decontaminate.py POOL BENCHMARK FOLDER        # stores and clean.txt come into FOLDER
"""

import sys
from pathlib import Path

from wsicurate import CurateConfig, EmbedConfig, curate, embed, import_patches, open_store


def decontaminate(pool: str, benchmark: str, folder: str) -> dict[str, int]:
    """Write ``clean.txt``, the files of the pool that no patch of the benchmark shows; gives numbers by decision."""
    stores = [Path(folder) / "pool.zarr", Path(folder) / "benchmark.zarr"]
    for images, store in zip((pool, benchmark), stores, strict=True):
        import_patches(images, store)
        embed(store, EmbedConfig(encoder="stain-texture"))
    # All that is no copy: no quality thresholds, no balance.
    settings = {"min_tissue": 0.0, "min_focus": 0.0, "max_pen": 1.0, "max_dark": 1.0, "max_blank": 1.0}
    report = curate(
        stores[0],
        CurateConfig(
            encoder="stain-texture",
            evaluation_sets=[stores[1]],
            budget=1.0,
            share_cap=1e9,
            evaluate=False,
            **settings,
        ),
    )
    manifest = open_store(stores[0]).curation(report.name).manifest().to_pandas()
    clean = manifest.loc[manifest["decision"] != "leakage", "name"]
    (Path(folder) / "clean.txt").write_text("".join(f"{name}\n" for name in clean))
    return dict(report.counts)


if __name__ == "__main__":
    for decision, number in decontaminate(*sys.argv[1:4]).items():
        print(f"{decision:15s} {number:,}")
