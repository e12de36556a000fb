"""Small networks with random weights, saved to disk as a user would have them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    import timm
    import torch
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
