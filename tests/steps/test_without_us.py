"""A store of codec zstd, read by plain zarr-python in an environment that has no wsicurate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from wsicurate.config import TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.tile import tile

READ = """
import sys
sys.path = [path for path in sys.path if path not in ("", sys.argv[3])]
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in repr(finder)]


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "wsicurate":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Absent())
try:
    import wsicurate
    raise SystemExit("wsicurate is there")
except ModuleNotFoundError:
    pass
import numpy, zarr
root = zarr.open_group(sys.argv[1], mode="r")
parts = [root[f"slides/{key}/images"][...] for key in sorted(root["slides"].group_keys())]
assert "images" in str(root["slides"].tree())
numpy.save(sys.argv[2], numpy.concatenate(parts))
"""


def test_plain_zarr_reads_lossless_stores(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    tile(small_slides, store, TileConfig(codec="zstd", patch_px=64, max_patches_per_slide=30, workers=1))
    repository = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", READ, store, tmp_path / "patches.npy", repository], check=True, cwd=tmp_path, timeout=120
    )
    assert np.array_equal(np.load(tmp_path / "patches.npy"), open_store(store)[:])
