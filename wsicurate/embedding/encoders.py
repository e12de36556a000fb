"""From the name of an encoder to something that turns patches into vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate.config import EmbedConfig
from wsicurate.embedding.plugin_encoders import plugin_preset
from wsicurate.embedding.presets import Pooling, Preset, all_presets, find_preset
from wsicurate.errors import ConfigError, with_name
from wsicurate.plugins import plugins
from wsicurate.validation import Rule, Text, checked, shown

if TYPE_CHECKING:
    from wsicurate.embedding.networks.models import LoadedModel


class Descriptor(Protocol):
    """Vectors without weights: a fixed computation on pixels.

    The vector of a patch depends on this patch alone, not on the batch it comes in.
    """

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def version(self) -> str | int:
        """Changes whenever its vectors do."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors, float32 (b, dim), of patches, uint8 (b, h, w, 3), RGB."""
        ...


_POSITIVE = Rule(lambda value: value >= 1, "give a whole number, at least 1")

#: Where the weightless descriptors live.
DESCRIPTORS = {
    "stain-texture": "wsicurate.embedding.descriptors.stain_texture:StainTexture",
    "filter-bank": "wsicurate.embedding.descriptors.filter_bank:FilterBank",
}


def load_descriptor(place: str) -> Descriptor:
    """A descriptor by name, or by ``module:Class``, which imports the module.

    Raises:
        ConfigError: if there is none, or it is no descriptor.
    """
    module, _, name = DESCRIPTORS.get(place, place).partition(":")
    choices = f"choose {' or '.join(DESCRIPTORS)}, or write module:Class"
    if not module or not name:
        raise ConfigError(f"there is no descriptor {place!r}; {choices}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise ConfigError(f"there is no descriptor {place!r} ({with_name(error)}); {choices}") from error
    if not isinstance(found, type):
        raise ConfigError(f"the descriptor {place!r} is {shown(found)}; name a class")
    try:
        descriptor = found()
    except Exception as error:
        raise ConfigError(f"the descriptor {place!r} cannot be made: {with_name(error)}") from error
    return check_descriptor(descriptor, place)


def check_descriptor(descriptor: object, place: str) -> Descriptor:
    """The same object, once it has all that a descriptor has; ``place`` is its name in messages.

    Raises:
        ConfigError: if something is missing or of another type.
    """
    for attribute, kind in (("name", Text), ("version", Text | int), ("dim", Annotated[int, _POSITIVE])):
        checked(f"the descriptor {place!r}: its {attribute}", getattr(descriptor, attribute, None), kind)
    if not callable(descriptor):
        raise ConfigError(f"the descriptor {place!r} cannot be called with patches")
    return cast(Descriptor, descriptor)


def describe_identity(preset: Preset, descriptor: Descriptor) -> Mapping[str, Any]:
    """What an embedding's record says of a descriptor: name and version stand for the weights."""
    text = f"{descriptor.name}\0{descriptor.version}"
    return {
        "encoder": preset.name,
        "dim": int(descriptor.dim),
        "weights_hash": hashlib.sha256(text.encode()).hexdigest(),
        "preprocessing": {
            "descriptor": descriptor.name,
            "version": str(descriptor.version),
            **({"package": preset.package} if preset.package else {}),
        },
        "pooling": preset.pooling,
        "mpp": preset.mpp,
        "licence": preset.licence,
        "terms": preset.terms,
    }


def wanted_preset(
    encoder: str,
    *,
    presets: Path | None = None,
    name: str | None = None,
    arch: str | None = None,
    input_px: int | None = None,
    pooling: str | None = None,
    trust_code: bool = False,
) -> Preset:
    """The encoder that the options name, with what they change about it.

    Args:
        encoder: as `find_preset` takes it, or the name of one that another package brings; our own names go first.
        presets: a file with more encoders.
        name: of its arrays in the store.
        arch: timm architecture of weights from a file.
        input_px: edge of the image that it sees.
        pooling: how tokens become one vector.
        trust_code: whether a file that describes encoders may name Python code to run.

    Raises:
        ConfigError: if something is unknown or wrong, or a descriptor is given what only a network has.
    """
    brought = plugins("encoders")
    if encoder in brought and encoder not in all_presets(presets):
        preset = plugin_preset(brought[encoder])
    else:
        preset = find_preset(encoder, extra=presets, arch=arch)
    if not trust_code:
        _refuse_code(preset)
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigError(f"--pooling is {pooling!r}; choose one of {', '.join(get_args(Pooling))}")
    if preset.is_descriptor:
        for option, value in (("--arch", arch), ("--input-px", input_px), ("--pooling", pooling)):
            if value is not None:
                raise ConfigError(
                    f"{option} {value} means nothing to {preset.name}, which has no network; leave it out"
                )
    changes = {"name": name, "arch": arch, "input_px": input_px, "pooling": pooling}
    return dataclasses.replace(preset, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


def _refuse_code(preset: Preset) -> None:
    """Raise `ConfigError` where an encoder file names Python code: it reads like data, and is passed on like data."""
    if preset.file is None:
        return
    code = ""
    if preset.is_descriptor and ":" in preset.place:
        code = f"the Python class {preset.place}"
    elif preset.trusts_code:
        code = f"the Python code of {preset.place} on the hub"
    if code:
        raise ConfigError(
            f"encoder {preset.name!r} in {preset.file} would run {code}; if you trust it, say so: --trust-code"
        )


def load_encoder(
    encoder: str,
    *,
    weights: str | Path | None = None,
    presets: str | Path | None = None,
    arch: str | None = None,
    input_px: int | None = None,
    pooling: str | None = None,
    trust_code: bool = False,
) -> LoadedModel:
    """Load an encoder's network, to look into it.

    Args:
        encoder: as ``wsicurate embed --encoder`` takes it.
        weights: file or folder to take the weights from.
        presets: a file with more encoders.
        arch: timm architecture of weights from a file.
        input_px: edge of the image that it sees.
        pooling: how tokens become one vector.
        trust_code: whether a file that describes encoders may name Python code to run.

    Returns:
        The network in float32, on the CPU.

    Raises:
        ConfigError: if something is unknown, or the encoder is a descriptor, which has no network.
        EncoderError, EncoderUnavailableError: as `load_model`.
    """
    config = EmbedConfig(
        encoder=encoder,
        weights=weights,
        presets=presets,
        arch=arch,
        input_px=input_px,
        pooling=pooling,
        trust_code=trust_code,
    )
    preset = preset_of(config)
    if preset.is_descriptor:
        raise ConfigError(f"{preset.name} is a descriptor and has no network to look into")
    from wsicurate.embedding.networks.models import load_model

    return load_model(preset, weights=None if config.weights is None else Path(config.weights))


def preset_of(config: EmbedConfig) -> Preset:
    """The encoder that settings name; raises as `wanted_preset`."""
    preset = wanted_preset(
        config.encoder,
        presets=None if config.presets is None else Path(config.presets),
        name=config.name,
        arch=config.arch,
        input_px=config.input_px,
        pooling=config.pooling,
        trust_code=config.trust_code,
    )
    if preset.is_descriptor:
        refuse_for_descriptors(preset.name, weights=config.weights)
    return preset


def refuse_for_descriptors(encoder: str, **options: Any) -> None:
    """Raise `ConfigError` if an option that only a network has is given for a weightless descriptor."""
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} {value} means nothing to {encoder}, which has no network; leave it out")
