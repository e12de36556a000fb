from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from tests.embedding.small import SMALL, write_small
from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks.checkpoints import hash_state, read_state
from wsicurate.embedding.networks.models import load_model
from wsicurate.embedding.presets import find_preset
from wsicurate.errors import ConfigError, EncoderError, EncoderUnavailableError


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> Any:
        raise OSError("no network here")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)


def wrappers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """How training codes save a ViT."""

    def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda state: {f"{prefix}{name}": value for name, value in state.items()}

    low_quality = {"student": {"module.backbone.cls_token": torch.zeros(1)}, "epoch": 3, "optimizer": {"state": {}}}
    return {
        "plain": lambda state: state,
        "DINO": lambda state: (
            low_quality | {"teacher": prefixed("module.backbone.")(state) | {"module.head.mlp.0.bias": torch.ones(2)}}
        ),
        "DINOv2": lambda state: {"teacher": prefixed("backbone.")(state) | {"dino_head.mlp.0.weight": torch.ones(2)}},
        "DINOv2 in chunks": lambda state: {
            "teacher": {f"backbone.{name.replace('blocks.', 'blocks.0.')}": value for name, value in state.items()}
        },
        "lightning": lambda state: {
            "state_dict": prefixed("teacher.backbone.")(state) | {"student.backbone.cls_token": torch.zeros(1)}
        },
        "data parallel": lambda state: {"model": prefixed("module.encoder.")(state)},
        "with a classifier": lambda state: state | {"head.weight": torch.ones(3, 48), "head.bias": torch.ones(3)},
    }


@pytest.mark.parametrize("name", wrappers())
def test_the_same_weights_in_any_wrapper_are_the_same_encoder(small: Path, name: str) -> None:
    plain = load_encoder(str(small))
    state = load_file(small.with_name("small.safetensors"))
    other = small.with_name("other.pth")
    torch.save(wrappers()[name](state), other)
    small.write_text(small.read_text().replace("small.safetensors", "other.pth"))
    wrapped = load_encoder(str(small))
    assert wrapped.weights_hash == plain.weights_hash
    assert wrapped.dim == 48


def test_the_hash_is_of_the_tensors() -> None:
    state = {"b": torch.arange(4.0), "a": torch.ones(2, 2)}
    assert hash_state(state) == hash_state(dict(reversed(state.items())))
    assert hash_state(state) != hash_state({**state, "a": torch.ones(4)})
    assert hash_state(state) != hash_state({**state, "b": torch.tensor([0.0, 1, 2, 4])})
    assert hash_state({"a": torch.ones(2, dtype=torch.bfloat16)}) != hash_state(
        {"a": torch.ones(2, dtype=torch.float16)}
    )


def test_a_checkpoint_that_could_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was_here",))

    with (tmp_path / "evil.pth").open("wb") as file:
        pickle.dump({"state_dict": Evil()}, file)
    torch.save({"model": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(EncoderError, match="torch.save\\(model.state_dict\\(\\), FILE\\)"):
            read_state(tmp_path / name)
    assert not (tmp_path / "was_here").exists()


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(EncoderError, match=name):
            read_state(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(EncoderError, match="holds no tensors"):
        read_state(tmp_path / "empty.pth")
    with pytest.raises(EncoderUnavailableError, match="there are no weights at"):
        load_encoder(str(tmp_path / "none.pth"), arch="vit_tiny_patch16_224")


def test_an_architecture_is_needed_and_may_stand_beside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    path = write_small(folder)
    weights = folder / "small.safetensors"
    with pytest.raises(ConfigError, match="--arch vit_small_patch16_224"):
        load_encoder(str(weights))
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": SMALL,
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    beside = load_encoder(str(weights))
    assert beside.weights_hash == load_encoder(str(path)).weights_hash
    assert (beside.input_px, beside.preset.mean) == (64, (0.1, 0.2, 0.3))
    assert load_encoder(str(folder)).weights_hash == beside.weights_hash
    with pytest.raises(ConfigError, match="timm does not know the architecture 'vit_of_mine'"):
        load_encoder(str(weights), arch="vit_of_mine")


def test_weights_that_do_not_fit(small: Path) -> None:
    with pytest.raises(EncoderError, match="the weights do not fit vit_tiny_patch16_224"):
        load_encoder(str(small.with_name("small.safetensors")), arch="vit_tiny_patch16_224")
    save_file({"cls_token": torch.zeros(1, 1, 48)}, small.with_name("small.safetensors"))
    with pytest.raises(EncoderError, match="do not fit"):
        load_encoder(str(small))


def test_sizes(small: Path) -> None:
    assert load_encoder(str(small), input_px=96).dim == 48  # position embeddings are resampled
    with pytest.raises(EncoderError, match="does not take images of 70x70 pixels.*--input-px 64"):
        load_encoder(str(small), input_px=70)


@pytest.mark.parametrize("pooling", ["model", "class", "mean", "class+mean"])
def test_pooling(tmp_path: Path, pooling: str) -> None:
    encoder = load_encoder(str(write_small(tmp_path, pooling=pooling)))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = encoder.network.backbone.forward_features(images)
        vectors = encoder.network(images)
    wanted = {
        "model": tokens[:, 0],
        "class": tokens[:, 0],
        "mean": tokens[:, 1:].mean(1),
        "class+mean": torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1),
    }[pooling]
    torch.testing.assert_close(vectors, wanted)
    assert encoder.dim == wanted.shape[1]


def test_the_default_is_loaded_from_a_file_where_there_is_no_hub(tmp_path: Path, no_hub: None) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)  # at 518, as it is published
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(EncoderUnavailableError, match="--weights FILE"):
        load_encoder("dinov2-small")
    encoder = load_encoder("dinov2-small", weights=tmp_path / "model.safetensors")
    assert (encoder.preset.name, encoder.input_px, encoder.dim) == ("dinov2-small", 224, 384)
    assert encoder.preset.mean == (0.485, 0.456, 0.406)


def test_gated_and_unreachable_encoders_say_what_to_do(
    no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderUnavailableError, match="accept the terms at https://huggingface.co/MahmoodLab/UNI2-h"):
        load_encoder("uni2-h")
    with pytest.raises(EncoderUnavailableError, match="could not be reached.*huggingface.co/1aurent/vit"):
        load_encoder("tcga-brca-dino")
    with pytest.raises(EncoderUnavailableError, match="huggingface.co/somebody/model"):
        load_encoder("hf-hub:somebody/model")
    with pytest.raises(EncoderUnavailableError, match="timm has no weights for vit_base_patch32_plus_256"):
        load_encoder("vit_base_patch32_plus_256")


def test_transformers_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EncoderUnavailableError, match="pip install transformers"):
        load_encoder("phikon-v2")


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_torchscript(tmp_path: Path) -> None:
    class Copies(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 8, 8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(self.layer(images).mean(dim=(2, 3)))

    path = tmp_path / "sscd.torchscript.pt"
    torch.manual_seed(0)
    model = Copies()
    torch.jit.script(model).save(str(path))
    encoder = load_encoder(str(path), input_px=64)
    assert (encoder.preset.name, encoder.dim, encoder.preset.mean) == ("sscd", 5, (0.485, 0.456, 0.406))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.network(images), model(images))
    assert encoder.weights_hash == hash_state(model.state_dict())
    path.write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="no TorchScript file"):
        load_encoder(str(path))


def test_an_argument_that_no_network_has_is_named(small: Path) -> None:
    small.write_text(small.read_text().replace("kwargs = { ", "kwargs = { wobble = 3, "))
    with pytest.raises(ConfigError, match="small: vit_tiny_patch16_224 has no argument 'wobble'; correct"):
        load_model(find_preset(str(small)))


def test_a_network_that_gives_no_vector_is_refused(small: Path) -> None:
    preset = find_preset(str(small))
    (small.with_name("resnet.pth")).unlink(missing_ok=True)
    model = timm.create_model("resnet18", num_classes=0)
    torch.save(model.state_dict(), small.with_name("resnet.pth"))
    text = small.read_text().replace("small.safetensors", "resnet.pth").replace("vit_tiny_patch16_224", "resnet18")
    small.write_text("\n".join(line for line in text.splitlines() if "kwargs" not in line))
    with pytest.raises(EncoderError, match="no class token"):
        load_model(find_preset(str(small)))
    assert load_encoder(str(small), pooling="model").dim == 512
    assert preset.name == "small"
