from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks.attention import attention_maps
from wsicurate.embedding.networks.models import LoadedModel
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.embedding.networks.token_colours import pca_rgb
from wsicurate.embedding.presets import Preset
from wsicurate.errors import ConfigError, EncoderError


def with_registers(**changes: Any) -> LoadedModel:
    """A small DINOv2 with registers, normalised queries and keys."""
    torch.manual_seed(0)
    backbone = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, depth=2, embed_dim=48, num_heads=3, img_size=56, **changes
    ).eval()
    preset = Preset(name="r", source="timm:r", input_px=56, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return LoadedModel(preset=preset, network=Pooled(backbone, "class", 5), dim=48, weights_hash="")


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}])
def test_attention_is_that_of_the_forward_pass(rng: np.random.Generator, changes: dict[str, Any]) -> None:
    encoder = with_registers(**changes)
    patch = rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)
    maps = attention_maps(encoder, patch)
    attention: Any = encoder.network.backbone.blocks[-1].attn
    attention.fused_attn = False  # timm then computes the weights itself, and drops them out
    seen: list[torch.Tensor] = []
    hook = attention.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        encoder.network((torch.from_numpy(patch[None]).float() / 127.5 - 1).permute(0, 3, 1, 2))
    hook.remove()
    wanted = seen[0][0, :, 0, 5:].reshape(3, 4, 4).numpy()
    np.testing.assert_allclose(maps, wanted, rtol=1e-4, atol=1e-6)
    assert maps.dtype == np.float32
    assert (maps.sum(axis=(1, 2)) <= 1).all()


def test_attention_maps_are_enlarged(small: Path, rng: np.random.Generator) -> None:
    encoder = load_encoder(str(small))
    patch = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert attention_maps(encoder, patch).shape == (3, 4, 4)
    assert attention_maps(encoder, patch, layer=0, size=100).shape == (3, 100, 100)
    with pytest.raises(IndexError):
        attention_maps(encoder, patch, layer=2)


def test_pca_is_that_of_all_tokens_together(small: Path, rng: np.random.Generator) -> None:
    from sklearn.decomposition import PCA

    encoder = load_encoder(str(small))
    patches = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    pictures = pca_rgb(encoder, patches)
    assert pictures.shape == (3, 4, 4, 3) and pictures.dtype == np.float32
    images = (patches / 255 - np.array(encoder.preset.mean)) / np.array(encoder.preset.std)
    with torch.inference_mode():
        tokens = encoder.network.backbone.forward_features(torch.from_numpy(images).float().permute(0, 3, 1, 2))
    scores = PCA(3, svd_solver="full").fit_transform(tokens[:, 1:].reshape(-1, 48).double().numpy())
    scores = (scores - scores.min(0)) / (scores.max(0) - scores.min(0))
    ours = pictures.reshape(-1, 3)
    for column in range(3):
        turned = min(np.abs(ours[:, column] - sign).max() for sign in (scores[:, column], 1 - scores[:, column]))
        assert turned < 1e-4
    assert pca_rgb(encoder, patches[0], size=64).shape == (64, 64, 3)


def test_the_foreground_is_what_is_dark(small: Path, rng: np.random.Generator) -> None:
    encoder = load_encoder(str(small))
    patch = np.full((64, 64, 3), 245, dtype=np.uint8)
    patch[:, :32] = rng.integers(60, 180, (64, 32, 3), dtype=np.uint8)
    picture = pca_rgb(encoder, patch, foreground=0.5)
    shown = picture.any(axis=2)
    assert shown[:, :2].mean() > 0.8
    assert not shown[:, 2:].any()
    with pytest.raises(EncoderError, match="lower it"):
        pca_rgb(encoder, patch, foreground=1.5)


def test_only_vision_transformers_are_looked_into(small: Path) -> None:
    torch.manual_seed(0)
    resnet = timm.create_model("resnet18", num_classes=0).eval()
    encoder = LoadedModel(
        preset=Preset(name="r", source="timm:r", input_px=64, mean=(0, 0, 0), std=(1, 1, 1)),
        network=Pooled(resnet, "model", 0),
        dim=512,
        weights_hash="",
    )
    patch = np.zeros((64, 64, 3), dtype=np.uint8)
    for look in (attention_maps, pca_rgb):
        with pytest.raises(EncoderError, match="no vision transformer"):
            look(encoder, patch)
    with pytest.raises(ConfigError, match="has no network"):
        load_encoder("stain-texture")
