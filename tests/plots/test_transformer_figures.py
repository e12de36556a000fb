"""Figures of what a vision transformer looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from matplotlib import pyplot

from wsicurate import attention_maps, pca_rgb, plots
from wsicurate.embedding.networks.attention import region_attention
from wsicurate.errors import ConfigError, EncoderError


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, depth=2, embed_dim=48, num_heads=3, img_size=64
    ).eval()


@pytest.fixture
def patch(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_every_head_is_drawn_over_the_patch(network: Any, patch: np.ndarray) -> None:
    figure = plots.attention_heads(network, patch, layer=0, columns=3)
    figure.canvas.draw()
    axes = figure.axes
    assert len(axes) == 6
    np.testing.assert_array_equal(axes[0].images[0].get_array(), patch)
    maps = attention_maps(network, patch, layer=0)
    for head, ax in enumerate(axes[1:4]):
        image = ax.images[1]
        np.testing.assert_allclose(image.get_array(), 16 * maps[head])
        assert image.get_extent() == [-0.5, 63.5, 63.5, -0.5]
        assert image.get_clim()[0] == 0
        assert ax.get_title().startswith(f"head {head}, 0 to ")
    with pytest.raises(ConfigError, match="columns is 0"):
        plots.attention_heads(network, patch, columns=0)


def test_one_map_takes_axes(network: Any, patch: np.ndarray) -> None:
    _, (left, right) = pyplot.subplots(1, 2)
    assert plots.attention_map(network, patch, ax=left) is left
    plots.attention_map(network, patch, head=2, ax=right)
    maps = 16 * attention_maps(network, patch)
    np.testing.assert_allclose(left.images[1].get_array(), maps.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(right.images[1].get_array(), maps[2])
    with pytest.raises(ConfigError, match="head is 3; the block has heads 0 to 2"):
        plots.attention_map(network, patch, head=3)
    with pytest.raises(ConfigError, match=r"give uint8 of shape \(h, w, 3\)"):
        plots.attention_map(network, patch[None])
    with pytest.raises(EncoderError, match="Linear is no vision transformer"):
        plots.attention_map(torch.nn.Linear(2, 2), patch)


def test_a_region_is_drawn_tile_by_tile(network: Any, rng: np.random.Generator) -> None:
    region = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    figure = plots.attention_region(network, region, tile_px=64, overlapping=True)
    figure.canvas.draw()
    maps = region_attention(network, region, tile_px=64, overlapping=True)
    assert maps.shape == (3, 4, 8)
    np.testing.assert_allclose(figure.axes[2].images[1].get_array(), 16 * maps[1])
    assert figure.axes[1].images[1].get_extent() == [-0.5, 127.5, 63.5, -0.5]
    with pytest.raises(ConfigError, match="not filled by tiles of tile_px=256"):
        plots.attention_region(network, region)


def test_tokens_are_coloured_below_their_patches(network: Any, patch: np.ndarray) -> None:
    patches = np.stack([patch, 255 - patch, patch[::-1]])
    figure = plots.token_colours(network, patches, foreground=0.3)
    figure.canvas.draw()
    colours = pca_rgb(network, patches, foreground=0.3)
    assert (colours == 0).all(axis=-1).any()
    for column in range(3):
        np.testing.assert_array_equal(figure.axes[column].images[0].get_array(), patches[column])
        np.testing.assert_array_equal(figure.axes[3 + column].images[0].get_array(), colours[column])
    every = plots.token_colours(network, patches, foreground=None)
    np.testing.assert_array_equal(every.axes[3].images[0].get_array(), pca_rgb(network, patches)[0])
    with pytest.raises(EncoderError, match="lower it"):
        plots.token_colours(network, patches, foreground=1.0)
