"""Networks that their authors publish for the package transformers, which is optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsicurate.embedding.networks.hub import hub_or_cache, is_unreachable, shortened, why_unreachable
from wsicurate.embedding.networks.pooling import Pooled
from wsicurate.embedding.presets import Preset
from wsicurate.errors import EncoderUnavailableError


class TransformersTokens(nn.Module):
    """A model of transformers with the two calls that `Pooled` makes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The model's own pooled vector (b, d)."""
        vectors: torch.Tensor = self.model(pixel_values=images).pooler_output
        return vectors

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens (b, n, d), the class token first."""
        tokens: torch.Tensor = self.model(pixel_values=images).last_hidden_state
        return tokens


def load_transformers(preset: Preset, weights: Path | None = None) -> tuple[nn.Module, Preset]:
    """Load a vision model with `transformers.AutoModel`.

    Args:
        preset: which.
        weights: a folder with the model's files, instead of the hub.

    Returns:
        The network, pooled, and the preset as it was.

    Raises:
        EncoderUnavailableError: if transformers is not installed, or the model cannot be had.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise EncoderUnavailableError(
            f"{preset.name} is loaded by the package transformers, which is not installed: pip install transformers"
        ) from error
    place = preset.place if weights is None else str(weights if weights.is_dir() else weights.parent)
    try:
        with hub_or_cache():
            model = AutoModel.from_pretrained(place, trust_remote_code=preset.trusts_code)
    except Exception as error:  # whatever the hub, the model's files or its code raise
        if weights is None and is_unreachable(error):
            raise EncoderUnavailableError(why_unreachable(preset, error)) from error
        raise EncoderUnavailableError(
            f"{preset.name} cannot be loaded from {place}: {type(error).__name__}: {shortened(str(error))}"
        ) from error
    registers = int(getattr(model.config, "num_register_tokens", 0) or 0)
    return Pooled(TransformersTokens(model), preset.pooling, 1 + registers), preset
