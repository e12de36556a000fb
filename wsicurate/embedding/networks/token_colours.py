"""Patch tokens of a vision transformer as colours: the figures of DINOv2 (Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.networks.inference import fit
from wsicurate.embedding.networks.models import LoadedModel
from wsicurate.embedding.networks.vision_transformers import Encoder, as_encoder, enlarged, grid_of, patch_tokens
from wsicurate.errors import EncoderError


def pca_rgb(
    encoder: Encoder, patches: NDArray[np.uint8], *, foreground: float | None = None, size: int | None = None
) -> NDArray[np.float32]:
    """Patch tokens as colours: their first three principal components, over all patches together.

    Tokens of like colour are alike to the encoder, across patches as well. Each component is stretched to 0 to 1. The
    sign of a component means nothing; it is chosen so that its largest loading is positive.

    Args:
        encoder: a vision transformer, from `load_encoder`, or a network of timm.
        patches: uint8, (h, w, 3) or (b, h, w, 3), RGB.
        foreground: show only tokens whose first component, stretched to 0 to 1 and turned so that dark tissue is high,
            exceeds this; the components are then those of these tokens alone, as in DINOv2. None shows all.
        size: edge of the pictures in pixels, interpolated bilinearly; None for one pixel per token.

    Returns:
        float32, (rows, columns, 3) or (b, rows, columns, 3), from 0 to 1; background is 0.

    Raises:
        EncoderError: if the encoder has no patch tokens, or fewer than four tokens are left to compare.
    """
    found = as_encoder(encoder)
    single = patches.ndim == 3
    batch = patches[None] if single else patches
    rows, columns = grid_of(found)
    tokens = patch_tokens(found, batch)
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    shown = np.ones(len(flat), dtype=bool)
    if foreground is not None:
        first = _components(flat, 1)[:, 0]
        if np.corrcoef(first, _darkness(found, batch, rows, columns))[0, 1] < 0:
            first = -first
        shown = _stretched(first[:, None])[:, 0] > foreground
    if shown.sum() < 4:
        raise EncoderError(f"{int(shown.sum())} tokens are left above foreground={foreground}; lower it")
    colours = np.zeros((len(flat), 3), dtype=np.float32)
    colours[shown] = _stretched(_components(flat[shown], 3))
    pictures = colours.reshape(len(batch), rows, columns, 3)
    if size is not None:
        pictures = np.stack([enlarged(one.transpose(2, 0, 1), size).transpose(1, 2, 0) for one in pictures])
    return np.ascontiguousarray(pictures[0] if single else pictures)


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
