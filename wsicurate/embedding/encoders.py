"""From the name of an encoder to something that turns patches into vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.presets import Pooling, Preset, find_preset
from wsicurate.errors import ConfigError

if TYPE_CHECKING:
    from wsicurate.embedding.models import LoadedModel


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


#: Where the weightless descriptors live.
DESCRIPTORS = {
    "stain-texture": "wsicurate.embedding.stain_texture:StainTexture",
    "filter-bank": "wsicurate.embedding.filter_bank:FilterBank",
}


def load_descriptor(place: str) -> Descriptor:
    """A descriptor by name, or by ``module:class``.

    Raises:
        ConfigError: if there is none.
    """
    module, _, name = DESCRIPTORS.get(place, place).partition(":")
    try:
        return cast(Descriptor, getattr(importlib.import_module(module), name)())
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"there is no descriptor {place!r} ({error}); choose {' or '.join(DESCRIPTORS)}, or write module:class"
        ) from error


def describe_identity(preset: Preset, descriptor: Descriptor) -> Mapping[str, Any]:
    """What an embedding's record says of a descriptor: name and version stand for the weights."""
    text = f"{descriptor.name}\0{descriptor.version}"
    return {
        "encoder": preset.name,
        "dim": int(descriptor.dim),
        "weights_hash": hashlib.sha256(text.encode()).hexdigest(),
        "preprocessing": {"descriptor": descriptor.name, "version": str(descriptor.version)},
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
) -> Preset:
    """The encoder that the options name, with what they change about it.

    Args:
        encoder: as `find_preset` takes it.
        presets: a file with more encoders.
        name: of its arrays in the store.
        arch: timm architecture of weights from a file.
        input_px: edge of the image that it sees.
        pooling: how tokens become one vector.

    Raises:
        ConfigError: if something is unknown or wrong.
    """
    preset = find_preset(encoder, extra=presets, arch=arch)
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigError(f"--pooling is {pooling!r}; choose one of {', '.join(get_args(Pooling))}")
    changes = {"name": name, "arch": arch, "input_px": input_px, "pooling": pooling}
    return dataclasses.replace(preset, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


def load_encoder(
    encoder: str,
    *,
    weights: str | Path | None = None,
    presets: str | Path | None = None,
    arch: str | None = None,
    input_px: int | None = None,
    pooling: str | None = None,
) -> LoadedModel:
    """Load an encoder's network, to look into it.

    Args:
        encoder: as ``wsicurate embed --encoder`` takes it.
        weights: file or folder to take the weights from.
        presets: a file with more encoders.
        arch: timm architecture of weights from a file.
        input_px: edge of the image that it sees.
        pooling: how tokens become one vector.

    Returns:
        The network in float32, on the CPU.

    Raises:
        ConfigError: if something is unknown, or the encoder is a descriptor, which has no network.
        EncoderError, EncoderUnavailableError: as `load_model`.
    """
    from wsicurate.embedding.models import load_model

    preset = wanted_preset(
        encoder, presets=None if presets is None else Path(presets), arch=arch, input_px=input_px, pooling=pooling
    )
    if preset.is_descriptor:
        raise ConfigError(f"{preset.name} is a descriptor and has no network to look into")
    return load_model(preset, weights=None if weights is None else Path(weights))
