"""Everything that a curation depends on, read and checked before any work is done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsicurate._version import __version__
from wsicurate.config import CurateConfig
from wsicurate.errors import CurationError, ManifestError
from wsicurate.steps.labels import FROM_STORE, Labels, labels_of
from wsicurate.steps.opening import open_store
from wsicurate.steps.pool import Pool, embedding_identity, gather_pool, table_digest, vectors_hashes
from wsicurate.store.embeddings import EmbeddingRecord
from wsicurate.store.manifest import Curation
from wsicurate.store.records import fingerprint_of
from wsicurate.store.store import Store
from wsicurate.tables import read_lines

#: What makes vectors comparable.
_IDENTITY = ("weights_hash", "preprocessing", "pooling", "dim")

#: Settings that do not change what comes out.
_NOT_SETTINGS = frozenset({"name", "workers", "overwrite", "slides"})


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a curation works on.

    Attributes:
        config: settings.
        store: the store.
        pool: its patches.
        encoder, judge: the embeddings that choose and judge; no judge, no proof.
        labels: classes, or None.
        listed: lines of the list of what must not be in the subset.
        evaluation: stores whose patches must not be in it.
        seeds: store of curated patches, or None.
        kept: the earlier curation whose choices stay, or None.
        settings: of the curation, as plain values.
        vectors: hash of each slide's vectors.
        fingerprint: of settings and inputs: equal fingerprints, equal manifests.
    """

    config: CurateConfig
    store: Store
    pool: Pool
    encoder: EmbeddingRecord
    judge: EmbeddingRecord | None
    labels: Labels | None
    listed: Sequence[str]
    evaluation: Sequence[Store]
    seeds: Store | None
    kept: Curation | None
    settings: Mapping[str, Any]
    vectors: Mapping[str, str]
    fingerprint: str

    @property
    def encoder_facts(self) -> dict[str, Any]:
        """What the record says of the encoder, its licence included."""
        return _facts(self.encoder)

    @property
    def judge_facts(self) -> dict[str, Any] | None:
        """What the record says of the judge."""
        return None if self.judge is None else _facts(self.judge)


def _facts(record: EmbeddingRecord) -> dict[str, Any]:
    names = (*_IDENTITY, "encoder", "mpp", "licence", "terms")
    return {name: getattr(record, name) for name in names}


def gather_inputs(path: Path, config: CurateConfig) -> Inputs:
    """Read and check what a curation depends on; see `curate` for what is raised."""
    store = open_store(path, slides=[Path(folder) for folder in config.slides])
    pool = gather_pool(store)
    encoder = embedding_identity(store, config.encoder)
    judge = _judge(store, config, encoder)
    labels = None if config.labels is None else labels_of(pool, config.labels)
    evaluation = [_other_store(store, Path(folder), encoder, "--evaluation") for folder in config.evaluation]
    seeds = None if config.seeds is None else _other_store(store, Path(config.seeds), encoder, "--seeds")
    kept = None if config.keep is None else _kept(store, config, encoder)
    settings = _settings(config)
    vectors = vectors_hashes(store, config.encoder)
    facts = {
        "version": __version__,
        "vectors": vectors,
        "judged by": {} if judge is None else {judge.encoder: vectors_hashes(store, judge.encoder)},
        "patches": pool.content_hashes(),
        "table": table_digest(pool.table),
        "labels": _file_hash(config.labels) if config.labels not in (None, FROM_STORE) else None,
        "listed": _file_hash(config.exclude_patients),
        "evaluation": [vectors_hashes(each, config.encoder) for each in evaluation],
        "seeds": None if seeds is None else vectors_hashes(seeds, config.encoder),
        "kept": None if kept is None else kept.run["fingerprint"],
    }
    return Inputs(
        config=config,
        store=store,
        pool=pool,
        encoder=encoder,
        judge=judge,
        labels=labels,
        listed=_lines(config.exclude_patients),
        evaluation=evaluation,
        seeds=seeds,
        kept=kept,
        settings=settings,
        vectors=vectors,
        fingerprint=fingerprint_of(settings, facts),
    )


def _settings(config: CurateConfig) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if name in _NOT_SETTINGS:
            continue
        if isinstance(value, tuple):
            plain[name] = [each.name if isinstance(each, Path) else each for each in value]
        else:
            plain[name] = value.name if isinstance(value, Path) else value
    return plain


def _judge(store: Store, config: CurateConfig, encoder: EmbeddingRecord) -> EmbeddingRecord | None:
    """The judge: the one that was asked for, else another encoder of the store.

    Raises:
        EmbeddingMissingError: if the one asked for did not embed every slide.
        CurationError: if it has the weights of the encoder that chooses.
    """
    if not config.proof:
        return None
    if config.judge is None:
        others = (name for name in store.encoders if name != config.encoder)
        found = (embedding_identity(store, name) for name in others)
        return next((record for record in found if record.weights_hash != encoder.weights_hash), None)
    judge = embedding_identity(store, config.judge)
    if judge.weights_hash == encoder.weights_hash:
        raise CurationError(
            f"--judge {config.judge} has the weights of {config.encoder}, which chooses; nobody judges his own choice: "
            "name another encoder"
        )
    return judge


def _other_store(store: Store, path: Path, encoder: EmbeddingRecord, option: str) -> Store:
    """A second store whose vectors can be compared with ours.

    Raises:
        CurationError: if it holds no patch, was embedded otherwise, or has another resolution.
    """
    other = open_store(path)
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


def _kept(store: Store, config: CurateConfig, encoder: EmbeddingRecord) -> Curation:
    kept = store.curation(str(config.keep))
    theirs = kept.run["encoder"]
    for name in _IDENTITY:
        if theirs.get(name) != getattr(encoder, name):
            raise ManifestError(
                f"--keep {config.keep} chose by {theirs['encoder']} with another {name} ({theirs.get(name)!r}) than "
                f"{config.encoder} has now ({getattr(encoder, name)!r}); use the vectors that it used"
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
