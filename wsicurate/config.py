"""The settings of each step: frozen, keyword-only, checked when they are made.

Field names are the command's option names; units stand in the names (``mpp`` is µm per pixel).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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


def require_workers(workers: int | None) -> None:
    """Raise `ConfigError` unless ``workers`` is None or a number of processes."""
    _require(
        workers is None or _is_count(workers, 1),
        f"--workers is {workers!r}; give a whole number of processes, at least 1",
    )


def check_timeout(seconds: float | None) -> None:
    """Raise `ConfigError` unless ``seconds`` is None or a positive number."""
    _require(
        seconds is None or (_is_number(seconds) and math.isfinite(seconds) and seconds > 0),
        f"--slide-timeout is {seconds!r}; give seconds above 0",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _paths(option: str, value: object) -> tuple[Path, ...]:
    """One path or several, as paths."""
    several = [value] if isinstance(value, str | Path) else value
    if not isinstance(several, Sequence) or not all(isinstance(path, str | Path) for path in several):
        raise ConfigError(f"{option} is {value!r}; give paths")
    return tuple(Path(path) for path in several)


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
        slide_timeout: seconds of work, of all workers together, after which a slide is given up; None: never.
        overwrite: redo slides that the store holds otherwise than this run would make them, or damaged. Each stays
            readable until its successor is complete.
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
    slide_timeout: float | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_timeout(self.slide_timeout)
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
        require_workers(self.workers)
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
        judge: encoder whose vectors judge the choice; never the one that chose. None takes another that the store
            holds, and without one there is no proof.
        labels: what the proof knows of classes: a CSV (columns ``label`` and one or more of ``slide_id``, ``row``,
            ``slide``, ``patient``), ``store`` for the labels in the store, or None.
        min_tissue: least share of tissue.
        min_focus: least focus score; about 3 and less is blurred.
        max_pen: largest share of a patch that has the colours of ink.
        max_dark: largest share that is darker than stained tissue gets.
        max_blank: largest share that is as light and colourless as glass.
        copies: how copies are found: ``confirmed`` by pixels, by DINOv2's similarity rule, or not at all.
        copy_rate: share of patches that may have a stranger among their candidates; sets the candidates' threshold.
        copy_threshold: candidates' least similarity; None calibrates it on the store.
        weights: file of the encoder's weights, where it has one: the calibration embeds changed patches.
        arch: timm architecture of weights from a file.
        slides: folders to look for moved slides in, where the store keeps coordinates alone.
        redundancy: drop what has a cosine above 1 - redundancy to another of its cluster (SemDeDup); None keeps it.
        exclude_patients: file of patients, samples, slides and sites, one a line, that must not be in the subset.
        evaluation: stores of patches whose copies must not be in the subset.
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
        proof: whether the choice is measured against the baselines.
        proof_seeds: number of seeds of the proof.
        device: where clusters are made: ``auto`` (an NVIDIA GPU where there is one), ``cpu``, ``cuda``, ``mps``.
        workers: processes; None means one per usable core.
        overwrite: redo a curation of this name.
    """

    encoder: str = "dinov2-small"
    name: str = "default"
    budget: int | float = 0.25
    seed: int = 0
    judge: str | None = None
    labels: Path | str | None = None
    min_tissue: float = 0.5
    min_focus: float = 3.0
    max_pen: float = 0.1
    max_dark: float = 0.5
    max_blank: float = 0.95
    copies: CopyRule = "confirmed"
    copy_rate: float = 0.001
    copy_threshold: float | None = None
    weights: Path | str | None = None
    arch: str | None = None
    slides: Sequence[Path | str] = ()
    redundancy: float | None = None
    exclude_patients: Path | str | None = None
    evaluation: Sequence[Path | str] = ()
    leakage_threshold: float | None = None
    seeds: Path | str | None = None
    retrieve: Retrieval = "sample"
    retrieve_k: int = 4
    retrieve_more_than: int = 3
    retrieve_cap: int | None = None
    clusters: Sequence[int] | None = None
    clusters_made_for: int | None = None
    sampler: Sampler = "balanced"
    within: Within = "random"
    share_cap: float = 3.0
    separate_kinds: bool = True
    keep: str | None = None
    proof: bool = True
    proof_seeds: int = 5
    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        is_share = isinstance(self.budget, float)
        _require(
            _is_number(self.budget) and self.budget > 0 and (self.budget <= 1 if is_share else self.budget >= 1),
            f"--budget is {self.budget!r}; give a share above 0 up to 1.0, or a whole number of patches",
        )
        _require(_is_count(self.seed, 0), f"--seed is {self.seed!r}; give a whole number, 0 or more")
        for option, value in (
            ("min-tissue", self.min_tissue),
            ("max-pen", self.max_pen),
            ("max-dark", self.max_dark),
            ("max-blank", self.max_blank),
        ):
            _require(_is_number(value) and 0 <= value <= 1, f"--{option} is {value!r}; give a share from 0 to 1")
        _require(
            _is_number(self.min_focus) and 0 <= self.min_focus <= 12,
            f"--min-focus is {self.min_focus!r}; give a score from 0 (takes all) to 12; 3 is blurred, 5 is sharp",
        )
        for option, word, words in (
            ("copies", self.copies, CopyRule),
            ("retrieve", self.retrieve, Retrieval),
            ("sampler", self.sampler, Sampler),
            ("within", self.within, Within),
        ):
            _require(word in get_args(words), f"--{option} is {word!r}; choose one of {', '.join(get_args(words))}")
        _require(
            _is_number(self.copy_rate) and 0 < self.copy_rate < 1,
            f"--copy-rate is {self.copy_rate!r}; give a rate between 0 and 1, such as 0.001",
        )
        for option, threshold in (
            ("copy-threshold", self.copy_threshold),
            ("leakage-threshold", self.leakage_threshold),
        ):
            _require(
                threshold is None or (_is_number(threshold) and -1 < threshold < 1),
                f"--{option} is {threshold!r}; give a cosine between -1 and 1",
            )
        _require(
            self.redundancy is None or (_is_number(self.redundancy) and 0 < self.redundancy < 2),
            f"--redundancy is {self.redundancy!r}; give a cosine distance above 0, such as 0.05",
        )
        _require(
            _is_number(self.share_cap) and math.isfinite(self.share_cap) and self.share_cap >= 1,
            f"--share-cap is {self.share_cap!r}; give a number of at least 1 (3 is three times the equal share)",
        )
        for option, count, least in (
            ("retrieve-k", self.retrieve_k, 1),
            ("retrieve-more-than", self.retrieve_more_than, 0),
            ("retrieve-cap", self.retrieve_cap, 1),
            ("clusters-made-for", self.clusters_made_for, 2),
            ("proof-seeds", self.proof_seeds, 2),
            ("workers", self.workers, 1),
        ):
            _require(
                count is None or _is_count(count, least),
                f"--{option} is {count!r}; give a whole number, at least {least}",
            )
        _require(
            self.judge is None or self.judge != self.encoder,
            f"--judge is {self.judge!r}, the encoder that chooses; a choice is judged by another, such as "
            f"{'filter-bank' if self.encoder != 'filter-bank' else 'stain-texture'}",
        )
        _require(
            self.keep is None or self.keep != self.name,
            f"--keep is {self.keep!r}, the curation that is made; give the new one another --name",
        )
        for option, value in (
            ("separate-kinds", self.separate_kinds),
            ("proof", self.proof),
            ("overwrite", self.overwrite),
        ):
            _require(isinstance(value, bool), f"--{option} is {value!r}; it is true or false")
        _require(
            not self.evaluation or self.copies != "none" or self.leakage_threshold is not None,
            "--evaluation with --copies none finds nothing; look for copies, or give a --leakage-threshold",
        )
        _require(
            self.leakage_threshold is None or bool(self.evaluation),
            "--leakage-threshold needs --evaluation STORE: similar to what?",
        )
        _require(
            isinstance(self.device, str) and bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device)),
            f"--device is {self.device!r}; choose auto, cpu, mps, cuda, or one of several as cuda:1",
        )
        if self.clusters is not None:
            object.__setattr__(self, "clusters", tuple(self.clusters))
            _require(
                bool(self.clusters)
                and all(_is_count(count, 1) for count in self.clusters)
                and all(fine > coarse for fine, coarse in pairwise(self.clusters)),
                f"--clusters is {','.join(map(str, self.clusters))}; give falling numbers, finest first, such as "
                "2000,200,20",
            )
        for name in ("evaluation", "slides"):
            object.__setattr__(self, name, _paths(f"--{name}", getattr(self, name)))
        for name in ("exclude_patients", "seeds", "labels", "weights"):
            value = getattr(self, name)
            _require(
                value is None or isinstance(value, str | Path),
                f"--{name.replace('_', '-')} is {value!r}; give a path",
            )
            if value is not None and str(value) != "store":
                object.__setattr__(self, name, Path(value))


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
        slide_timeout: as for `TileConfig`.
        overwrite: as for `TileConfig`.
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
    slide_timeout: float | None = 1800.0
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_timeout(self.slide_timeout)
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
        require_workers(self.workers)
        _require(
            self.encoder_name is None or bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,99}", self.encoder_name)),
            f"--encoder-name is {self.encoder_name!r}; give a name of letters, digits, '-', '.' and '_'",
        )
        folders = [self.slides] if isinstance(self.slides, str | Path) else self.slides
        object.__setattr__(self, "slides", tuple(Path(folder) for folder in folders))
        if self.table is not None:
            object.__setattr__(self, "table", Path(self.table))


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
        object.__setattr__(self, "slides", _paths("--slides", self.slides))
