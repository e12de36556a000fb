from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wsicurate.embedding.encoders import describe_identity, load_descriptor, wanted_preset
from wsicurate.embedding.networks import inference, models
from wsicurate.errors import EncoderUnavailableError
from wsicurate.steps.embedding import reembedding
from wsicurate.steps.embedding.reembedding import reembedder
from wsicurate.store.embeddings import EmbeddingRecord

IDENTITY: dict[str, Any] = {"weights_hash": "w", "preprocessing": {"input_px": 8}, "pooling": "class", "dim": 3}


def record(encoder: str, **changed: Any) -> EmbeddingRecord:
    plain = {"mpp": None, "licence": "", "terms": "", "content_hash": "", "settings": {}, "fingerprint": ""}
    return EmbeddingRecord(encoder=encoder, **{**IDENTITY, **plain, **changed})


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A network of one sum, instead of one of millions; what was asked of it."""
    asked: list[Any] = []

    class Inference:
        def __init__(self, model: Any, **settings: Any) -> None:
            asked.append(settings)

        def __call__(self, patches: np.ndarray) -> np.ndarray:
            asked.append(len(patches))
            return patches.sum(axis=(1, 2))

    monkeypatch.setattr(models, "load_model", lambda preset, weights=None: preset)
    monkeypatch.setattr(inference, "identity", lambda model: IDENTITY)
    monkeypatch.setattr(inference, "Inference", Inference)
    return asked


def test_a_network_embeds_as_the_store_was_embedded(network: list[Any]) -> None:
    embed, why = reembedder(record("dinov2-small", settings={"precision": "fp32"}))
    assert embed is not None and why == ""
    patches = np.random.default_rng(0).integers(0, 255, (70, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(embed(patches), patches.sum(axis=(1, 2)).astype(np.float32))
    assert network == [{"device": "auto", "precision": "fp32"}, 32, 32, 6]


@pytest.mark.parametrize(
    "changed",
    [{"weights_hash": "v"}, {"preprocessing": {"input_px": 9}}, {"pooling": "mean"}, {"dim": 4}],
    ids=lambda changed: next(iter(changed)),
)
def test_another_network_than_the_store_s_is_not_asked(network: list[Any], changed: dict[str, Any]) -> None:
    """Vectors of other weights cannot be compared with the store's: no threshold is better than a wrong one."""
    embed, why = reembedder(record("dinov2-small", **changed))
    ((name, value),) = changed.items()
    assert embed is None and network == []
    assert why == f"dinov2-small at hand has {name} {IDENTITY[name]!r}, the store {value!r}"


@pytest.mark.parametrize("arch", [None, "vit_tiny"])
@pytest.mark.parametrize("weights", [None, Path("w.pth")])
def test_weights_from_a_file_are_those_that_are_loaded(
    network: list[Any], monkeypatch: pytest.MonkeyPatch, weights: Path | None, arch: str | None
) -> None:
    """A file with its architecture is the encoder; a file alone gives the weights of the encoder that is named."""
    asked: list[Any] = []

    def wanted(source: str, **more: Any) -> SimpleNamespace:
        asked.append((source, more))
        return SimpleNamespace(is_descriptor=False)

    monkeypatch.setattr(reembedding, "wanted_preset", wanted)
    monkeypatch.setattr(models, "load_model", lambda preset, weights=None: asked.append(weights))
    assert reembedder(record("dinov2-small"), weights, arch)[0] is not None
    source = "w.pth" if weights is not None and arch is not None else "dinov2-small"
    assert asked == [(source, {"arch": arch, "name": "dinov2-small"}), weights]


def test_another_descriptor_than_the_store_s_is_not_asked() -> None:
    now = describe_identity(wanted_preset("stain-texture"), load_descriptor("stain-texture"))
    same = record("stain-texture", **{name: now[name] for name in IDENTITY})
    assert reembedder(same)[0] is not None
    embed, why = reembedder(dataclasses.replace(same, weights_hash="of an older version"))
    assert embed is None and "weights_hash" in why


def test_weights_that_are_not_at_hand_are_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise EncoderUnavailableError("no connection")

    monkeypatch.setattr(models, "load_model", unreachable)
    assert reembedder(record("dinov2-small")) == (None, "no connection")
