"""The settings of ``wsicurate curate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from wsicurate.config.fields import (
    Budget,
    Clusterer,
    Clusters,
    Cosine,
    CurationName,
    Device,
    Encoder,
    Seed,
    Share,
    at_least,
    require,
)
from wsicurate.validation import Rule, Text, Workers, between, expanded, validate

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
    retrieve_k: Annotated[int, at_least(1)] = 4
    retrieve_min_seeds: Annotated[int, at_least(1)] = 4
    retrieve_cap: Annotated[int, at_least(1)] | None = None
    clusters: Clusters | None = None
    clusters_made_for: Annotated[int, at_least(2)] | None = None
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
    evaluation_seeds: Annotated[int, at_least(2)] = 5
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
        require(
            self.evaluation_encoder is None or self.evaluation_encoder != self.encoder,
            f"--evaluation-encoder is {self.evaluation_encoder!r}, the selection encoder; give another, such as "
            f"{'filter-bank' if self.encoder != 'filter-bank' else 'stain-texture'}",
        )
        require(
            self.keep is None or self.keep != self.name,
            f"--keep is {self.keep!r}, the curation that is made; give the new one another --name",
        )
        require(
            not self.evaluation_sets or self.copies != "none" or self.leakage_threshold is not None,
            "--evaluation-sets with --copies none finds nothing; look for copies, or give a --leakage-threshold",
        )
        require(
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
            require(
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
