"""A store of every release must open for ever, and give what it gave then."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.conftest import REPOSITORY
from tests.golden.make import describe
from wsicurate import check
from wsicurate._version import __version__
from wsicurate.opening import open_store

HERE = Path(__file__).parent
STORES = sorted(HERE.glob("*.zarr"))


def test_this_version_has_its_stores() -> None:
    assert {path.stem for path in STORES} >= {
        f"{__version__}-{codec}" for codec in ("jpeg", "zstd", "none", "import", "dropped", "materialised")
    }


def test_every_kind_of_array_of_the_format_is_in_a_store_of_this_version() -> None:
    """And holds something: those that docs/format.md names, and those of embeddings and clusters."""
    text = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
    kinds = re.findall(r"^\| `([a-z_]+)` \|", text[text.index("## Arrays") : text.index("## Imported patches")], re.M)
    kinds += ["embeddings", "centroids_1", "centroids_2", "parents_1"]
    assert len(kinds) == 15
    found = set()
    for path in STORES:
        for file in path.rglob("zarr.json") if path.stem.startswith(f"{__version__}-") else ():
            document = json.loads(file.read_text())
            if 0 not in document.get("shape", [0]):
                found.add("embeddings" if file.parts[-3] == "embeddings" else file.parts[-2])
    assert found == set(kinds)


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_it_opens_and_gives_what_it_gave(path: Path) -> None:
    assert describe(open_store(path)) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", [path for path in STORES if "none" not in path.stem], ids=lambda path: path.stem)
def test_it_is_sound_and_zarr_reads_it(path: Path) -> None:
    assert check(path, workers=1).problems == []
    root = zarr.open_group(path, mode="r")
    for key, slide in open_store(path).slides.items():
        assert np.array_equal(root[f"slides/{key}/images"][...], slide[:])  # type: ignore[index]
