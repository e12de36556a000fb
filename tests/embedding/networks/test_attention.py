from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks.attention import attention_maps, region_attention
from wsicurate.embedding.networks.models import LoadedModel
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.embedding.networks.token_colours import pca_rgb
from wsicurate.embedding.networks.transformers_models import TransformersTokens
from wsicurate.embedding.networks.vision_transformers import as_encoder, attention_of_block
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


def by_hand(backbone: Any, image: torch.Tensor, layer: int) -> torch.Tensor:
    """Attention of one block of a small DINOv2, (heads, n, n), from the weights: every step written out."""
    tokens = backbone.patch_embed.proj(image).flatten(2).transpose(1, 2)
    prefix = torch.cat([backbone.cls_token, backbone.reg_token], dim=1)
    tokens = torch.cat([prefix, tokens + backbone.pos_embed], dim=1)
    for block in backbone.blocks[:layer]:
        tokens = block(tokens)
    block = backbone.blocks[layer]
    query, key, _ = block.attn.qkv(block.norm1(tokens))[0].split(48, dim=1)
    heads = []
    for head in range(3):
        own = slice(16 * head, 16 * head + 16)
        q, k = block.attn.q_norm(query[:, own]), block.attn.k_norm(key[:, own])
        products = torch.tensor([[float(a @ b) / 4 for b in k] for a in q])  # 4: the square root of 16 dimensions
        powers = products.exp()
        heads.append(powers / powers.sum(dim=1, keepdim=True))
    return torch.stack(heads)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}])
@pytest.mark.parametrize("layer", [0, 1])
def test_attention_is_that_computed_by_hand(rng: np.random.Generator, changes: dict[str, Any], layer: int) -> None:
    encoder = with_registers(**changes)
    patch = rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)
    image = (torch.from_numpy(patch[None]).float() / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = by_hand(encoder.network.backbone, image, layer).numpy()
    np.testing.assert_allclose(attention_of_block(encoder, patch, layer), wanted, rtol=1e-4, atol=1e-6)
    maps = attention_maps(encoder, patch, layer=layer)
    np.testing.assert_allclose(maps, wanted[:, 0, 5:].reshape(3, 4, 4), rtol=1e-4, atol=1e-6)
    assert maps.dtype == np.float32
    assert (maps.sum(axis=(1, 2)) < 1).all()


def test_the_network_is_left_as_it_was(rng: np.random.Generator) -> None:
    encoder = with_registers()
    backbone: Any = encoder.network.backbone
    backbone.train()
    backbone.blocks[0].eval()
    attention = backbone.blocks[-1].attn
    attention.fused_attn = True
    attention_maps(encoder, rng.integers(0, 256, (56, 56, 3), dtype=np.uint8))
    assert attention.fused_attn
    assert not attention.attn_drop._forward_hooks
    assert backbone.training and backbone.blocks[1].training and not backbone.blocks[0].training


def test_a_network_of_timm_is_looked_into_as_it_is(rng: np.random.Generator) -> None:
    """As examples/pretrain_dino.py makes it; in training, dropout and drop path must not act."""
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_small_patch16_224",
        num_classes=0, depth=2, embed_dim=48, num_heads=3, img_size=64, dynamic_img_size=True, attn_drop_rate=0.5,
    )  # fmt: skip
    patch = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    maps = attention_maps(network, patch)
    assert maps.shape == (3, 4, 4)
    np.testing.assert_array_equal(maps, attention_maps(network, patch))
    assert pca_rgb(network, patch).shape == (4, 4, 3)
    assert as_encoder(network).preset.mean == (0.5, 0.5, 0.5)
    other = as_encoder(network, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), input_px=96)
    assert attention_maps(other, patch).shape == (3, 6, 6)
    assert as_encoder(other) is other


def test_a_network_of_transformers_is_looked_into(rng: np.random.Generator) -> None:
    class Model(torch.nn.Module):
        """What is used of a model of transformers: plain attention is given when asked, fused attention is not."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.config = SimpleNamespace(patch_size=16, num_register_tokens=1, _attn_implementation="sdpa")

        def set_attn_implementation(self, name: str) -> None:
            self.config._attn_implementation = name

        def forward(self, pixel_values: torch.Tensor, output_attentions: bool = False) -> SimpleNamespace:
            length = 2 + (pixel_values.shape[2] // 16) ** 2
            weights = torch.arange(3.0 * length**2).reshape(1, 3, length, length)
            is_plain = output_attentions and self.config._attn_implementation == "eager"
            return SimpleNamespace(
                attentions=(weights, 2 * weights) if is_plain else None,
                last_hidden_state=torch.rand(len(pixel_values), length, 8),
            )

    preset = Preset(name="m", source="transformers:m/m", input_px=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = Model()
    encoder = LoadedModel(preset=preset, network=Pooled(TransformersTokens(model), "class", 2), dim=8, weights_hash="")
    patch = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    first = attention_maps(encoder, patch, layer=0)
    np.testing.assert_array_equal(first[1], np.arange(121 + 2, 121 + 11).reshape(3, 3))
    np.testing.assert_array_equal(attention_maps(encoder, patch), 2 * first)
    assert model.config._attn_implementation == "sdpa"
    assert pca_rgb(encoder, patch).shape == (3, 3, 3)


def test_a_region_is_its_tiles(small: Path, rng: np.random.Generator) -> None:
    encoder = load_encoder(str(small))
    region = rng.integers(0, 256, (128, 192, 3), dtype=np.uint8)
    maps = region_attention(encoder, region, tile_px=64)
    assert maps.shape == (3, 8, 12)
    np.testing.assert_allclose(maps[:, 4:, 8:], attention_maps(encoder, region[64:, 128:]), rtol=1e-6)
    smooth = region_attention(encoder, region, tile_px=64, overlapping=True)
    shifted = [attention_maps(encoder, region[y : y + 64, x : x + 64]) for y, x in ((0, 0), (32, 0), (0, 32), (32, 32))]
    wanted = (shifted[0][:, 3, 3] + shifted[1][:, 1, 3] + shifted[2][:, 3, 1] + shifted[3][:, 1, 1]) / 4
    np.testing.assert_allclose(smooth[:, 3, 3], wanted, rtol=1e-5)
    np.testing.assert_allclose(smooth[:, 0, 0], maps[:, 0, 0], rtol=1e-6)
    with pytest.raises(ConfigError, match="a region of 192x128 px is not filled by tiles of tile_px=50"):
        region_attention(encoder, region, tile_px=50)


def test_without_a_class_token_there_is_no_attention_of_it() -> None:
    network = timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=0, depth=1, embed_dim=48, num_heads=3, img_size=64
    )
    with pytest.raises(EncoderError, match="no class token"):
        attention_maps(network, np.zeros((64, 64, 3), dtype=np.uint8))


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
