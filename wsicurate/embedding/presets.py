"""Encoders by name: where the weights are, what they expect of a patch, and what their licence says.

`presets.toml` beside this file describes the encoders that come with wsicurate; a file of one's own in the same form
adds others. Nothing here loads a model.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from wsicurate.embedding.weight_files import weight_file
from wsicurate.errors import ConfigError
from wsicurate.toml_files import parse_toml, read_toml
from wsicurate.validation import Name, Rule, Text, between, exists, expanded, is_array_name, shown, validate

#: How tokens become one vector. ``model``: the model's own pooling, its classifier taken off. ``class``: the class
#: token. ``mean``: mean of the patch tokens. ``class+mean``: both, one after the other.
Pooling = Literal["model", "class", "mean", "class+mean"]

#: Where weights come from: before the colon of ``source``.
SourceKind = Literal["timm", "hf-hub", "transformers", "torchscript", "file", "descriptor", "plugin"]

#: The encoder of those who name none: Apache-2.0, not gated.
DEFAULT_ENCODER = "dinov2-small"

#: Three numbers, for red, green and blue.
Colours = Annotated[
    Sequence[float], Rule(lambda values: len(values) == 3, "give three finite numbers, for red, green and blue")
]

#: What tables and records repeat.
Words = Annotated[
    str, Rule(lambda text: len(text) <= 2_000, "write at most 2,000 characters, and where the rest stands")
]

#: Files that hold weights.
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".torchscript")

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An encoder, described.

    Attributes:
        name: its name, which is that of its arrays in a store.
        source: ``kind:place``, see `SourceKind`: ``timm:NAME``, ``hf-hub:OWNER/NAME``, ``transformers:OWNER/NAME``,
            ``torchscript:FILE``, ``file:FILE``, ``descriptor:NAME``, ``plugin:NAME``.
        arch: timm architecture that weights from a file go into; empty where the source says it.
        kwargs: arguments of `timm.create_model`; layers by name.
        input_px: edge of the image that the encoder sees; None where the model says.
        mean, std: normalisation of RGB values from 0 to 1; None where the model says.
        pooling: how tokens become one vector.
        mpp: µm per pixel of the patches that it was made for; None where it does not matter or is not known.
        licence: of the weights, as SPDX has it where it does.
        terms: what the licence says of derived data.
        gated: whether its page asks to accept terms first.
        url: its page.
        citation: whom to cite.
        trusts_code: whether loading it runs Python code from the hub.
        package: the package that brings it, with its version; empty for those that come with wsicurate or a file.
        file: the file of one's own that describes it; None for those that come with wsicurate.
    """

    name: Name
    source: Text
    arch: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_px: Annotated[int, between(8, 8192, "give a whole number of pixels, at least 8, at most 8192")] | None = None
    mean: Colours | None = None
    std: Annotated[Colours, Rule(lambda std: min(std) > 0, "give three finite numbers above 0")] | None = None
    pooling: Pooling = "model"
    mpp: Annotated[float, between(0, 1e3, "give µm per pixel above 0, such as 0.5", without_ends=True)] | None = None
    licence: Words = "unknown"
    terms: Words = ""
    gated: bool = False
    url: Words = ""
    citation: Words = ""
    trusts_code: bool = False
    package: str = ""
    file: Path | None = None

    def __post_init__(self) -> None:
        where = f"encoder {shown(self.name)}" + (f" of {self.package}" if self.package else "")
        where += f" in {self.file}" if self.file else ""
        validate(self, lambda field: f"{where}: its {field}")
        if self.kind not in get_args(SourceKind) or not self.place:
            raise ConfigError(
                f"{where}: its source is {self.source!r}; write one of {', '.join(get_args(SourceKind))}, a colon, and "
                "the place, such as timm:vit_small_patch14_dinov2.lvd142m"
            )

    @property
    def kind(self) -> str:
        """What ``source`` is, before the colon."""
        return self.source.partition(":")[0]

    @property
    def place(self) -> str:
        """Where it is, after the colon."""
        return self.source.partition(":")[2]

    @property
    def is_descriptor(self) -> bool:
        """Whether it is computed without weights."""
        return self.kind == "descriptor"


def user_presets() -> Path | None:
    """Where a user's own encoders are looked for: ``~/.config/wsicurate/encoders.toml`` or below XDG_CONFIG_HOME.

    None where there is neither, because there is no home folder.
    """
    folder = os.environ.get("XDG_CONFIG_HOME") or expanded(Path("~/.config"))
    path = Path(folder) / "wsicurate" / "encoders.toml"
    return path if path.is_absolute() else None


def read_presets(path: Path) -> dict[str, Preset]:
    """Encoders described in a TOML file: one table per encoder, its fields those of `Preset`.

    Raises:
        ConfigError: if the file cannot be read, or a field is unknown or wrong; the message names it.
    """
    return _parsed(read_toml(path, "the encoder file"), path)


def all_presets(extra: Path | None = None) -> dict[str, Preset]:
    """Every encoder known by name: those of wsicurate, the user's, and those of ``extra``; the later win."""
    text = resources.files("wsicurate.embedding").joinpath("presets.toml").read_text(encoding="utf-8")
    presets = _parsed(parse_toml(text, "presets.toml"), None)
    own = user_presets()
    if own is not None and exists(own):
        presets |= read_presets(own)
    if extra is not None:
        presets |= read_presets(extra)
    return presets


def _parsed(tables: Mapping[str, Any], file: Path | None) -> dict[str, Preset]:
    fields = {item.name for item in dataclasses.fields(Preset)} - {"name", "package", "file"}
    presets = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"the encoder file {file}: {name!r} is not a table; write [{name}], and source = below it"
            )
        unknown = sorted(set(table) - fields)
        if unknown:
            raise ConfigError(
                f"encoder {name!r} in {file}: unknown field {unknown[0]!r}; there are {', '.join(sorted(fields))}"
            )
        if "source" not in table:
            raise ConfigError(f"encoder {name!r} in {file} has no source")
        preset = Preset(**{**table, "name": name, "file": file})
        if preset.kind == "plugin":
            raise ConfigError(f"encoder {name!r} in {file}: an encoder of a package is asked for by its own name")
        if file is not None and preset.kind in ("file", "torchscript"):
            place = (file.parent / expanded(Path(preset.place))).absolute()  # relative to the file that names it
            preset = dataclasses.replace(preset, source=f"{preset.kind}:{place}")
        presets[name] = preset
    return presets


def find_preset(text: str, *, extra: Path | None = None, arch: str | None = None) -> Preset:
    """What a user means by ``--encoder TEXT``.

    In this order: a name that is known; a TOML file that describes one encoder; a file of weights; ``hf-hub:`` with
    an id (a known encoder's id gives that encoder); else the name of a timm model.

    Args:
        text: what the user wrote.
        extra: a file with more encoders.
        arch: timm architecture for a file of weights.

    Returns:
        The preset.

    Raises:
        ConfigError: if it means nothing.
    """
    presets = all_presets(extra)
    if text in presets:
        return presets[text]
    path = expanded(Path(text))
    if text.lower().endswith(".toml"):
        own = read_presets(path)
        if len(own) != 1:
            names = ", ".join(own) or "none"
            raise ConfigError(
                f"{path} describes {len(own)} encoders ({names}); name one: --presets {path} --encoder NAME"
            )
        return next(iter(own.values()))
    if exists(path) or text.lower().endswith(WEIGHT_SUFFIXES):
        return _from_file(path, arch)
    hub = re.fullmatch(r"hf[-_]hub:(.+)", text)
    if hub:
        known = [preset for preset in presets.values() if preset.source.lower() == f"hf-hub:{hub[1]}".lower()]
        return known[0] if known else Preset(name=_safe(hub[1].rsplit("/", 1)[-1]), source=f"hf-hub:{hub[1]}")
    name = text.removeprefix("timm:")
    if not _SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f"--encoder is {text!r}: no known encoder, no file, no hf-hub: id, no timm name; wsicurate encoders lists "
            "those that are known"
        )
    known = [preset for preset in presets.values() if preset.source == f"timm:{name}"]
    return known[0] if known else Preset(name=name, source=f"timm:{name}")


def _from_file(path: Path, arch: str | None) -> Preset:
    is_script = weight_file(path) == "torchscript" or ".torchscript" in path.suffixes
    kind = "torchscript" if is_script and not arch else "file"
    stem = path.name
    for suffix in (*WEIGHT_SUFFIXES, ".torchscript"):
        stem = stem.removesuffix(suffix)
    return Preset(name=_safe(stem), source=f"{kind}:{path.absolute()}", arch=arch or "")


def _safe(name: str) -> str:
    """A name that can be an array's."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip("._+-")[:100].rstrip(".")
    return safe if is_array_name(safe) else "encoder"
