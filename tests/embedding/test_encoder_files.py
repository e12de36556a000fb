"""A file that describes encoders is data: it names no code to run, and every field has its type."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from wsicurate.config import EmbedConfig
from wsicurate.embedding.encoders import load_descriptor, load_encoder, preset_of, wanted_preset
from wsicurate.embedding.networks.hub import hub_or_cache, require_weights
from wsicurate.embedding.presets import Preset, all_presets, read_presets, user_presets
from wsicurate.errors import ConfigError, EncoderError, EncoderUnavailableError
from wsicurate.steps.embedding.tasks import DescribeTask, _kept, describe


def written(folder: Path, source: str, more: str = "") -> Path:
    path = folder / "own.toml"
    path.write_text(f'[mine]\nsource = "{source}"\n{more}')
    return path


@pytest.fixture
def module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module whose import leaves a trace."""
    (tmp_path / "evil_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('trace').touch()\nclass Evil:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    sys.modules.pop("evil_module", None)


def test_a_file_does_not_import_a_module(tmp_path: Path, module_of_ones_own: Path) -> None:
    path = written(tmp_path, "descriptor:evil_module:Evil")
    for config in (EmbedConfig(encoder=str(path)), EmbedConfig(encoder="mine", presets=path)):
        with pytest.raises(ConfigError, match=r"own.toml would run the Python class evil_module:Evil; .*--trust-code"):
            preset_of(config)
    with pytest.raises(ConfigError, match="--trust-code"):
        load_encoder(str(path))
    assert not module_of_ones_own.exists() and "evil_module" not in sys.modules
    config = EmbedConfig(encoder=str(path), trust_code=True)
    assert preset_of(config).place == "evil_module:Evil"
    assert not module_of_ones_own.exists()


def test_a_file_of_the_user_s_own_does_not_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "wsicurate").mkdir()
    written(tmp_path / "wsicurate", "descriptor:os:getcwd").rename(tmp_path / "wsicurate" / "encoders.toml")
    with pytest.raises(ConfigError, match="--trust-code"):
        wanted_preset("mine")


def test_a_file_does_not_run_code_of_the_hub(tmp_path: Path) -> None:
    path = written(tmp_path, "transformers:evil/model", "trusts_code = true\n")
    with pytest.raises(ConfigError, match="would run the Python code of evil/model on the hub"):
        wanted_preset(str(path))
    assert wanted_preset(str(path), trust_code=True).trusts_code
    assert wanted_preset("hibou-b").trusts_code  # of ours


def test_the_descriptors_by_name_are_no_code(tmp_path: Path) -> None:
    assert wanted_preset(str(written(tmp_path, "descriptor:stain-texture"))).is_descriptor


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("os:getcwd", "is <built-in function getcwd>; name a class"),
        ("os:abort", "name a class"),
        ("os", "there is no descriptor 'os'"),
        ("os:", "there is no descriptor"),
        (":getcwd", "there is no descriptor"),
        ("no_such_module:X", "ModuleNotFoundError"),
        ("os:NoSuchClass", "AttributeError"),
        ("pathlib:Path", "its name is"),
        ("builtins:dict", "its name is None; give some text"),
        ("io:FileIO", "cannot be made"),
        ("tests.embedding.double:MeanColour", ""),
    ],
)
def test_what_is_no_descriptor_is_one_line(place: str, words: str) -> None:
    if not words:
        assert load_descriptor(place).dim == 3
        return
    with pytest.raises(ConfigError) as caught:
        load_descriptor(place)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_that_ends_the_program_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit(5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="SystemExit"):
        load_descriptor("ends:X")


@pytest.mark.parametrize(
    "field",
    [
        "source = 5",
        'source = "timm:x"\narch = 5',
        'source = "timm:x"\nkwargs = 5',
        'source = "timm:x"\nkwargs = [1]',
        'source = "timm:x"\ninput_px = true',
        'source = "timm:x"\ninput_px = 224.0',
        'source = "timm:x"\ninput_px = 99999999',
        'source = "timm:x"\nmean = 5',
        'source = "timm:x"\nmean = ["a", "b", "c"]',
        'source = "timm:x"\nmean = [nan, 0, 0]',
        'source = "timm:x"\nstd = [inf, 1, 1]',
        'source = "timm:x"\npooling = 5',
        'source = "timm:x"\nmpp = "x"',
        'source = "timm:x"\nmpp = 0',
        'source = "timm:x"\nlicence = 5',
        f'source = "timm:x"\nterms = "{"a" * 2_001}"',
        'source = "timm:x"\ngated = "yes"',
        'source = "timm:x"\ntrusts_code = 1',
        'source = "timm:x"\nname = "other"',
        'source = "timm:x"\nfile = "other"',
        'source = ""',
        'source = "file:"',
    ],
)
def test_every_field_has_its_type(tmp_path: Path, field: str) -> None:
    (tmp_path / "own.toml").write_text(f"[mine]\n{field}\n")
    with pytest.raises(ConfigError) as caught:
        read_presets(tmp_path / "own.toml")
    assert "mine" in str(caught.value) and "own.toml" in str(caught.value)


@pytest.mark.parametrize("name", ["zarr.json", "", "a/b", "..", "a" * 200, "a\\u001b"])
def test_names_that_no_array_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.toml").write_text(f'["{name}"]\nsource = "timm:x"\n')
    with pytest.raises(ConfigError, match="its name is"):
        read_presets(tmp_path / "own.toml")


def test_a_file_s_name_that_no_array_can_have(tmp_path: Path) -> None:
    for name in ("zarr.json.pth", "....pth", "x" * 150 + ".pth"):
        assert wanted_preset(str(tmp_path / name), arch="a").name


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = " + b"[" * 100_000, b"x" * 2_000_000, b"\0", b"a = 1\na = 2"])
def test_files_that_are_no_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"own.toml") as caught:
        read_presets(tmp_path / "own.toml")
    assert len(str(caught.value)) < 500


def test_a_home_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert user_presets() is None
    assert "dinov2-small" in all_presets()
    assert EmbedConfig(weights="~nobody-of-this-name/x").weights == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("option", [{"weights": "x.pth"}, {"arch": "resnet18"}, {"input_px": 224}, {"pooling": "mean"}])
def test_a_descriptor_takes_no_options_of_a_network(option: dict[str, object]) -> None:
    config = EmbedConfig(encoder="stain-texture", **option)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=f"--{next(iter(option)).replace('_', '-')} .* means nothing to stain-texture"
    ):
        preset_of(config)


def test_vectors_of_another_shape_than_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Short:
        name, version, dim = "short", 1, 3

        def __call__(self, patches: np.ndarray) -> np.ndarray:
            return np.zeros((len(patches), 2), np.float32)

    class Patches:
        def read(self, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 8, 8, 3), np.uint8)

    task = DescribeTask(tmp_path, (), "key", "hash", 0, 4, "short")
    monkeypatch.setattr(_kept, "slide", ((tmp_path, "key", "hash"), Patches()))
    monkeypatch.setitem(_kept.descriptors, "short", Short())
    with pytest.raises(EncoderError, match=r"short returns \(4, 2\) for 4 patches, not \(4, 3\)"):
        describe(task)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    from huggingface_hub import constants

    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError("no network here")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_weights_that_cannot_be_had_are_said_before_anything_is_built(no_network: None, tmp_path: Path) -> None:
    for name in ("dinov2-small", "uni", "tcga-brca-dino"):
        with pytest.raises(EncoderUnavailableError, match="an encoder without weights: stain-texture or filter-bank"):
            require_weights(all_presets()[name])
    repository = tmp_path / "cache" / "models--timm--vit_small_patch14_dinov2.lvd142m"
    repository.mkdir(parents=True)  # downloaded before
    require_weights(all_presets()["dinov2-small"])
    for source in ("file:a.pth", "descriptor:stain-texture", "timm:resnet18"):
        require_weights(Preset(name="a", source=source))


def test_the_hub_client_s_setting_is_put_back(no_network: None) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub_or_cache():
        assert constants.HF_HUB_OFFLINE
        raise KeyError
    assert constants.HF_HUB_OFFLINE is before
