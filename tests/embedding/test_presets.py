from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from wsicurate.embedding.encoders import DESCRIPTORS, wanted_preset
from wsicurate.embedding.presets import DEFAULT_ENCODER, all_presets, find_preset, read_presets
from wsicurate.errors import ConfigError


@pytest.fixture(autouse=True)
def no_files_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_what_comes_with_wsicurate() -> None:
    presets = all_presets()
    wanted = {"dinov2-small", "dinov2-base", "dinov2-large", "tcga-brca-dino", "uni", "uni2-h", "virchow2", "phikon-v2",
              "h-optimus-0", "prov-gigapath", "hibou-b", "hibou-l", "midnight", "kaiko-vits8", "lunit-dino",
              "stain-texture", "filter-bank"}  # fmt: skip
    assert wanted <= set(presets)
    assert presets[DEFAULT_ENCODER].licence == "Apache-2.0" and not presets[DEFAULT_ENCODER].gated
    assert presets["virchow2"].pooling == "class+mean"
    assert presets["tcga-brca-dino"].input_px == 256
    for preset in presets.values():
        assert preset.licence != "unknown" and preset.citation
        assert preset.url.startswith("https://") or preset.is_descriptor
        assert preset.terms or preset.licence in ("Apache-2.0", "MIT"), preset.name
    assert {preset.place for preset in presets.values() if preset.is_descriptor} == set(DESCRIPTORS)


def test_every_architecture_is_one_that_timm_builds() -> None:
    from wsicurate.embedding.networks.timm_models import _resolved

    for preset in all_presets().values():
        assert not preset.arch or timm.is_model(preset.arch), preset.name
        assert set(_resolved(preset.kwargs)) == set(preset.kwargs)
        if preset.kind == "timm":
            assert timm.is_model_pretrained(preset.place), preset.name


@pytest.mark.parametrize(
    ("name", "dim"),
    [("uni2-h", 1536), ("virchow2", 2560), ("h-optimus-0", 1536), ("prov-gigapath", 1536), ("kaiko-vitl14", 1024)],
)
def test_giants_have_the_published_shape(name: str, dim: int) -> None:
    from wsicurate.embedding.networks.timm_models import _resolved

    preset = all_presets()[name]
    with torch.device("meta"):  # shapes without memory
        model = timm.create_model(preset.arch, num_classes=0, img_size=preset.input_px, **_resolved(preset.kwargs))
    assert model.num_features * (2 if preset.pooling == "class+mean" else 1) == dim
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    published = {"uni2-h": 681, "virchow2": 631, "h-optimus-0": 1135, "prov-gigapath": 1135, "kaiko-vitl14": 304}
    assert parameters == pytest.approx(published[name], rel=0.01)


def test_names_ids_files_and_timm_models_are_told_apart(tmp_path: Path) -> None:
    assert find_preset("uni").gated
    assert find_preset("hf-hub:MahmoodLab/uni").name == "uni"
    assert find_preset("hf_hub:somebody/some.model").source == "hf-hub:somebody/some.model"
    assert find_preset("hf-hub:somebody/some.model").name == "some.model"
    assert find_preset("resnet50.a1_in1k").source == "timm:resnet50.a1_in1k"
    assert find_preset("vit_small_patch14_dinov2.lvd142m").name == "dinov2-small"
    weights = find_preset(str(tmp_path / "my weights.pth"), arch="vit_tiny_patch16_224")
    assert (weights.name, weights.kind, weights.arch) == ("my-weights", "file", "vit_tiny_patch16_224")
    assert find_preset("sscd_disc_mixup.torchscript.pt").kind == "torchscript"
    assert find_preset("sscd_disc_mixup.torchscript.pt").name == "sscd_disc_mixup"
    with pytest.raises(ConfigError, match="wsicurate encoders lists"):
        find_preset("what is this?")


def test_a_file_of_ones_own_adds_encoders(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[mine]\nsource = "file:weights/a.safetensors"\narch = "resnet18"\ninput_px = 128\n')
    assert find_preset(str(path)).name == "mine"
    assert find_preset("mine", extra=path).source == f"file:{tmp_path / 'weights' / 'a.safetensors'}"
    path.write_text(path.read_text() + '[uni]\nsource = "timm:resnet18.a1_in1k"\n')
    assert find_preset("uni", extra=path).source == "timm:resnet18.a1_in1k"
    with pytest.raises(ConfigError, match="describes 2 encoders"):
        find_preset(str(path))
    home = tmp_path / "config" / "wsicurate" / "encoders.toml"
    home.parent.mkdir(parents=True)
    home.write_text('[of-the-user]\nsource = "timm:resnet18.a1_in1k"\n')
    assert find_preset("of-the-user").file == home


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\n", "has no source"),
        ('a = "b"', "not a table"),
        ("[a", "is not TOML"),
        ('[a]\nsource = "b"', "its source is 'b'"),
        ('[a]\nsource = "timm:b"\ncolour = 1', "unknown field 'colour'"),
        ('[a]\nsource = "timm:b"\npooling = "max"', "its pooling is 'max'"),
        ('[a]\nsource = "timm:b"\nmean = [1, 2]', "its mean is"),
        ('[a]\nsource = "timm:b"\nstd = [1, 2, 0]', "three finite numbers above 0"),
        ('[a]\nsource = "timm:b"\ninput_px = 3', "its input_px is 3"),
        ('["../a"]\nsource = "timm:b"', "a name is made of"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_presets(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        find_preset(str(tmp_path / "none.toml"))


def test_options_change_a_preset() -> None:
    changed = wanted_preset("uni", name="mine", input_px=448, pooling="mean")
    assert (changed.name, changed.input_px, changed.pooling, changed.gated) == ("mine", 448, "mean", True)
    with pytest.raises(ConfigError, match="--pooling is 'max'"):
        wanted_preset("uni", pooling="max")
