"""Embedding changed patches as a store's were embedded: what calibrating a threshold needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.copies.threshold import Embed
from wsicurate.embedding.encoders import describe_identity, load_descriptor, wanted_preset
from wsicurate.errors import ConfigError, EncoderError
from wsicurate.store.embeddings import EmbeddingRecord

_BATCH = 32


def reembedder(
    record: EmbeddingRecord, weights: Path | None = None, arch: str | None = None
) -> tuple[Embed | None, str]:
    """Something that embeds patches as a store's were embedded.

    Args:
        record: of the store's embedding.
        weights: file that the encoder's weights were taken from, if it was one.
        arch: timm architecture of these weights.

    Returns:
        The function, float32 (b, d) of uint8 (b, h, w, 3); or None, and why there is none: the weights are not at hand,
        or it would not give the store's vectors.
    """
    try:
        source = record.encoder if weights is None or arch is None else str(weights)
        preset = wanted_preset(source, arch=arch, name=record.encoder)
        if preset.is_descriptor:
            descriptor = load_descriptor(preset.place)
            other = _other(record, describe_identity(preset, descriptor))
            return (None, other) if other else (descriptor, "")
        from wsicurate.embedding.networks.inference import Inference, identity
        from wsicurate.embedding.networks.models import load_model

        model = load_model(preset, weights=weights)
        if other := _other(record, identity(model)):
            return None, other
        inference = Inference(model, device="auto", precision=str(record.settings.get("precision", "auto")))
    except (ConfigError, EncoderError) as error:
        return None, str(error)

    def embed(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [inference(patches[start : start + _BATCH]) for start in range(0, len(patches), _BATCH)]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])

    return embed, ""


def _other(record: EmbeddingRecord, now: Mapping[str, Any]) -> str:
    """In what the encoder at hand differs from the one that embedded the store; empty if in nothing."""
    for name in ("weights_hash", "preprocessing", "pooling", "dim"):
        if json.dumps(now[name], sort_keys=True) != json.dumps(getattr(record, name), sort_keys=True):
            return f"{record.encoder} at hand has {name} {now[name]!r}, the store {getattr(record, name)!r}"
    return ""
