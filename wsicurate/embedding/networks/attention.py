"""What a vision transformer looks at: attention of its class token, and its patch tokens as colours.

The pictures of Caron et al. 2021 (arXiv 2104.14294), Chen and Krishnan 2022 (arXiv 2203.00585) and of DINOv2
(Oquab et al. 2023, arXiv 2304.07193).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsicurate.embedding.networks.inference import fit
from wsicurate.embedding.networks.models import LoadedModel
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.errors import EncoderError


def attention_maps(
    encoder: LoadedModel, patch: NDArray[np.uint8], *, layer: int = -1, size: int | None = None
) -> NDArray[np.float32]:
    """Where the class token looks: its attention to each patch token, for each head.

    Args:
        encoder: a vision transformer of timm with a class token, from `load_encoder`.
        patch: uint8, (h, w, 3), RGB; resized to what the encoder takes.
        layer: which block; the last by default.
        size: edge of the maps in pixels, interpolated bilinearly; None for one value per token.

    Returns:
        float32, (heads, rows, columns). Each map sums to the attention that goes to patch tokens, at most 1; what
        remains goes to the class token and the registers. Interpolated maps do not keep their sums.

    Raises:
        EncoderError: if the encoder is something else.
        IndexError: if there is no such block.
    """
    backbone: Any = _backbone(encoder)
    if getattr(backbone, "cls_token", None) is None:
        raise EncoderError(f"{encoder.preset.name} has no class token whose attention could be shown")
    attention = backbone.blocks[layer].attn
    if not hasattr(attention, "qkv") or getattr(backbone, "rope", None) is not None:
        raise EncoderError(f"{encoder.preset.name}: the attention of {type(attention).__name__} is not understood")
    seen: list[torch.Tensor] = []
    hook = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.inference_mode():
            backbone.forward_features(_images(encoder, patch[None]))
            weights = _attention_of(attention, seen[0])
    finally:
        hook.remove()
    rows, columns = _grid(encoder)
    prefix = weights.shape[-1] - rows * columns
    maps = weights[0, :, 0, prefix:].reshape(-1, rows, columns)
    return _resized(maps, size)


def _attention_of(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Softmax of q·k / sqrt(d): (b, heads, n, n), as timm computes it."""
    count, length = tokens.shape[:2]
    projected = attention.qkv(tokens).reshape(count, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(projected[0]), attention.k_norm(projected[1])
    scores = (query.float() * attention.scale) @ key.float().transpose(-2, -1)
    weights: torch.Tensor = scores.softmax(dim=-1)
    return weights


def pca_rgb(
    encoder: LoadedModel, patches: NDArray[np.uint8], *, foreground: float | None = None, size: int | None = None
) -> NDArray[np.float32]:
    """Patch tokens as colours: their first three principal components, over all patches together.

    Tokens of like colour are alike to the encoder, across patches as well. Each component is stretched to 0 to 1. The
    sign of a component means nothing; it is chosen so that its largest loading is positive.

    Args:
        encoder: a vision transformer of timm, from `load_encoder`.
        patches: uint8, (h, w, 3) or (b, h, w, 3), RGB.
        foreground: show only tokens whose first component, stretched to 0 to 1 and turned so that dark tissue is high,
            exceeds this; the components are then those of these tokens alone, as in DINOv2. None shows all.
        size: edge of the pictures in pixels, interpolated bilinearly; None for one pixel per token.

    Returns:
        float32, (rows, columns, 3) or (b, rows, columns, 3), from 0 to 1; background is 0.

    Raises:
        EncoderError: if the encoder has no patch tokens, or fewer than four tokens are left to compare.
    """
    backbone: Any = _backbone(encoder)
    single = patches.ndim == 3
    batch = patches[None] if single else patches
    images = _images(encoder, batch)
    rows, columns = _grid(encoder)
    with torch.inference_mode():
        tokens = torch.cat([backbone.forward_features(image[None]) for image in images]).float().cpu()
    flat = tokens[:, tokens.shape[1] - rows * columns :].reshape(-1, tokens.shape[-1]).double().numpy()
    shown = np.ones(len(flat), dtype=bool)
    if foreground is not None:
        first = _components(flat, 1)[:, 0]
        darkness = _darkness(encoder, batch, rows, columns)
        if np.corrcoef(first, darkness)[0, 1] < 0:
            first = -first
        shown = _stretched(first[:, None])[:, 0] > foreground
    if shown.sum() < 4:
        raise EncoderError(f"{int(shown.sum())} tokens are left above foreground={foreground}; lower it")
    colours = np.zeros((len(flat), 3))
    colours[shown] = _stretched(_components(flat[shown], 3))
    pictures = torch.from_numpy(colours.reshape(len(batch), rows, columns, 3)).permute(0, 3, 1, 2)
    resized = np.stack([_resized(picture.float(), size).transpose(1, 2, 0) for picture in pictures])
    return np.asarray(resized[0] if single else resized, dtype=np.float32)


def _components(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Scores (n, count) on the first principal components."""
    centred = values - values.mean(axis=0)
    _, _, loadings = np.linalg.svd(centred.T @ centred, hermitian=True)
    chosen = loadings[:count]
    signs = np.sign(chosen[np.arange(count), np.abs(chosen).argmax(axis=1)])
    return np.asarray(centred @ (chosen * signs[:, None]).T)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column from 0 to 1."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray((values - low) / np.maximum(high - low, 1e-12))


def _darkness(encoder: LoadedModel, patches: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float64]:
    """Mean darkness of the pixels under each token."""
    size = encoder.input_px
    means = [
        255.0 - fit(patch, size).reshape(rows, size // rows, columns, size // columns, 3).mean(axis=(1, 3, 4))
        for patch in patches
    ]
    return np.stack(means).reshape(-1)


def _backbone(encoder: LoadedModel) -> torch.nn.Module:
    network = encoder.network
    backbone = network.backbone if isinstance(network, Pooled) else network
    if (
        not isinstance(backbone, torch.nn.Module)
        or not hasattr(backbone, "blocks")
        or not hasattr(backbone, "patch_embed")
    ):
        raise EncoderError(f"{encoder.preset.name} is no vision transformer of timm; only those can be looked into")
    return backbone


def _grid(encoder: LoadedModel) -> tuple[int, int]:
    """Rows and columns of patch tokens."""
    backbone: Any = _backbone(encoder)
    height, width = backbone.patch_embed.patch_size
    return encoder.input_px // int(height), encoder.input_px // int(width)


def _images(encoder: LoadedModel, patches: NDArray[np.uint8]) -> torch.Tensor:
    """Patches (b, h, w, 3) as the network takes them."""
    parameter = next(encoder.network.parameters())
    mean = torch.tensor(encoder.preset.mean)
    std = torch.tensor(encoder.preset.std)
    batch = torch.from_numpy(np.stack([fit(patch, encoder.input_px) for patch in patches])).float() / 255
    return ((batch - mean) / std).permute(0, 3, 1, 2).to(parameter.device, parameter.dtype)


def _resized(maps: torch.Tensor, size: int | None) -> NDArray[np.float32]:
    """Maps (c, h, w) at another size."""
    if size is not None:
        maps = torch.nn.functional.interpolate(
            maps[None].float(), size=(size, size), mode="bilinear", align_corners=False
        )[0]
    return np.ascontiguousarray(maps.float().cpu().numpy(), dtype=np.float32)
