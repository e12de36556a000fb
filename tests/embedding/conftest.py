"""Small networks with random weights, saved to disk as a user would have them, and a patch to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.pixels.stain import from_stains

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

#: A ViT of two blocks: fractions of a second.
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}

TOML = """
[small]
source = "file:small.safetensors"
arch = "vit_tiny_patch16_224"
kwargs = {{ depth = 2, embed_dim = 48, num_heads = 3 }}
input_px = 64
mean = [0.7, 0.58, 0.7]
std = [0.21, 0.23, 0.18]
pooling = "{pooling}"
mpp = 0.5
licence = "CC0-1.0"
terms = "Do as you like."
"""


def write_small(folder: Path, *, pooling: str = "class", seed: int = 0) -> Path:
    """A small ViT and the TOML file that describes it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    save_file(model.state_dict(), folder / "small.safetensors")
    path = folder / "small.toml"
    path.write_text(TOML.format(pooling=pooling))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "encoder")


def tissue(seed: int, side: int = 256) -> NDArray[np.uint8]:
    """Round nuclei on fibres, drawn by formula: no library's random field, no filter."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    angle, period = rng.uniform(0, np.pi), rng.uniform(9, 25)
    waves = np.cos((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + np.sin(x / 17) + np.cos(y / 23))
    haematoxylin = np.zeros((side, side))
    for _ in range(rng.integers(20, 90)):
        centre_x, centre_y, radius = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(3, 9)
        distance = np.hypot(x - centre_x, (y - centre_y) * rng.uniform(0.7, 1.4))
        haematoxylin += 0.8 / (1 + np.exp((distance - radius) * 1.5))
    noise = rng.uniform(-0.02, 0.02, (side, side))
    stains = from_stains(
        (np.minimum(haematoxylin, 1.2) + 0.05 + noise).astype(np.float32),
        (0.25 + 0.15 * waves * rng.uniform(0.3, 1)).astype(np.float32),
    )
    return np.clip(stains + 0.5, 0, 255).astype(np.uint8)


@pytest.fixture(scope="package")
def patches() -> NDArray[np.uint8]:
    """Twelve different patches, uint8 (12, 256, 256, 3)."""
    return np.stack([tissue(seed) for seed in range(12)])
