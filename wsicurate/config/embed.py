"""The settings of ``wsicurate embed``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wsicurate.config.fields import Device, Encoder, Precision
from wsicurate.validation import Name, Text, Workers, between, expanded, validate


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of ``wsicurate embed``.

    Attributes:
        encoder: encoder of the patches, by a name that wsicurate encoders lists or that its vectors have in the store;
            embed also takes a timm model, hf-hub:OWNER/NAME, a file of weights, or a TOML file.
        weights: file or folder with the encoder's weights, to be used instead of a download.
        arch: architecture of a file of weights, by its name in timm.
        presets: TOML file that describes more encoders.
        name: name of the result in the store, by which later commands find it. None means the encoder's name.
        input_px: width and height in pixels of the image that the encoder sees. None means the encoder's own.
        pooling: how the tokens of an image become one vector: model, class, mean or class+mean. None means the
            encoder's own.
        device: processor for networks and clustering: cpu, cuda, cuda:1, mps, or auto for a GPU where there is one.
        precision: floating-point format of the network: fp32, bf16, fp16, or auto for the fastest safe one.
        batch_size: number of patches that the network sees at once. None means that of earlier slides, else as many as
            fit. The latter is a power of two.
        compile: run the network through torch.compile.
        workers: number of worker processes or threads. None means one per usable core.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        trust_code: let a file that describes encoders run Python code: a descriptor's module, or code from the hub.
        overwrite: replace results in the store that were made with other settings, or are damaged.
    """

    encoder: Encoder = "dinov2-small"
    weights: Path | str | None = None
    arch: Text | None = None
    presets: Path | str | None = None
    name: Name | None = None
    input_px: Annotated[int, between(8, 8192, "give a whole number of pixels, at least 8, at most 8192")] | None = None
    pooling: Text | None = None
    device: Device = "auto"
    precision: Precision = "auto"
    batch_size: (
        Annotated[int, between(1, 65_536, "give a whole number of patches, at least 1, at most 65536, or leave it out")]
        | None
    ) = None
    compile: bool = False
    workers: Workers | None = None
    slides: Sequence[Path | str] = ()
    trust_code: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        validate(self)
        for name in ("weights", "presets"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, expanded(path))
