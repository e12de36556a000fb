"""Everything that a curation depends on, read and checked before any work is done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering.find import DEFAULT, FoundClustering, find_clustering
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    CurationError,
    ManifestError,
)
from wsicurate.opening import open_store
from wsicurate.steps.curating.labels import FROM_STORE, Labels, labels_of
from wsicurate.steps.curating.pool import (
    DAMAGE,
    Pool,
    embedding_identity,
    gather_pool,
    table_digest,
    vectors_hashes,
)
from wsicurate.steps.curating.published_file import PublishedFile
from wsicurate.steps.curating.sound import sound_part
from wsicurate.store.embeddings import EmbeddingRecord
from wsicurate.store.manifest import Curation
from wsicurate.store.records import fingerprint_of
from wsicurate.store.store import Store
from wsicurate.tables import read_lines
from wsicurate.validation import plain_settings

#: What makes vectors comparable.
_IDENTITY = ("weights_hash", "preprocessing", "pooling", "dim")

#: What a record calls the content of the published clusters.
_CLUSTERS = "the published clusters"

#: Settings that do not change what comes out.
_NOT_SETTINGS = frozenset({"name", "workers", "overwrite", "slides"})


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a curation works on.

    Attributes:
        config: settings.
        store: the store.
        pool: its patches.
        encoder, evaluation_encoder: the embeddings of the selection and evaluation encoders; no evaluation encoder, no
            evaluation. With published clusters there may be no selection encoder either.
        no_evaluation_encoder: why there is no evaluation encoder, where that is known; else empty.
        labels: classes, or None.
        listed: lines of the list of what must not be in the subset.
        evaluation_stores: stores whose patches must not be in it.
        seeds: store of curated patches, or None.
        kept: the earlier curation whose choices stay, or None.
        kept_rows: bool, (n,): the patches that it selected; none where there is no such curation.
        left_out: slides that the store holds and the pool does not, because they do not read back: why, by key.
        clustering: that makes the clusters, not fitted.
        published: the clusters that others made, in whose place none are made; or None.
        settings: of the curation, as plain values.
        vectors: hash of each slide's vectors.
        depends_on: a fingerprint of each thing besides the settings that the manifest depends on, by its name.
        fingerprint: of settings and inputs: equal fingerprints, equal manifests. The version of wsicurate is not part
            of it: an update does not make a curation another one.
        version: of this wsicurate.
    """

    config: CurateConfig
    store: Store
    pool: Pool
    encoder: EmbeddingRecord | None
    evaluation_encoder: EmbeddingRecord | None
    no_evaluation_encoder: str
    labels: Labels | None
    listed: Sequence[str]
    evaluation_stores: Sequence[Store]
    seeds: Store | None
    kept: Curation | None
    kept_rows: NDArray[np.bool_]
    left_out: Mapping[str, str]
    clustering: FoundClustering
    published: PublishedFile | None
    settings: Mapping[str, Any]
    vectors: Mapping[str, str]
    depends_on: Mapping[str, str]
    fingerprint: str
    version: str

    @property
    def encoder_facts(self) -> dict[str, Any] | None:
        """What the record says of the encoder, its licence included."""
        return None if self.encoder is None else _facts(self.encoder)

    @property
    def evaluation_encoder_facts(self) -> dict[str, Any] | None:
        """What the record says of the evaluation encoder."""
        return None if self.evaluation_encoder is None else _facts(self.evaluation_encoder)


def _facts(record: EmbeddingRecord) -> dict[str, Any]:
    names = (*_IDENTITY, "encoder", "mpp", "licence", "terms")
    return {name: getattr(record, name) for name in names}


def gather_inputs(path: Path, config: CurateConfig, damaged: Mapping[str, str] | None = None) -> Inputs:
    """Read and check what a curation depends on; see `curate` for what is raised.

    Args:
        path: the store's.
        config: settings.
        damaged: slides that are known not to read back: why, by key.
    """
    clustering = find_clustering(config.clustering)
    _refuse_without_centroids(config, clustering)
    published = None if config.clusters_from is None else PublishedFile(Path(config.clusters_from))
    whole = open_store(path, slides=[Path(folder) for folder in config.slides], skip_damaged=True)
    with_vectors = _uses_vectors(whole, config)
    store, left_out = sound_part(whole, config, damaged, with_vectors=with_vectors)
    pool = gather_pool(store)
    encoder = embedding_identity(store, config.encoder) if with_vectors else None
    evaluation_encoder, no_evaluation_encoder = _evaluation_encoder(store, config, encoder)
    labels = None if config.labels is None else labels_of(pool, config.labels)
    evaluation_stores = [
        _other_store(store, Path(folder), encoder, "--evaluation-sets") for folder in config.evaluation_sets
    ]
    seeds = None if config.seeds is None else _other_store(store, Path(config.seeds), encoder, "--seeds")
    clusters_hash = None if published is None else published.content_hash()
    kept = None if config.keep is None else _kept(store, config, encoder, clustering, clusters_hash)
    settings = _settings(config, clustering)
    vectors = vectors_hashes(store, config.encoder) if with_vectors else {}
    parts: dict[str, Any] = {
        "the vectors": vectors,
        "the evaluation encoder's vectors": {}
        if evaluation_encoder is None
        else {evaluation_encoder.encoder: vectors_hashes(store, evaluation_encoder.encoder)},
        "the patches": pool.content_hashes(),
        "the table of patches": table_digest(pool.table),
        "the labels": _file_hash(config.labels) if config.labels not in (None, FROM_STORE) else None,
        "the list of what is excluded": _file_hash(config.exclude_patients),
        "the evaluation stores": [vectors_hashes(each, config.encoder) for each in evaluation_stores],
        "the seeds": None if seeds is None else vectors_hashes(seeds, config.encoder),
        "the curation that is kept": None if kept is None else kept.run["fingerprint"],
    }
    if clusters_hash is not None:  # a record without published clusters stays as it always was
        parts[_CLUSTERS] = clusters_hash
    depends_on = {name: fingerprint_of({name: part}) for name, part in parts.items()}
    return Inputs(
        config=config,
        store=store,
        pool=pool,
        encoder=encoder,
        evaluation_encoder=evaluation_encoder,
        no_evaluation_encoder=no_evaluation_encoder,
        labels=labels,
        listed=_lines(config.exclude_patients),
        evaluation_stores=evaluation_stores,
        seeds=seeds,
        kept=kept,
        kept_rows=_kept_rows(pool, kept, left_out),
        left_out=left_out,
        clustering=clustering,
        published=published,
        settings=settings,
        vectors=vectors,
        depends_on=depends_on,
        fingerprint=fingerprint_of(settings, depends_on),
        version=__version__,
    )


def _uses_vectors(store: Store, config: CurateConfig) -> bool:
    """Whether vectors of the selection encoder are used; where they may be there or not, one slide's are enough."""
    if config.use_of_vectors == "where there":
        return any(config.encoder in slide.encoders for slide in store.slides.values())
    return config.use_of_vectors == "needed"


def _refuse_without_centroids(config: CurateConfig, found: FoundClustering) -> None:
    """Refuse settings that need centroids, where the clustering has none.

    Raises:
        ConfigError: which names the setting.
    """
    if found.clustering.has_centroids:
        return
    for is_asked, setting in (
        (config.keep is not None, "--keep"),
        (config.seeds is not None and config.retrieve == "cluster", "--retrieve cluster"),
        (config.redundancy is not None, "--redundancy"),
        (config.within == "nearest", "--within nearest"),
    ):
        if is_asked:
            raise ConfigError(
                f"{setting} needs centroids, and --clustering {found.name} makes none; leave {setting} out, or take "
                "another clustering, such as hierarchy"
            )


def _kept_rows(pool: Pool, kept: Curation | None, left_out: Mapping[str, str]) -> NDArray[np.bool_]:
    rows = np.zeros(len(pool), dtype=bool)
    if kept is not None:
        numbers = {key: number for number, key in enumerate(pool.keys)}
        for key, selected in kept.selected(pool.content_hashes(), left_out=left_out).items():
            rows[pool.starts[numbers[key]] + selected] = True
    return rows


def fingerprint_of_record(run: Mapping[str, Any]) -> str:
    """The fingerprint of a curation's record, by this version's settings: one that it does not name had its default."""
    config = CurateConfig()
    settings = {**_settings(config, find_clustering(config.clustering)), **run["settings"]}
    return fingerprint_of(settings, run.get("depends_on", {}))


def _settings(config: CurateConfig, clustering: FoundClustering) -> dict[str, Any]:
    """Settings as plain values; the clustering is among them where it is not the default."""
    plain: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(config)):
        value = getattr(config, name)
        if name in _NOT_SETTINGS:
            continue
        if name == "clustering":
            if clustering.facts is not None:
                plain[name] = clustering.facts
            continue
        if name == "sampler" and not isinstance(value, str):
            kind = type(value)
            plain[name] = {
                "name": f"{kind.__module__}.{kind.__qualname__}",
                "settings": plain_settings(getattr(value, "settings", {}), "the sampler"),
            }
        elif isinstance(value, tuple):
            plain[name] = [each.name if isinstance(each, Path) else each for each in value]
        else:
            plain[name] = value.name if isinstance(value, Path) else value
    return plain


def _evaluation_encoder(
    store: Store, config: CurateConfig, encoder: EmbeddingRecord | None
) -> tuple[EmbeddingRecord | None, str]:
    """The evaluation encoder: the one that was asked for, else another encoder of the store; and why there is none.

    Raises:
        EmbeddingMissingError: if the one asked for did not embed every slide.
        CurationError: if it has the weights of the selection encoder.
    """
    if not config.evaluate:
        if config.evaluation_encoder is not None and config.evaluation_encoder not in store.encoders:
            embedding_identity(
                store, config.evaluation_encoder
            )  # raises: a name that is wrong now is wrong with the evaluation as well
        return None, ""
    if config.evaluation_encoder is None:
        problem = ""
        for name in store.encoders:
            try:
                is_ours = encoder is not None and name == config.encoder
                found = None if is_ours else embedding_identity(store, name)
            except DAMAGE as error:
                problem = str(error)
                continue
            if found is not None and (encoder is None or found.weights_hash != encoder.weights_hash):
                return found, ""
        return None, problem
    try:
        evaluation_encoder = embedding_identity(store, config.evaluation_encoder)
    except DAMAGE as error:
        return None, str(error)
    if encoder is not None and evaluation_encoder.weights_hash == encoder.weights_hash:
        raise CurationError(
            f"--evaluation-encoder {config.evaluation_encoder} has the weights of {config.encoder}, the selection "
            "encoder, and cannot evaluate it: name another encoder"
        )
    return evaluation_encoder, ""


def _other_store(store: Store, path: Path, encoder: EmbeddingRecord | None, option: str) -> Store:
    """A second store whose vectors can be compared with ours.

    Raises:
        CurationError: if it holds no patch, was embedded otherwise, or has another resolution.
        CorruptStoreError: if a slide of it does not read back: what is not compared would not be found.
    """
    assert encoder is not None  # `use_of_vectors` says so
    other = open_store(path, skip_damaged=True)
    if other.damaged:
        key, reason = next(iter(other.damaged.items()))
        raise CorruptStoreError(f"{option} {path}: {key} cannot be read, so nothing is compared with it: {reason}")
    if not len(other):
        raise CurationError(f"{option} {path} holds no patch; there is nothing to compare with")
    theirs = embedding_identity(other, encoder.encoder)
    for name in _IDENTITY:
        if getattr(theirs, name) != getattr(encoder, name):
            raise CurationError(
                f"{option} {path} was embedded by {encoder.encoder} with another {name} "
                f"({getattr(theirs, name)!r} there, {getattr(encoder, name)!r} here); embed both alike"
            )
    there, here = ({slide.mpp for slide in each.slides.values()} for each in (other, store))
    if not there & here:
        raise CurationError(
            f"{option} {path} has patches at {_numbers(there)} µm/px and {store.path} at {_numbers(here)}; tissue at "
            "another scale is not found again: tile it at the same --mpp"
        )
    return other


def _numbers(values: set[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))


def _kept(
    store: Store,
    config: CurateConfig,
    encoder: EmbeddingRecord | None,
    clustering: FoundClustering,
    clusters_hash: str | None,
) -> Curation:
    """The curation that is kept.

    Raises:
        ManifestError: if it was made by other vectors, by another clustering, or of other published clusters.
    """
    kept = store.curation(str(config.keep))
    theirs_from = kept.run["settings"].get("clusters_from")
    if config.clusters_from is not None:
        hashed = None if clusters_hash is None else fingerprint_of({_CLUSTERS: clusters_hash})
        if kept.run.get("depends_on", {}).get(_CLUSTERS) != hashed:
            has = "clusters of its own" if theirs_from is None else f"the clusters of {theirs_from}"
            raise ManifestError(
                f"--keep {config.keep} has {has}, and not those of {Path(config.clusters_from).name} as it is now; "
                "keep one that was made of the same file"
            )
        return kept
    if theirs_from is not None or encoder is None:
        raise ManifestError(f"--keep {config.keep} has the clusters of {theirs_from}; give --clusters-from that file")
    theirs = kept.run["encoder"]
    for name in _IDENTITY:
        if theirs.get(name) != getattr(encoder, name):
            raise ManifestError(
                f"--keep {config.keep} chose by {theirs['encoder']} with another {name} ({theirs.get(name)!r}) than "
                f"{config.encoder} has now ({getattr(encoder, name)!r}); use the vectors that it used"
            )
    name = (kept.run["settings"].get("clustering") or {"name": DEFAULT})["name"]
    if name != clustering.name:
        raise ManifestError(
            f"--keep {config.keep} has clusters by {name}, and --clustering is {clustering.name}; "
            f"give --clustering {name}"
        )
    return kept


def _lines(path: Path | str | None) -> list[str]:
    if path is None:
        return []
    return read_lines(Path(path), what="--exclude-patients", error=CurationError)


def _file_hash(path: Path | str | None) -> str | None:
    """Digest of a small file; errors of reading are reported where the file is read."""
    if path is None or not Path(path).is_file():
        return None
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
