from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks import inference as module
from wsicurate.embedding.networks.inference import Inference, choose_device, choose_precision, fit
from wsicurate.errors import EncoderError, EncoderMemoryError


@pytest.fixture
def patches(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)


def test_float32_is_what_torch_says(small: Path, patches: np.ndarray) -> None:
    encoder = load_encoder(str(small))
    mean, std = np.array([0.7, 0.58, 0.7]), np.array([0.21, 0.23, 0.18])
    images = ((patches / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = encoder.network(torch.from_numpy(images).float()).numpy()
    ours = Inference(encoder, device="cpu", precision="fp32")
    np.testing.assert_allclose(ours(patches), wanted, rtol=1e-4, atol=1e-5)
    assert ours.forward_s > 0


def test_bfloat16_agrees_with_float32(small: Path, patches: np.ndarray) -> None:
    exact = Inference(load_encoder(str(small)), device="cpu", precision="fp32")(patches)
    reduced = Inference(load_encoder(str(small)), device="cpu", precision="bf16")(patches)
    cosine = (exact * reduced).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(reduced, axis=1)
    assert 0.999 < cosine.min() < 1
    assert not np.array_equal(exact, reduced)


def test_vectors_do_not_depend_on_threads(small: Path, patches: np.ndarray) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(Inference(load_encoder(str(small)), device="cpu")(patches))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)


def test_a_precision_that_does_not_agree_is_not_used(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    assert Inference(load_encoder(str(small)), device="cpu").precision == "bf16"
    exact = Inference(load_encoder(str(small)), device="cpu", precision="fp32")
    monkeypatch.setattr(module, "LEAST_COSINE", 1.1)
    refused = Inference(load_encoder(str(small)), device="cpu")
    assert refused.precision == "fp32" and "does not agree" in refused.reason
    images = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(refused(images), exact(images))  # the weights were not rounded meanwhile


def test_the_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    assert choose_precision("cpu")[0] == "fp32"
    assert choose_precision("cpu", "bf16")[0] == "bf16"
    assert choose_precision("mps")[0] == "fp32"
    for supported, wanted in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, it=supported: it)
        assert choose_precision("cuda")[0] == wanted
    with pytest.raises(EncoderError, match="--precision is 'int8'"):
        choose_precision("cpu", "int8")


def test_a_device_that_is_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(EncoderError, match="this machine has .*cpu"):
            choose_device("cuda")
    assert choose_device("cpu") == "cpu"


def test_patches_are_resized_whole(rng: np.random.Generator) -> None:
    patch = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert fit(patch, 64) is patch
    halved = patch.reshape(32, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(fit(patch, 32) - halved).max() <= 0.5
    assert fit(patch, 80).shape == (80, 80, 3)


def test_the_batch_size_is_halved_until_it_fits(
    small: Path, patches: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Inference(load_encoder(str(small)), device="cpu", precision="fp32")
    assert ours.find_batch_size(7) == 7
    assert ours.find_batch_size() == module.CPU_BATCH
    network = ours._network

    def small_memory(images: Any) -> Any:
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return network(images)

    monkeypatch.setattr(module, "LARGEST_BATCH", 32)
    monkeypatch.setattr(ours, "_network", small_memory)
    assert ours._largest_that_fits() == 4
    assert ours.forward_s == 0
    with pytest.raises(EncoderMemoryError, match="6 patches do not fit into the memory"):
        ours.start(patches)


@pytest.mark.slow
def test_a_compiled_network_gives_nearly_the_same(small: Path, patches: np.ndarray) -> None:
    plain = Inference(load_encoder(str(small)), device="cpu", precision="fp32")(patches)
    compiled = Inference(load_encoder(str(small)), device="cpu", precision="fp32", compiled=True)
    padded = compiled.finish(compiled.start(patches[:4], batch_size=6))
    assert padded.shape == (4, 48)
    np.testing.assert_allclose(padded, plain[:4], rtol=1e-3, atol=1e-4)
