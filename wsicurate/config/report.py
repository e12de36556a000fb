"""The settings of ``wsicurate report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from wsicurate.config.fields import CurationName, Encoder, Seed, at_least
from wsicurate.validation import validate


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of ``wsicurate report``.

    Attributes:
        curation: name of the curation to use. None means the only one, or none where there is none.
        encoder: encoder of the patches, by a name that wsicurate encoders lists or that its vectors have in the store;
            embed also takes a timm model, hf-hub:OWNER/NAME, a file of weights, or a TOML file. Here it places the
            patches on the map. None means the one of the curation.
        max_slides: most slides that are shown, those with the most patches.
        max_clusters: most clusters that are shown, the largest.
        map_patches: number of patches on the map, a random sample.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        seed: seed of all random choices; the same seed gives the same result.
    """

    curation: CurationName | None = None
    encoder: Encoder | None = None
    max_slides: Annotated[int, at_least(1)] = 100
    max_clusters: Annotated[int, at_least(1)] = 40
    map_patches: Annotated[int, at_least(3)] = 1_500
    slides: Sequence[Path | str] = ()
    seed: Seed = 0

    def __post_init__(self) -> None:
        validate(self)
