"""Curate a folder of patch images, such as blood or bone-marrow cells: no slides at all. Subfolders are the labels.

python examples/curate_a_patch_folder.py FOLDER STORE
"""

import sys

from wsicurate import CurateConfig, EmbedConfig, ImportConfig, curate, embed, import_patches


def curate_folder(folder: str, store: str, budget: float = 0.25) -> dict[str, int]:
    """Select a share of the images; gives their number by decision."""
    import_patches(folder, store, ImportConfig(layout="label"))
    embed(store, EmbedConfig(encoder="stain-texture"))
    # Thresholds on pen and dark areas are for tissue; single cells are mostly background, and some are dark.
    settings = {"min_tissue": 0.0, "max_pen": 1.0, "max_dark": 1.0, "max_blank": 1.0, "share_cap": 1e9}
    report = curate(store, CurateConfig(encoder="stain-texture", budget=budget, evaluate=False, **settings))
    return dict(report.counts)


if __name__ == "__main__":
    for decision, number in curate_folder(sys.argv[1], sys.argv[2]).items():
        print(f"{decision:15s} {number:,}")
