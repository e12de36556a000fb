"""The settings of ``wsicurate import``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsicurate.config.fields import CodecName, Mpp, PatchPx, Quality, Seconds
from wsicurate.validation import Name, Text, Workers, validate


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of ``wsicurate import``.

    Attributes:
        mpp: resolution of the patches in µm per pixel; 0.5 is 20x. None means that of the table, the coordinates or the
            slides. Images without any are taken for 0.5, and it is recorded as ``unknown``.
        patch_px: width and height of a patch in pixels. None means that of the images or coordinates. Images of another
            size are left out, on record.
        codec: how patches are stored: ``jpeg``, ``zstd`` (lossless), or ``none`` (coordinates alone; the slides are
            read again). JPEG files are stored as they are.
        quality: JPEG quality of patches that are compressed here, from 1 to 100.
        layout: what each level of folders is called after, such as label/slide.
        name_pattern: regular expression that is searched for in file names, with groups named label, patient, slide, x,
            y and the like.
        table: CSV file about the patches, with the column path and any of label, patient, slide, site, kind, x, y and
            mpp.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        encoder_name: name of the encoder that made the imported vectors.
        workers: number of worker processes or threads. None means one per usable core.
        slide_timeout: seconds of work, summed over all workers, after which a slide is given up. None means never.
        overwrite: replace results in the store that were made with other settings, or are damaged.
        dry_run: report what would be done, and write nothing.
    """

    mpp: Mpp | None = None
    patch_px: PatchPx | None = None
    codec: CodecName = "jpeg"
    quality: Quality = 90
    layout: Text | None = None
    name_pattern: Text | None = None
    table: Path | str | None = None
    slides: Sequence[Path | str] = ()
    encoder_name: Name | None = None
    workers: Workers | None = None
    slide_timeout: Seconds | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        validate(self)
