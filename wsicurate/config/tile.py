"""The settings of ``wsicurate tile``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from wsicurate.config.fields import CodecName, Mask, Mpp, PatchPx, Quality, Seconds, Seed, Share, at_least, require
from wsicurate.validation import Workers, validate


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """Settings of ``wsicurate tile``.

    Attributes:
        mpp: resolution of the patches in µm per pixel; 0.5 is 20x.
        patch_px: width and height of a patch in pixels.
        min_tissue: least share of a patch's area that is tissue, from 0 to 1.
        codec: how patches are stored: ``jpeg``, ``zstd`` (lossless), or ``none`` (coordinates alone; the slides are
            read again).
        quality: JPEG quality of patches that are compressed here, from 1 to 100.
        workers: number of worker processes or threads. None means one per usable core.
        slide_table: CSV file about the slides, with the column slide and any of mpp, patient, slide_id, label, site and
            kind.
        default_mpp: resolution of slides without resolution metadata, in µm per pixel of the full image. None means
            that such slides are skipped.
        kinds: TCGA kinds of slides to tile, separated by commas: DX (diagnostic), TS, MS or BS (frozen). None means
            all.
        max_patches_per_slide: most patches of a slide, a random sample that is spread over its tissue. None means no
            limit.
        allow_upsampling: also tile slides that are coarser than the wanted resolution, with interpolation.
        mask: tissue mask: otsu, tiatoolbox-otsu, tiatoolbox-morphological, or one that another package brings. From
            Python an object does as well: see docs/extending/masks.md.
        seed: seed of all random choices; the same seed gives the same result.
        slide_timeout: seconds of work, summed over all workers, after which a slide is given up. None means never.
        overwrite: replace results in the store that were made with other settings, or are damaged. Each slide stays
            readable until its successor is complete.
        dry_run: report what would be done, and write nothing.
    """

    mpp: Mpp = 0.5
    patch_px: PatchPx = 256
    min_tissue: Share = 0.25
    codec: CodecName = "jpeg"
    quality: Quality = 90
    workers: Workers | None = None
    slide_table: Path | str | None = None
    default_mpp: Mpp | None = None
    kinds: Sequence[str] | None = None
    max_patches_per_slide: Annotated[int, at_least(1)] | None = None
    allow_upsampling: bool = False
    mask: Mask = "otsu"
    seed: Seed = 0
    slide_timeout: Seconds | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if self.kinds is not None:
            object.__setattr__(self, "kinds", tuple(kind.strip().upper() for kind in self.kinds))
            require(
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
