"""Importing and using the library leaves everything as it was that a process shares, and leaves no threads behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.store.curation_record import RECORD

PREAMBLE = """
import sys, warnings
from tests.neighbour_state import changes, import_all, import_libraries, snapshot
import_libraries()
import cv2, torch
cv2.setNumThreads(3)  # nothing that we would choose
torch.backends.cuda.matmul.allow_tf32 = True
before = snapshot()

def look(what):
    found = changes(before, snapshot())
    assert not found, what + ": " + "; ".join(found)
"""


def run_script(code: str, *arguments: str | Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.slow
def test_importing_and_using_it_changes_nothing(small_slides: Path, tmp_path: Path) -> None:
    run_script(
        PREAMBLE
        + """
import wsicurate
look("import wsicurate")
for name in wsicurate.__all__:
    getattr(wsicurate, name)
look("its names")
assert len(import_all()) > 100
look("its modules")

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
import numpy as np
from wsicurate import *
from wsicurate.synthetic.slide import SyntheticSlide
from tests.embedding.small import write_small
slides, tmp = Path(sys.argv[1]), Path(sys.argv[2])
encoder = str(write_small(tmp / "encoder"))
before = snapshot()
one = ThreadPoolExecutor(1)
store = tmp / "a.zarr"
tile(slides, store, TileConfig(patch_px=128, max_patches_per_slide=20), executor=one)
look("tile")
tile(slides, tmp / "workers.zarr", TileConfig(patch_px=128, max_patches_per_slide=2, workers=2))
look("tile by workers of its own")
for name in ("stain-texture", "filter-bank"):
    embed(store, EmbedConfig(encoder=name), executor=one)
look("embed by a descriptor")
embed(store, EmbedConfig(encoder=encoder, device="cpu"))
look("embed by a network")
loaded = load_encoder(encoder)
look("load_encoder")
from wsicurate.embedding.networks.inference import Inference
Inference(loaded)(np.zeros((2, 64, 64, 3), np.uint8))
look("Inference")
attention_maps(loaded, np.zeros((64, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None, None])
look("attention_maps")
curate(store, CurateConfig(encoder="stain-texture", budget=10, evaluation_seeds=2), executor=one)
look("curate")
check(store, executor=one)
look("check")
opened = open_store(store)
opened[:20], opened[3], opened.table(), opened.vectors("small"), opened.curation("default").manifest(), info(store)
look("reading")
images = tmp / "images"
images.mkdir()
for number in range(3):
    Image.fromarray(np.full((64, 64, 3), 100 + number, np.uint8)).save(images / f"{number}.png")
before = snapshot()
import_patches(images, tmp / "b.zarr", ImportConfig(mpp=0.5), executor=one)
look("import")
write_slide(tmp / "s.svs", SyntheticSlide(width=512, height=512, seed=1))
look("write_slide")
one.shutdown()
""",
        small_slides,
        tmp_path,
    )


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_reading_a_manifest_leaves_no_threads(tmp_path: Path) -> None:
    """Threads of pyarrow's pools that are left abort the interpreter at its end, now and then."""
    run_script(
        """
import json, os, sys
import numpy as np, pyarrow as pa
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import read_curation, write_curation
rows = 300_000
table = pa.table({"slide_id": pa.array(["a"] * rows).dictionary_encode(), "row": np.arange(rows)})
store = LocalBytes(__import__("pathlib").Path(sys.argv[1]))
write_curation(store, "c", table, json.loads(sys.argv[2]), {})
count = len(os.listdir("/proc/self/task"))
read = read_curation(store, "c", "here").manifest()
assert read.num_rows == rows
assert len(os.listdir("/proc/self/task")) == count, "threads are left"
""",
        tmp_path / "s",
        json.dumps({**RECORD, "name": "c"}),
    )


SCRIPT = """
import sys, wsicurate
store = wsicurate.open_store(sys.argv[1])
store.curation("default").manifest()
store[:40]
store.table()
"""


def ends(store: Path, times: int) -> list[int]:
    command = [sys.executable, "-c", SCRIPT, str(store)]
    return [subprocess.run(command, capture_output=True, check=False).returncode for _ in range(times)]


@pytest.fixture(scope="module")
def curated(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wsicurate import curate, embed, tile
    from wsicurate.config import CurateConfig, EmbedConfig, TileConfig

    store = tmp_path_factory.mktemp("neighbour") / "a.zarr"
    tile(small_slides, store, TileConfig(patch_px=128, max_patches_per_slide=20, workers=1))
    for name in ("stain-texture", "filter-bank"):
        embed(store, EmbedConfig(encoder=name, workers=1))
    curate(store, CurateConfig(encoder="stain-texture", budget=20, copies="none", evaluate=False, workers=1))
    return store


@pytest.mark.slow
def test_scripts_end_well(curated: Path) -> None:
    assert ends(curated, 4) == [0] * 4


@pytest.mark.slow
def test_scripts_end_well_every_time(curated: Path) -> None:
    assert ends(curated, 60) == [0] * 60
