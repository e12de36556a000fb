"""The settings of each step: frozen, keyword-only, checked by their types when they are made (see `validation`).

Field names are the command's option names; units stand in the names (``mpp`` is µm per pixel).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from wsicurate.errors import ConfigError
from wsicurate.validation import Name, Rule, Text, Workers, between, checked, expanded, is_array_name, one_of, validate

CodecName = Literal["jpeg", "zstd", "none"]

#: mpp values outside this range are not slides; metadata that claims them is not believed.
MPP_RANGE = (0.05, 20.0)

Mpp = Annotated[
    float,
    between(*MPP_RANGE, f"give µm per pixel from {MPP_RANGE[0]} to {MPP_RANGE[1]:g} (20x is 0.5, 40x is 0.25)"),
]
PatchPx = Annotated[int, between(8, 4096, "give a whole number of pixels from 8 to 4096")]
Quality = Annotated[int, between(1, 100, "give a JPEG quality from 1 to 100")]
Seed = Annotated[int, between(0, 2**63 - 1, "give a whole number, 0 or more")]
Share = Annotated[float, between(0, 1, "give a share from 0 to 1")]
CurationName = Annotated[
    str,
    Rule(
        is_array_name,
        "it cannot name a curation; use up to 100 letters, digits, '-', '_', '.', beginning with a letter or digit",
    ),
]
Cosine = Annotated[float, between(-1, 1, "give a cosine between -1 and 1", without_ends=True)]
Seconds = Annotated[float, Rule(lambda value: 0 < value <= 1e9, "give seconds above 0, at most 1e9")]
Device = Annotated[
    str,
    Rule(
        lambda text: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text) is not None,
        "choose auto, cpu, mps, cuda, or one of several as cuda:1",
    ),
]
Precision = Annotated[str, one_of("auto", "fp32", "bf16", "fp16")]


Encoder = Annotated[str, Rule(lambda text: bool(text.strip()), "wsicurate encoders lists those that are known")]


def _at_least(least: int) -> Rule:
    return Rule(lambda value: value >= least, f"give a whole number, at least {least}")


Budget = Annotated[
    int | float,
    Rule(
        lambda value: 0 < value <= 1 if isinstance(value, float) else value >= 1,
        "give a share above 0 up to 1.0, or a whole number of patches",
    ),
]
Clusters = Annotated[
    Sequence[int],
    Rule(
        lambda counts: bool(counts) and counts[-1] >= 1 and all(fine > coarse for fine, coarse in pairwise(counts)),
        "give falling numbers, finest first, such as 2000,200,20",
    ),
]


def is_plausible_mpp(mpp: float) -> bool:
    """Whether ``mpp`` (µm per pixel) can be a slide's resolution."""
    return math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def check_mpp(option: str, mpp: float) -> None:
    """Raise `ConfigError` unless ``mpp`` is within `MPP_RANGE`."""
    checked(option, mpp, Mpp)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


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
        slide_timeout: seconds of work, of all workers together, after which a slide is given up; None: never.
        overwrite: redo slides that the store holds otherwise than this run would make them, or damaged. Each stays
            readable until its successor is complete.
        dry_run: plan, say what would be done, write nothing.
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
    max_patches_per_slide: Annotated[int, _at_least(1)] | None = None
    allow_upsampling: bool = False
    mask: Text = "otsu"
    seed: Seed = 0
    slide_timeout: Seconds | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if self.kinds is not None:
            object.__setattr__(self, "kinds", tuple(kind.strip().upper() for kind in self.kinds))
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


Sampler = Literal["balanced", "random-over-slides", "patient-stratified", "random"]
Within = Literal["random", "nearest", "spread", "k-center", "facility-location"]
CopyRule = Literal["confirmed", "dinov2", "none"]
Retrieval = Literal["sample", "cluster"]


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Settings of ``wsicurate curate``.

    Attributes:
        encoder: whose vectors choose.
        name: of the curation.
        budget: a number of patches, or as a float up to 1 a share of those that the filters leave.
        seed: of every draw.
        evaluation_encoder: encoder whose vectors evaluation_encoder the choice; never the one that chose. None takes another that the store
            holds, and without one there is no evaluation.
        labels: what the evaluation knows of classes: a CSV (columns ``label`` and one or more of ``slide_id``, ``row``,
            ``slide``, ``patient``), ``store`` for the labels in the store, or None.
        min_tissue: least share of tissue.
        min_focus: least focus score; about 3 and less is blurred.
        max_pen: largest share of a patch that has the colours of ink.
        max_dark: largest share that is darker than stained tissue gets.
        max_blank: largest share that is as light and colourless as background.
        copies: how copies are found: ``confirmed`` by pixels, by DINOv2's similarity rule, or not at all.
        copy_rate: share of patches that may have a negative among their candidates; sets the candidates' threshold.
        copy_threshold: candidates' least similarity; None calibrates it on the store.
        weights: file of the encoder's weights, where it has one: the calibration embeds changed patches.
        arch: timm architecture of weights from a file.
        slides: folders to look for moved slides in, where the store keeps coordinates alone.
        redundancy: drop what has a cosine above 1 - redundancy to another of its cluster (SemDeDup); None keeps it.
        exclude_patients: file of patients, samples, slides and sites, one a line, that must not be in the subset.
        evaluation_sets: stores of patches whose copies must not be in the subset.
        leakage_threshold: drop what is this similar to a patch of the evaluation stores (DINOv2: 0.45); None asks for
            confirmed copies alone.
        seeds: store of curated patches; what is retrieved by them is the pool.
        retrieve: per seed patch (``sample``) or per cluster (``cluster``).
        retrieve_k: neighbours of each seed patch, or patches of each cluster.
        retrieve_more_than: a cluster counts where it holds more seed patches than this.
        retrieve_cap: most patches that the seeds may retrieve; None: no cap.
        clusters: number of clusters of each level, finest first, such as 2000,200,20; None derives them from the number
            of patches.
        clusters_made_for: the number of patches that ``clusters`` were published for; they are scaled to the store's.
        sampler: how the budget is drawn: balanced over the hierarchy, or one of the baselines.
        within: which patches of a cluster are drawn.
        share_cap: no slide or patient has more than this many times its equal share of the budget.
        separate_kinds: whether frozen and diagnostic slides are balanced separately.
        keep: earlier curation whose choices are kept, and whose clusters are used.
        evaluate: whether the choice is measured against the baselines.
        evaluation_seeds: number of seeds of the evaluation.
        device: where clusters are made: ``auto`` (an NVIDIA GPU where there is one), ``cpu``, ``cuda``, ``mps``.
        workers: processes; None means one per usable core.
        overwrite: redo a curation of this name.
    """

    encoder: Encoder = "dinov2-small"
    name: CurationName = "default"
    budget: Budget = 0.25
    seed: Seed = 0
    evaluation_encoder: Text | None = None
    labels: Path | str | None = None
    min_tissue: Share = 0.5
    min_focus: Annotated[float, between(0, 12, "give a score from 0 (takes all) to 12; 3 is blurred, 5 is sharp")] = 3.0
    max_pen: Share = 0.1
    max_dark: Share = 0.5
    max_blank: Share = 0.95
    copies: CopyRule = "confirmed"
    copy_rate: Annotated[float, between(0, 1, "give a rate between 0 and 1, such as 0.001", without_ends=True)] = 0.001
    copy_threshold: Cosine | None = None
    weights: Path | str | None = None
    arch: Text | None = None
    slides: Sequence[Path | str] = ()
    redundancy: (
        Annotated[float, between(0, 2, "give a cosine distance above 0, such as 0.05", without_ends=True)] | None
    ) = None
    exclude_patients: Path | str | None = None
    evaluation_sets: Sequence[Path | str] = ()
    leakage_threshold: Cosine | None = None
    seeds: Path | str | None = None
    retrieve: Retrieval = "sample"
    retrieve_k: Annotated[int, _at_least(1)] = 4
    retrieve_more_than: Annotated[int, _at_least(0)] = 3
    retrieve_cap: Annotated[int, _at_least(1)] | None = None
    clusters: Clusters | None = None
    clusters_made_for: Annotated[int, _at_least(2)] | None = None
    sampler: Sampler = "balanced"
    within: Within = "random"
    share_cap: Annotated[
        float, between(1, 1e9, "give a number from 1 (3 is three times the equal share) to 1e9, which caps nothing")
    ] = 3.0
    separate_kinds: bool = True
    keep: CurationName | None = None
    evaluate: bool = True
    evaluation_seeds: Annotated[int, _at_least(2)] = 5
    device: Device = "auto"
    workers: Workers | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        validate(self)
        if str(self.labels) == "store":
            object.__setattr__(self, "labels", "store")
        _require(
            self.evaluation_encoder is None or self.evaluation_encoder != self.encoder,
            f"--evaluation-encoder is {self.evaluation_encoder!r}, the selection encoder; a choice is evaluated by another, such as "
            f"{'filter-bank' if self.encoder != 'filter-bank' else 'stain-texture'}",
        )
        _require(
            self.keep is None or self.keep != self.name,
            f"--keep is {self.keep!r}, the curation that is made; give the new one another --name",
        )
        _require(
            not self.evaluation_sets or self.copies != "none" or self.leakage_threshold is not None,
            "--evaluation-sets with --copies none finds nothing; look for copies, or give a --leakage-threshold",
        )
        _require(
            self.leakage_threshold is None or bool(self.evaluation_sets),
            "--leakage-threshold needs --evaluation-sets STORE: similar to what?",
        )


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of ``wsicurate import``.

    Attributes:
        mpp: µm per pixel of the patches; None leaves it to the table, the coordinates and the slides. Images without a
            resolution are taken to be at 0.5, recorded as ``unknown``.
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
        slide_timeout: as for `TileConfig`.
        overwrite: as for `TileConfig`.
        dry_run: say what would be done, write nothing.
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
        trust_code: let a file that describes encoders name Python code to run: a descriptor's module, or code from the
            hub.
        overwrite: redo slides that were embedded otherwise.
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
