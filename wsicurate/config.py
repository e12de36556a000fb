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
Clusterer = Annotated[
    str | object,
    Rule(
        lambda value: (
            isinstance(value, str)
            or all(callable(getattr(value, name, None)) for name in ("fit", "assign", "to_arrays", "from_arrays"))
        ),
        "give a name, or an object with fit, assign, to_arrays and from_arrays",
    ),
]
Mask = Annotated[
    str | object,
    Rule(
        lambda value: bool(value) if isinstance(value, str) else callable(getattr(value, "predict", value)),
        "give a name, a function, or an object that can be called or has predict",
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
    max_patches_per_slide: Annotated[int, _at_least(1)] | None = None
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


#: Selection rules by name; from Python also an object, see `wsicurate.curation.selection.baselines.Sampler`.
SAMPLERS = ("balanced", "random-over-slides", "patient-stratified", "random")
Sampler = Annotated[
    str | object,
    Rule(
        lambda value: value in SAMPLERS if isinstance(value, str) else callable(getattr(value, "draw", None)),
        f"choose one of {', '.join(SAMPLERS)}, or give an object with a method draw",
    ),
]
Within = Literal["random", "nearest", "spread", "k-center", "facility-location"]
CopyRule = Literal["confirmed", "dinov2", "none"]
Retrieval = Literal["sample", "cluster"]


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Settings of ``wsicurate curate``.

    Attributes:
        encoder: encoder of the patches, by a name that wsicurate encoders lists or that its vectors have in the store;
            embed also takes a timm model, hf-hub:OWNER/NAME, a file of weights, or a TOML file. Here it is the
            selection encoder: the patches are selected by its vectors.
        name: name of the result in the store, by which later commands find it.
        budget: number of patches to select, or a share of those that pass the filters, such as 0.25 or 25%.
        seed: seed of all random choices; the same seed gives the same result.
        evaluation_encoder: evaluation encoder: its vectors measure the quality of the selection, so it must differ from
            the encoder that made the selection. None means another encoder of the store, if there is one. Without one
            there is no evaluation.
        labels: labels of the patches for the evaluation: a CSV file with the column label and one or more of slide_id,
            slide, patient, row, x and y, or the value store for the labels in the store. None means no labels.
        min_tissue: least share of a patch's area that is tissue, from 0 to 1.
        min_focus: least focus score of a patch, from 0 to 12; about 3 and less is blurred, 5 and more is sharp.
        max_pen: largest share of a patch that has the colours of pen marks, from 0 to 1.
        max_dark: largest share of a patch that is darker than stained tissue, such as folds and dirt, from 0 to 1.
        max_blank: largest share of a patch that is as bright and colourless as empty background, from 0 to 1.
        copies: how copies (near-duplicates: the same tissue again) are found: by comparing pixels (confirmed), by
            DINOv2's similarity rule (dinov2), or not at all (none).
        copy_rate: share of patches that may get tissue of another patient as a candidate copy by chance; a smaller
            share means fewer pairs to compare.
        copy_threshold: least cosine similarity of two patches whose pixels are compared as possible copies. None means
            calibrated on the store.
        weights: file or folder with the encoder's weights, to be used instead of a download. Here for the calibration
            of copies, which embeds changed patches.
        arch: architecture of a file of weights, by its name in timm.
        slides: folder to search for the slides of patches that are given by their coordinates alone; repeat the option
            for several folders.
        redundancy: remove patches within this cosine distance of another patch of their cluster, which stays
            (SemDeDup). None means none are removed.
        exclude_patients: text file of patients, samples, slides and sites that must not be selected, one per line.
        evaluation_sets: store of held-out patches, copies of which must not be selected; repeat the option for several
            stores.
        leakage_threshold: also exclude patches with at least this cosine similarity to a patch of an evaluation store
            (DINOv2: 0.45). None means only copies are excluded.
        seeds: store of curated patches; the selection is made among patches that are similar to them. None means all
            patches.
        retrieve: how the patches of --seeds find similar ones: each its nearest neighbours (sample), or by the clusters
            that they lie in (cluster).
        retrieve_k: number of patches that are retrieved for each seed patch, or from each cluster.
        retrieve_min_seeds: fewest seed patches of a cluster for patches to be retrieved from it.
        retrieve_cap: most patches that are retrieved in all. None means no limit by sample, 1,000,000 by cluster.
        clusters: number of clusters of each level, finest first, separated by commas, such as 2000,200,20. None means
            derived from the number of patches.
        clusters_made_for: number of patches that --clusters were published for, to scale them to this store. None means
            no scaling.
        clustering: name of the clustering that the budget is balanced over: hierarchy, or one of another package; from
            Python also an object.
        clusters_from: file, or folder of files, with cluster ids that others made for tiles of these slides: CSV or
            Parquet with the columns slide_id, tile_x, tile_y (level-0 pixels) and level_1 (the finest), level_2 and so
            on. None means that the clusters are made here. Patches take the clusters of the tile that covers most of
            them.
        cluster_tile_um: width and height in µm of the tiles of --clusters-from; 112 is 224 pixels at 20x.
        sampler: how patches are drawn: balanced over the clusters (balanced), or by one of the baselines
            (random-over-slides, patient-stratified, random); from Python also an object.
        within: which patches of a cluster are drawn: at random, the nearest to its centre, or spread out by one of
            three rules.
        share_cap: most patches of one slide or patient, as a multiple of its equal share of the budget.
        separate_kinds: balance frozen and diagnostic slides separately.
        keep: name of an earlier curation, whose selected patches stay selected and whose clusters are used.
        evaluate: evaluate the selection against baselines.
        evaluation_seeds: number of draws with different seeds that the evaluation repeats.
        device: processor for networks and clustering: cpu, cuda, cuda:1, mps, or auto for a GPU where there is one.
        workers: number of worker processes or threads. None means one per usable core.
        overwrite: replace results in the store that were made with other settings, or are damaged.
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
    retrieve_min_seeds: Annotated[int, _at_least(1)] = 4
    retrieve_cap: Annotated[int, _at_least(1)] | None = None
    clusters: Clusters | None = None
    clusters_made_for: Annotated[int, _at_least(2)] | None = None
    clustering: Clusterer = "hierarchy"
    clusters_from: Path | str | None = None
    cluster_tile_um: Annotated[float, between(1, 10_000, "give µm, such as 112 (224 pixels at 0.5 µm)")] = 112.0
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
        if self.clusters_from is not None:
            object.__setattr__(self, "clusters_from", expanded(Path(self.clusters_from)))
            self._require_no_centroids()
        _require(
            self.evaluation_encoder is None or self.evaluation_encoder != self.encoder,
            f"--evaluation-encoder is {self.evaluation_encoder!r}, the selection encoder; give another, such as "
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

    def _require_no_centroids(self) -> None:
        """Refuse what published clusters cannot give: they have ids, and neither centroids nor a method."""
        for is_asked, setting in (
            (self.clustering != "hierarchy", "--clustering"),
            (self.seeds is not None and self.retrieve == "cluster", "--retrieve cluster"),
            (self.redundancy is not None, "--redundancy"),
            (self.within == "nearest", "--within nearest"),
        ):
            _require(
                not is_asked,
                f"{setting} makes clusters or needs centroids, and --clusters-from gives ids alone; leave one out",
            )

    @property
    def use_of_vectors(self) -> Literal["needed", "where there", "none"]:
        """Whether vectors of the selection encoder are needed, used only where the store has them, or not used."""
        if self.clusters_from is None:
            return "needed"
        asked = (self.copies == "dinov2", self.copy_threshold is not None, self.within != "random")
        if any(asked) or self.evaluation_sets or self.seeds is not None:
            return "needed"
        return "where there" if self.copies != "none" or not isinstance(self.sampler, str) else "none"


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


@dataclass(frozen=True, kw_only=True)
class MaterialiseConfig:
    """Settings of ``wsicurate materialise``.

    Attributes:
        curation: name of the curation whose patches are taken. None means all patches of the store, of which ``where``
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
        _require(self.curation is not None or self.where is not None, "which patches? give --curation NAME, or --where")
