"""How the tokens of a network become one vector."""

from __future__ import annotations

import torch
from torch import nn

from wsicurate.embedding.presets import Pooling


class Pooled(nn.Module):
    """A backbone, and how its tokens become one vector.

    Args:
        backbone: with ``forward`` alone for ``pooling="model"``; else ``forward_features(images)`` must give tokens
            (b, n, d), normalised as the model does.
        pooling: see `Pooling`.
        prefix_tokens: class and register tokens before the patch tokens; the class token comes first.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling, prefix_tokens: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.prefix_tokens = prefix_tokens

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors (b, d) of images (b, 3, h, w)."""
        if self.pooling == "model":
            vectors: torch.Tensor = self.backbone(images)
            return vectors
        tokens: torch.Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        if self.pooling == "class":
            return tokens[:, 0]
        mean = tokens[:, self.prefix_tokens :].mean(1)
        return mean if self.pooling == "mean" else torch.cat([tokens[:, 0], mean], dim=1)
