"""TorchScript is a program, and is read as data: what could do more than compute is refused before anything runs."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks import torchscript as module
from wsicurate.embedding.networks.torchscript import open_checked, try_in_process
from wsicurate.embedding.networks.torchscript_operators import is_allowed
from wsicurate.embedding.presets import find_preset
from wsicurate.embedding.weight_files import weight_file
from wsicurate.errors import EncoderError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")

#: TorchScript is compiled from its source, which has to lie in a file: the victim is named by a constant.
VICTIM = "victim-of-a-script"


class Good(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.layer(images).mean(dim=(2, 3)))


class Saves(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, "victim-of-a-script")
        return images.mean(dim=(2, 3))


class SavesSometimes(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            if images.max() > 1e30:
                torch.save(images, "victim-of-a-script")
        return images.mean(dim=(2, 3))


class Within(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), Saves())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.inner(images)
        return vectors


class Elsewhere(nn.Module):
    """Not in `forward`, but in a method that somebody could call."""

    @torch.jit.export
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, "victim-of-a-script")
        return images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


def helper(images: torch.Tensor) -> torch.Tensor:
    torch.save(images, "victim-of-a-script")
    return images


class Helped(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return helper(images).mean(dim=(2, 3))


class Maps(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) + torch.from_file("victim-of-a-script", True, 4).fill_(0.0).sum()


class AtOpening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "victim-of-a-script")
        self.weight = state[0]
        self.training = state[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


class EndlessAtOpening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        count = 0
        while count >= 0:
            count = (count + 1) % 7
        self.weight = state[0]
        self.training = state[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


class Endless(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count = 0
        while count >= 0:
            count = (count + 1) % 7
        return images.mean(dim=(2, 3))


class NearlyEndless(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count = 0
        for number in range(1000000000000000):
            count = (count + number) % 7
        return images.mean(dim=(2, 3)) + count


class Greedy(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) + torch.zeros(100000000000).sum()


class Prints(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        print("\x1b[2J")
        return images.mean(dim=(2, 3))


class Forks(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(helper_of_fork, images))


def helper_of_fork(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(2, 3))


class Seeds(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return images.mean(dim=(2, 3))


class Quantised(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        whole = torch.quantize_per_tensor(images.mean(dim=(2, 3)), 0.1, 0, torch.quint8)
        return torch.ops.quantized.add(whole, whole, 0.1, 0).dequantize()


class Raises(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dim() == 4:
            raise RuntimeError("\x1b[2J evil\nlines")
        return images


def script(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(str(path))
    return path


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """An archive with the bytes of its files changed, as somebody does who does not use torch to write it."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
    return target


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scripts run, with a victim that none may touch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / VICTIM).write_bytes(b"\1" * 16)
    yield tmp_path
    assert (tmp_path / VICTIM).read_bytes() == b"\1" * 16


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Saves, "'save'"),
        (SavesSometimes, "'save'"),
        (Within, "'save'"),
        (Elsewhere, "'save'"),
        (Helped, "'save'"),
        (Maps, "'from_file'"),
        (AtOpening, "__getstate__"),
        (EndlessAtOpening, "__getstate__"),
        (Endless, "`while` loop"),
        (Prints, "prim::Print"),
        (Forks, "prim::fork"),
        (Seeds, "aten::manual_seed"),
        (Quantised, "quantize_per_tensor"),
    ],
)
def test_what_does_more_than_compute_is_refused(place: Path, network: type[nn.Module], words: str) -> None:
    path = script(network(), place / "a.pt")
    with pytest.raises(EncoderError) as caught:
        open_checked(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_operators_are_looked_at_whatever_the_text_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two locks: without the first, which reads the archive's text, the graphs still say it."""
    monkeypatch.setattr(module, "check_archive", lambda path: None)
    for network, operator in (
        (Saves, "aten::save"),
        (SavesSometimes, "aten::save"),
        (Within, "aten::save"),
        (Elsewhere, "aten::save"),
        (Helped, "aten::save"),
        (Maps, "aten::from_file"),
    ):
        with pytest.raises(EncoderError, match=f"it uses the operator {operator}"):
            open_checked(script(network(), place / "a.pt"))


def test_a_class_of_an_extension_is_refused(place: Path) -> None:
    good = script(Good(), place / "good.pt")
    bad = rewrite(
        good,
        place / "bad.pt",
        lambda name, data: re.sub(rb"c__torch__[\w.]*\nGood\n", b"c__torch__.torch\nclasses.evil.Good\n", data),
    )
    with pytest.raises(EncoderError, match="classes of an extension"):
        open_checked(bad)


def test_damaged_archives_are_one_line(place: Path) -> None:
    good = script(Good(), place / "good.pt")
    changes: dict[str, Callable[[str, bytes], bytes]] = {
        "pickle": lambda name, data: b"garbage" if name.endswith("data.pkl") else data,
        "code": lambda name, data: b"class x(" if name.endswith(".py") else data,
        "no code": lambda name, data: b"" if name.endswith(".py") else data,
        "short": lambda name, data: data[:-1] if "/data/" in name else data,
    }
    for name, change in changes.items():
        with pytest.raises(EncoderError) as caught:
            open_checked(rewrite(good, place / f"{name}.pt", change))
        assert f"{name}.pt" in str(caught.value) and "\n" not in str(caught.value)
    with zipfile.ZipFile(place / "twice.pt", "w") as file, zipfile.ZipFile(good) as source:
        for name in source.namelist():
            file.writestr(name, source.read(name))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr(source.namelist()[0], b"another")
    with pytest.raises(EncoderError):
        open_checked(place / "twice.pt")


def test_an_archive_that_unpacks_to_far_more(place: Path) -> None:
    good = script(Good(), place / "good.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(place / "b.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name in source.namelist():
            file.writestr(name, source.read(name))
        file.writestr("good/code/more.py", b"#" * 100_000_000)
    with pytest.raises(EncoderError, match="unpacks to 100 MB"):
        open_checked(place / "b.pt")


def test_operators() -> None:
    for name in ("aten::add", "aten::add_", "aten::conv2d", "aten::scaled_dot_product_attention", "prim::If"):
        assert is_allowed(name)
    for name in (
        *("aten::save", "aten::from_file", "aten::manual_seed", "aten::set_data", "aten::_print", "aten::wait"),
        *("prim::Print", "prim::PythonOp", "prim::fork", "prim::rpc_sync", "prim::CallMethod", "prim::CallFunction"),
        *("quantized::add", "image::write_file", "torchvision::nms", "inductor::_mm_plus_mm", "profiler::x", "save"),
        *("aten::save_", "add", "aten::", "aten::_", "c10d::allreduce_"),
    ):
        assert not is_allowed(name), name


@pytest.mark.slow
def test_known_by_content_whatever_the_name(tmp_path: Path) -> None:
    path = script(Good(), tmp_path / "x.ts.pt")
    assert weight_file(path) == "torchscript" and find_preset(str(path)).kind == "torchscript"
    torch.manual_seed(0)
    encoder = load_encoder(str(path), input_px=64)
    assert (encoder.preset.name, encoder.dim) == ("x.ts", 5)
    plain = tmp_path / "a.torchscript.pt"
    torch.save({"a": torch.zeros(3)}, plain)
    with pytest.raises(EncoderError, match="is no TorchScript file"):
        load_encoder(str(plain))
    with pytest.raises(EncoderError, match="is TorchScript, which is a whole network.*without --arch"):
        load_encoder(str(path), arch="vit_tiny_patch16_224")
    (tmp_path / "e.toml").write_text('[mine]\nsource = "file:x.ts.pt"\n')
    assert load_encoder(str(tmp_path / "e.toml"), input_px=64).dim == 5


@pytest.mark.slow
def test_what_never_ends_is_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_S", 6.0)
    with pytest.raises(EncoderError, match="was still running on its first image after 6 s"):
        try_in_process(script(NearlyEndless(), place / "a.pt"), 64)


@pytest.mark.slow
def test_the_trial_has_limits(place: Path) -> None:
    with pytest.raises(EncoderError, match="takes too much memory for one image"):
        try_in_process(script(Greedy(), place / "a.pt"), 64)
    deep = rewrite(
        script(Good(), place / "good.pt"),
        place / "deep.pt",
        lambda name, data: data.replace(b"return ", b"return " + b"(" * 300_000, 1) if name.endswith(".py") else data,
    )
    with pytest.raises(EncoderError, match="deep.pt"):
        try_in_process(deep, 64)
    with pytest.raises(EncoderError, match="'save'"):
        try_in_process(script(Saves(), place / "saves.pt"), 64)
    try_in_process(script(Raises(), place / "raises.pt"), 64)  # no harm: whoever asks for vectors hears of it
    with pytest.raises(EncoderError, match="does not take images of 64x64 pixels"):
        load_encoder(str(place / "raises.pt"), input_px=64)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_timm_and_torchvision_script_and_trace_is_taken(tmp_path: Path) -> None:
    import timm
    import torchvision

    networks = {
        "vit": timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, depth=2, img_size=64, scriptable=True, exportable=True
        ),
        "resnet": torchvision.models.resnet18(),
        "convnext": timm.create_model("convnext_atto", num_classes=0, scriptable=True, exportable=True),
        "swin": torchvision.models.swin_t(),
    }
    for name, network in networks.items():
        images = torch.zeros(1, 3, 64, 64)
        for way, saved in (
            ("script", torch.jit.script(network.eval())),
            ("trace", torch.jit.trace(network.eval(), images, check_trace=False)),
            ("freeze", torch.jit.freeze(torch.jit.script(network.eval()))),
        ):
            path = tmp_path / f"{name}-{way}.pt"
            saved.save(str(path))
            with torch.inference_mode():
                torch.testing.assert_close(open_checked(path)(images), network(images), rtol=1e-3, atol=1e-4)
