"""The settings of ``wsicurate export``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from wsicurate.config.fields import CurationName, Encoder, Quality
from wsicurate.validation import Text, between, validate

#: Formats by name; `wsicurate.formats.exports.find` has the classes.
ExportFormat = Literal[
    "webdataset",
    "huggingface",
    "litdata",
    "dinov2",
    "folder",
    "trident",
    "clam",
    "anndata",
    "spatialdata",
    "geojson",
    "csv",
]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of ``wsicurate export``.

    Attributes:
        to: format that is written; docs/export.md says who reads which.
        curation: name of the curation to use. None means all patches of the store.
        where: condition on the columns of the manifest, or of the store's table without a curation, that chooses the
            patches, such as "decision == 'selected' and site == 'A1'". None means those that the curation selected.
        encoder: encoder of the patches, by a name that wsicurate encoders lists or that its vectors have in the store;
            embed also takes a timm model, hf-hub:OWNER/NAME, a file of weights, or a TOML file. Here its vectors are
            exported, by the formats that hold any. None means no vectors.
        by: column that gives image folders their names. None means the label.
        shard_patches: number of patches in each file of formats that pack them.
        image_format: file format of images that the store does not hold as JPEG: png (lossless) or jpeg. JPEG of the
            store passes through as it is.
        quality: JPEG quality of patches that are compressed here, from 1 to 100.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        overwrite: replace results in the store that were made with other settings, or are damaged. Here in the
            destination.
    """

    to: ExportFormat = "webdataset"
    curation: CurationName | None = None
    where: Text | None = None
    encoder: Encoder | None = None
    by: Text | None = None
    shard_patches: Annotated[int, between(1, 1_000_000, "give a whole number of patches from 1 to 1,000,000")] = 2048
    image_format: Literal["png", "jpeg"] = "png"
    quality: Quality = 90
    slides: Sequence[Path | str] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        validate(self)
