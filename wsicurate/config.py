"""The settings of each step: frozen, keyword-only, checked when they are made.

Field names are the command's option names; units stand in the names (``mpp`` is µm per pixel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wsicurate.errors import ConfigError

CodecName = Literal["jpeg", "zstd", "none"]

#: mpp values outside this range are not slides; metadata that claims them is not believed.
MPP_RANGE = (0.05, 20.0)


def is_plausible_mpp(mpp: float) -> bool:
    """Whether ``mpp`` (µm per pixel) can be a slide's resolution."""
    return math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def check_mpp(option: str, mpp: float) -> None:
    """Raise `ConfigError` unless ``mpp`` is within `MPP_RANGE`."""
    _require(
        _is_number(mpp) and is_plausible_mpp(mpp),
        f"{option} is {mpp!r}; give µm per pixel from {MPP_RANGE[0]} to {MPP_RANGE[1]:g} (20x is 0.5, 40x is 0.25)",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Settings of ``wsicurate tile``.

    Attributes:
        mpp: target resolution, µm per pixel; 0.5 is 20x.
        patch_px: edge of a stored patch, pixels at the target resolution.
        min_tissue: a patch is planned where at least this share of its area is tissue, 0 to 1.
        codec: how patches are stored: ``jpeg``, ``zstd`` (lossless), or ``none`` (coordinates alone).
        quality: JPEG quality, 1 to 100; used by ``codec="jpeg"``.
        workers: processes; None means one per usable core.
        slide_table: CSV with the columns ``slide, mpp, patient, slide_id, label, ...``.
        default_mpp: µm per level-0 pixel of slides that do not say.
        kinds: TCGA kinds to tile (``DX``, ``TS``, ``BS``, ``MS``); None means all.
        max_patches_per_slide: a seeded sample, spread over the tissue, where more are planned.
        allow_upsampling: tile slides coarser than the target as well, interpolating.
        mask: name of the tissue mask.
        seed: of the sample.
        overwrite: redo slides that are already in the store.
        dry_run: plan, say what would be done, write nothing.
    """

    mpp: float = 0.5
    patch_px: int = 256
    min_tissue: float = 0.25
    codec: CodecName = "jpeg"
    quality: int = 90
    workers: int | None = None
    slide_table: Path | str | None = None
    default_mpp: float | None = None
    kinds: Sequence[str] | None = None
    max_patches_per_slide: int | None = None
    allow_upsampling: bool = False
    mask: str = "otsu"
    seed: int = 0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_mpp("--mpp", self.mpp)
        _require(
            _is_count(self.patch_px, 8) and self.patch_px <= 4096,
            f"--patch-px is {self.patch_px!r}; give a whole number of pixels from 8 to 4096",
        )
        _require(
            _is_number(self.min_tissue) and 0 <= self.min_tissue <= 1,
            f"--min-tissue is {self.min_tissue!r}; give a share from 0 to 1",
        )
        _require(
            self.codec in get_args(CodecName),
            f"--codec is {self.codec!r}; choose one of {', '.join(get_args(CodecName))}",
        )
        _require(
            _is_count(self.quality, 1) and self.quality <= 100,
            f"--quality is {self.quality!r}; give a JPEG quality from 1 to 100",
        )
        _require(
            self.workers is None or _is_count(self.workers, 1),
            f"--workers is {self.workers!r}; give a whole number of processes, at least 1",
        )
        if self.default_mpp is not None:
            check_mpp("--default-mpp", self.default_mpp)
        _require(
            self.max_patches_per_slide is None or _is_count(self.max_patches_per_slide, 1),
            f"--max-patches-per-slide is {self.max_patches_per_slide!r}; give a whole number, at least 1",
        )
        _require(_is_count(self.seed, 0), f"--seed is {self.seed!r}; give a whole number, 0 or more")
        if self.slide_table is not None:
            object.__setattr__(self, "slide_table", Path(self.slide_table))
        if self.kinds is not None:
            kinds = self.kinds.split(",") if isinstance(self.kinds, str) else self.kinds
            object.__setattr__(self, "kinds", tuple(kind.strip().upper() for kind in kinds))
            _require(
                bool(self.kinds) and all(self.kinds),
                "--kinds is empty; name kinds such as DX, or leave the option out to take all",
            )

    def store_settings(self) -> dict[str, Any]:
        """The settings that every slide of one store must share, in the order they are reported."""
        return {
            "min_tissue": float(self.min_tissue),
            "mask": self.mask,
            "max_patches_per_slide": self.max_patches_per_slide,
            "allow_upsampling": self.allow_upsampling,
            "seed": None if self.max_patches_per_slide is None else self.seed,
        }


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of ``wsicurate embed``.

    Attributes:
        encoder: a name that ``wsicurate encoders`` lists, a timm model, ``hf-hub:OWNER/NAME``, a file of weights, or a
            TOML file that describes one encoder.
        weights: file or folder to take the encoder's weights from, instead of the hub.
        arch: timm architecture of weights from a file.
        presets: TOML file with more encoders.
        name: of the arrays in the store; None means the encoder's.
        input_px: edge of the image that the encoder sees; None means its own.
        pooling: how tokens become one vector; None means the encoder's own.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        batch_size: patches at once; None means the size that earlier slides of the store had, else the largest power
            of two that fits.
        compile: run the network through `torch.compile`.
        workers: threads that decode, or processes of a weightless descriptor; None means one per usable core.
        slides: folders to look for moved slides in, where the store keeps coordinates alone.
        overwrite: redo slides that were embedded otherwise.
    """

    encoder: str = "dinov2-small"
    weights: Path | str | None = None
    arch: str | None = None
    presets: Path | str | None = None
    name: str | None = None
    input_px: int | None = None
    pooling: str | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    compile: bool = False
    workers: int | None = None
    slides: Sequence[Path | str] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.encoder), "--encoder is empty; wsicurate encoders lists those that are known")
        for option, value, choices in (
            ("--device", self.device, ("auto", "cpu", "cuda", "mps")),
            ("--precision", self.precision, ("auto", "fp32", "bf16", "fp16")),
        ):
            _require(value in choices, f"{option} is {value!r}; choose one of {', '.join(choices)}")
        _require(
            self.batch_size is None or _is_count(self.batch_size, 1),
            f"--batch-size is {self.batch_size!r}; give a whole number of patches, at least 1, or leave it out",
        )
        _require(
            self.input_px is None or _is_count(self.input_px, 8),
            f"--input-px is {self.input_px!r}; give a whole number of pixels, at least 8",
        )
        _require(
            self.workers is None or _is_count(self.workers, 1),
            f"--workers is {self.workers!r}; give a whole number, at least 1",
        )
        for part in ("weights", "presets"):
            value = getattr(self, part)
            if value is not None:
                object.__setattr__(self, part, Path(value).expanduser())
        object.__setattr__(self, "slides", tuple(Path(folder) for folder in self.slides))
