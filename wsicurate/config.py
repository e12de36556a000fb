"""The settings of each step: frozen, keyword-only, checked when they are made.

Field names are the command's option names; units stand in the names (``mpp`` is µm per pixel).
"""

from __future__ import annotations

import math
import re
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
class ImportConfig:
    """Settings of ``wsicurate import``.

    Attributes:
        mpp: µm per pixel of the patches; None leaves it to the table, the coordinates and the slides. Images of which
            nobody says are taken for 0.5 and recorded as ``unknown``.
        patch_px: edge of a patch, pixels; None takes that of the images or coordinates. Images of another size are
            left out, on record.
        codec: ``jpeg`` (JPEG files are stored as they are), ``zstd`` (lossless), or ``none`` (coordinates alone).
        quality: JPEG quality of what is not a JPEG file already.
        layout: what each level of folders is, such as ``label/slide``.
        name_pattern: regular expression with named groups, searched for in each file name.
        table: CSV with the columns ``path, label, patient, slide, site, kind, x, y, mpp``.
        slides: folders with the slides that coordinates belong to.
        encoder_name: encoder that made the vectors that come with the patches.
        workers: processes; None means one per usable core.
        overwrite: redo what is already in the store.
        dry_run: say what would be done, write nothing.
    """

    mpp: float | None = None
    patch_px: int | None = None
    codec: CodecName = "jpeg"
    quality: int = 90
    layout: str | None = None
    name_pattern: str | None = None
    table: Path | str | None = None
    slides: Sequence[Path | str] = ()
    encoder_name: str | None = None
    workers: int | None = None
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.mpp is not None:
            check_mpp("--mpp", self.mpp)
        _require(
            self.patch_px is None or (_is_count(self.patch_px, 8) and self.patch_px <= 4096),
            f"--patch-px is {self.patch_px!r}; give a whole number of pixels from 8 to 4096",
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
        _require(
            self.encoder_name is None or bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,99}", self.encoder_name)),
            f"--encoder-name is {self.encoder_name!r}; give a name of letters, digits, '-', '.' and '_'",
        )
        folders = [self.slides] if isinstance(self.slides, str | Path) else self.slides
        object.__setattr__(self, "slides", tuple(Path(folder) for folder in folders))
        if self.table is not None:
            object.__setattr__(self, "table", Path(self.table))
