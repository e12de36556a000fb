"""Makes the golden stores of the current version: run once per release, commit the result, never change it again.

python tests/golden/make.py
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from wsicurate import curate, embed, tile
from wsicurate._version import __version__
from wsicurate.config import CurateConfig, EmbedConfig, ImportConfig, MaterialiseConfig, TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.imports import import_patches
from wsicurate.steps.materialise import materialise
from wsicurate.store.layout import mark_path
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.patch_fields import LABEL, NAME, PARENT_ROW
from wsicurate.store.store import Store
from wsicurate.synthetic.cohort import write_cohort
from wsicurate.synthetic.description import SyntheticSlide

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
        for encoder in slide.encoders:
            slides[key][f"embedding {encoder}"] = digest(slide.embedding(encoder))
        if NAME in slide.record.patch_fields:
            slides[key]["names"] = list(slide.names)
        if slide.dropped_names:
            slides[key]["dropped_names"] = list(slide.dropped_names)
            slides[key]["dropped_reasons"] = list(slide.dropped_reason)
        if LABEL in slide.record.patch_fields:
            slides[key]["labels"] = list(slide.labels)
        if PARENT_ROW in slide.record.patch_fields:
            slides[key]["parent_rows"] = slide.parent_rows.tolist()
    description: dict[str, object] = {"patches": len(store), "slides": slides}
    for name in store.curations:
        curation = store.curation(name)
        table = curation.manifest()
        description[f"curation {name}"] = {
            "columns": table.column_names,
            "decisions": table["decision"].to_pylist(),
            "reasons": table["reason"].to_pylist(),
            "rows": digest(table["row"].to_numpy()),
            "clusters": {each: digest(values) for each, values in curation.clusters().items()},
        }
        copies = table.filter(pc.equal(table["decision"].cast("string"), "copy"))
        description[f"copies {name}"] = [
            [row[f"copy_of_{part}"] for part in ("mpp", "slide", "row")] for row in copies.to_pylist()
        ]
    return description


def forget_places(path: Path) -> None:
    """Where the slides lay is nobody's business."""
    store = LocalBytes(path)
    for key, slide in open_store(path).slides.items():
        place = f"/slides/{Path(slide.record.source['path']).name}"
        source, messages = {**slide.record.source, "path": place}, dict.fromkeys(slide.record.messages, "an example")
        store.put(mark_path(key), [replace(slide.record, source=source, messages=messages).to_json()])
    for record in path.glob("runs/2*.json"):
        record.unlink()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        slides, images = Path(folder) / "slides", Path(folder) / "images"
        small = {"width": 768, "height": 768, "tissue": 0.6}
        cohort = [SyntheticSlide(**small, seed=1), SyntheticSlide(**small, seed=2, tile_px=128)]
        cohort.append(SyntheticSlide(width=768, height=768, seed=3, tissue=0.0))
        write_cohort(slides, cohort, patients=2, seed=1)
        for name in ("jpeg", "zstd", "none", "import", "dropped"):
            path = HERE / f"{__version__}-{name}.zarr"
            shutil.rmtree(path, ignore_errors=True)
            if name in ("import", "dropped"):
                write_images(images, open_store(HERE / f"{__version__}-zstd.zarr"))
                patch_px = None
                if name == "dropped":
                    break_images(images)
                    patch_px = 32
                import_patches(images, path, ImportConfig(mpp=0.5, layout="label/slide", patch_px=patch_px, workers=1))
            else:
                tile(slides, path, TileConfig(patch_px=32, codec=name, max_patches_per_slide=12, seed=5, workers=1))
            forget_places(path)
            if name in ("jpeg", "import"):
                for encoder in ("stain-texture", "filter-bank"):
                    embed(path, EmbedConfig(encoder=encoder, workers=1))
                settings = CurateConfig(
                    encoder="stain-texture", evaluation_encoder="filter-bank", budget=6, clusters=(4, 2)
                )
                curate(path, replace(settings, workers=1))
                for record in path.glob("runs/2*.json"):
                    record.unlink()
            write_description(path)
    make_materialised()


def make_materialised() -> None:
    """What a curation of the imported patches selected, in a store of its own."""
    parent, path = (HERE / f"{__version__}-{name}.zarr" for name in ("import", "materialised"))
    shutil.rmtree(path, ignore_errors=True)
    (curation,) = open_store(parent).curations
    materialise(parent, path, MaterialiseConfig(curation=curation, workers=1))
    for record in path.glob("runs/2*.json"):
        record.unlink()
    write_description(path)


def write_description(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(describe(open_store(path)), indent=2) + "\n")


def break_images(folder: Path) -> None:
    """Every third image cannot be read; of the first slide, one has another size."""
    files = sorted(folder.rglob("*.png"))
    for file in files[::3]:
        file.write_bytes(b"no image")
    Image.new("RGB", (31, 31)).save(files[1])


def write_images(folder: Path, store: Store) -> None:
    """Patches of a store as a folder of images: two labels, a folder per slide."""
    for number, slide in enumerate(store.slides.values()):
        for row in range(len(slide)):
            file = folder / "ab"[row % 2] / f"slide{number}" / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(slide[row]).save(file)


if __name__ == "__main__":
    main()
