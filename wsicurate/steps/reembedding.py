"""Embedding changed patches as a store's were embedded: what calibrating a threshold needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.calibration import Embed
from wsicurate.embedding.encoders import DESCRIPTORS, describe_identity, load_descriptor, wanted_preset
from wsicurate.errors import ConfigError, EncoderError
from wsicurate.store.embeddings import EmbeddingRecord

_BATCH = 32


def reembedder(record: EmbeddingRecord, weights: Path | None = None) -> tuple[Embed | None, str]:
    """Something that embeds patches as a store's were embedded.

    Args:
        record: of the store's embedding.
        weights: file that the encoder's weights were taken from, if it was one.

    Returns:
        The function, float32 (b, d) of uint8 (b, h, w, 3); or None, and why there is none: the weights are not at hand,
        or are not those of the store.
    """
    try:
        preset = wanted_preset(record.encoder)
        if preset.name in DESCRIPTORS:
            descriptor = load_descriptor(preset.name)
            now = str(describe_identity(preset, descriptor)["weights_hash"])
            return (descriptor, "") if now == record.weights_hash else (None, _other(record, now))
        from wsicurate.embedding.inference import Inference, identity
        from wsicurate.embedding.models import load_model

        model = load_model(preset, weights=weights)
        now = str(identity(model)["weights_hash"])
        if now != record.weights_hash:
            return None, _other(record, now)
        inference = Inference(model, device="auto", precision=str(record.settings.get("precision", "auto")))
    except (ConfigError, EncoderError) as error:
        return None, str(error)

    def embed(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [inference(patches[start : start + _BATCH]) for start in range(0, len(patches), _BATCH)]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])

    return embed, ""


def _other(record: EmbeddingRecord, now: str) -> str:
    return (
        f"the weights of {record.encoder} at hand are {now[:12]}, the store was embedded by {record.weights_hash[:12]}"
    )
