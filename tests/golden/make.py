"""Makes the golden stores of the current version: run once per release, commit the result, never change it again.

python tests/golden/make.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from wsicurate import SyntheticSlide, TileConfig, __version__, open_store, tile, write_cohort
from wsicurate.store.store import Store

HERE = Path(__file__).parent


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def describe(store: Store) -> dict[str, object]:
    """What must come out of the store for ever."""
    slides = {}
    for key, slide in store.slides.items():
        slides[key] = {
            "patches": len(slide),
            "xy": digest(slide.xy),
            "quality": digest(slide.quality),
            "columns": list(slide.quality_columns),
            "dropped": sorted(set(slide.dropped_reason)),
            "dropped_xy": digest(slide.dropped_xy),
            "tissue": digest(slide.tissue),
            "overview": digest(slide.overview),
            "images": None if slide.images is None else digest(slide[:]),
            "patient": slide.record.patient,
            "content_hash": slide.record.content_hash,
        }
    return {"patches": len(store), "slides": slides}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        slides = Path(folder) / "slides"
        small = {"width": 768, "height": 768, "tissue": 0.6}
        cohort = [SyntheticSlide(**small, seed=1), SyntheticSlide(**small, seed=2, tile_px=128)]
        cohort.append(SyntheticSlide(width=768, height=768, seed=3, tissue=0.0))
        write_cohort(slides, cohort, patients=2, seed=1)
        for codec in ("jpeg", "zstd", "none"):
            path = HERE / f"{__version__}-{codec}.zarr"
            shutil.rmtree(path, ignore_errors=True)
            config = TileConfig(patch_px=32, codec=codec, max_patches_per_slide=12, seed=5, workers=1)
            tile(slides, path, config)
            for mark in path.glob("slides/*/zarr.json"):  # where the slides lay is nobody's business
                document = json.loads(mark.read_text())
                if "wsicurate" in document["attributes"]:
                    source = document["attributes"]["wsicurate"]["source"]
                    source["path"] = f"/slides/{Path(source['path']).name}"
                    mark.write_text(json.dumps(document, indent=2) + "\n")
            for record in path.glob("runs/2*.json"):
                record.unlink()
            path.with_suffix(".json").write_text(json.dumps(describe(open_store(path)), indent=2) + "\n")


if __name__ == "__main__":
    main()
