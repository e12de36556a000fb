"""The settings of ``wsicurate materialise``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsicurate.config.fields import CurationName, Quality, Seconds, require
from wsicurate.validation import Text, Workers, validate


@dataclass(frozen=True, kw_only=True)
class MaterialiseConfig:
    """Settings of ``wsicurate materialise``.

    Attributes:
        curation: name of the curation to use. None means all patches of the store, of which ``where``
            chooses.
        where: condition on the columns of the manifest, or of the store's table without a curation, that chooses the
            patches, such as "decision == 'selected' and site == 'A1'". None means those that the curation selected.
        codec: how patches are stored: ``jpeg``, ``zstd`` (lossless), or ``none`` (coordinates alone; the slides are
            read again). None means as in the store, and jpeg for coordinates; ``none`` cannot be.
        quality: JPEG quality of patches that are compressed here, from 1 to 100. None means that of the store, or 90.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        workers: number of worker processes or threads. None means one per usable core.
        slide_timeout: seconds of work, summed over all workers, after which a slide is given up. None means never.
        overwrite: replace results in the store that were made with other settings, or are damaged.
        dry_run: report what would be done, and write nothing.
    """

    curation: CurationName | None = None
    where: Text | None = None
    codec: Literal["jpeg", "zstd"] | None = None
    quality: Quality | None = None
    slides: Sequence[Path | str] = ()
    workers: Workers | None = None
    slide_timeout: Seconds | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        validate(self)
        require(self.curation is not None or self.where is not None, "which patches? give --curation NAME, or --where")
