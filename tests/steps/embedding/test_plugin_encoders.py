"""Encoders of other packages: found by name, listed, recorded with their package, and refused by name."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from wsicurate.config import CurateConfig, EmbedConfig, TileConfig
from wsicurate.embedding.encoders import load_encoder
from wsicurate.errors import ConfigError, EncoderError, StoreSettingsError
from wsicurate.opening import open_store
from wsicurate.plugins import plugins
from wsicurate.steps.check import check
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.encoders import encoders
from wsicurate.steps.tile import tile

PAGE = (REPOSITORY / "docs" / "extending" / "encoders.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
POINTS = """[wsicurate.encoders]
colours = my_encoders:Colours
stripes = my_encoders:StripesEncoder
broken = my_encoders:Broken
nothing = my_encoders:nn
stain-texture = my_encoders:Colours
"""
BROKEN = """
class Broken:
    def load(self, weights):
        if weights is None:
            raise OSError("no weights here")
        return weights
"""


def install(site: Path, version: str) -> None:
    for old in site.glob("*.dist-info"):
        shutil.rmtree(old)
    folder = site / f"my_encoders-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: my-encoders\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text(POINTS)
    plugins.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the documentation's page, installed."""
    site = tmp_path / "site"
    install(site, "1.0")
    (site / "my_encoders.py").write_text("\n".join(BLOCKS[:2]) + BROKEN)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
    yield site
    plugins.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def store(small_slides: Path, tmp_path: Path) -> Path:
    tile(small_slides, tmp_path / "s.zarr", TileConfig(max_patches_per_slide=6, workers=1))
    return tmp_path / "s.zarr"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_descriptor_embeds_and_another_version_is_a_difference(site: Path, store: Path, workers: int) -> None:
    embed(store, EmbedConfig(encoder="colours", workers=workers))
    opened = open_store(store)
    slide = next(iter(opened.slides.values()))
    pixels = slide[0].reshape(-1, 3)
    counts = np.concatenate([np.bincount(pixels[:, channel] // 8, minlength=32) for channel in range(3)])
    np.testing.assert_allclose(slide.embedding("colours")[0], 0.01 + counts / len(pixels), rtol=1e-3)
    record = slide.embedding_record("colours")
    assert record.preprocessing == {"descriptor": "colours", "version": "1", "package": "my-encoders 1.0"}
    assert record.licence == "Apache-2.0"
    assert check(store, workers=1).problems == []
    assert embed(store, EmbedConfig(encoder="colours", workers=workers)).count("unchanged") == len(opened.slides)
    install(site, "1.1")
    with pytest.raises(StoreSettingsError, match=r"my-encoders 1.0.*my-encoders 1.1"):
        embed(store, EmbedConfig(encoder="colours", workers=workers))


def test_a_network_embeds_with_its_own_facts(site: Path, store: Path, tmp_path: Path) -> None:
    weights = tmp_path / "stripes.pt"
    torch.manual_seed(0)
    model = load_encoder("stripes")
    torch.save(model.network.state_dict(), weights)
    embed(store, EmbedConfig(encoder="stripes", weights=weights, device="cpu", workers=1))
    record = next(iter(open_store(store).slides.values())).embedding_record("stripes")
    assert (record.dim, record.mpp, record.licence) == (48, 0.5, "MIT")
    assert record.preprocessing["input_px"] == 128 and record.preprocessing["package"] == "my-encoders 1.0"
    assert load_encoder("stripes", weights=weights).weights_hash == record.weights_hash
    with pytest.raises(ConfigError, match="--pooling is class, and stripes of my-encoders 1.0 pools itself"):
        load_encoder("stripes", pooling="class")


@pytest.mark.slow
def test_it_selects_and_finds_copies(site: Path, store: Path) -> None:
    embed(store, EmbedConfig(encoder="colours", workers=1))
    report = curate(
        store, CurateConfig(encoder="colours", budget=5, min_focus=0, min_tissue=0, evaluate=False, workers=1)
    )
    assert report.selected == 5
    assert report.run["encoder"]["encoder"] == "colours"
    assert report.run["copies"]["calibration"] is not None  # the encoder was loaded again, by its name


def test_they_are_listed_and_our_names_are_ours(site: Path) -> None:
    with pytest.raises(ConfigError, match=r"the encoder 'nothing' of my-encoders 1.0 is .*; name a descriptor class"):
        encoders()
    points = site / "my_encoders-1.0.dist-info" / "entry_points.txt"
    points.write_text(POINTS.replace("nothing = my_encoders:nn\n", ""))
    plugins.cache_clear()
    listed = {preset.name: preset for preset in encoders()}
    assert listed["colours"].package == listed["stripes"].package == "my-encoders 1.0"
    assert (listed["colours"].is_descriptor, listed["stripes"].is_descriptor) == (True, False)
    assert listed["stain-texture"].package == ""


def test_what_fails_is_named(site: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="broken of my-encoders 1.0 cannot be loaded: OSError: no weights here"):
        embed(store, EmbedConfig(encoder="broken", workers=1))
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(EncoderError, match="broken of my-encoders 1.0 gives .*; load returns a torch.nn.Module"):
        embed(store, EmbedConfig(encoder="broken", weights=tmp_path / "w.pt", workers=1))
    (tmp_path / "own.toml").write_text('[mine]\nsource = "plugin:stripes"\n')
    with pytest.raises(ConfigError, match="an encoder of a package is asked for by its own name"):
        embed(store, EmbedConfig(encoder=str(tmp_path / "own.toml"), workers=1))
