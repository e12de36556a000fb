"""The clusters of a curation: made of what the filters leave, or those of the curation that is kept; and thinning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.config import CurateConfig
from wsicurate.curation.clustering.base import Arrays, Clustering, check_clusters
from wsicurate.curation.clustering.hierarchy import derive_counts, scaled_counts
from wsicurate.curation.filters.redundancy import thin, thinning_curve
from wsicurate.curation.ledger import Ledger
from wsicurate.errors import CurationError
from wsicurate.steps.curating.inputs import Inputs
from wsicurate.steps.curating.pool import digest_of
from wsicurate.steps.curating.published import Published
from wsicurate.steps.curating.work import Work

#: Curves of kept share are drawn at these cosine distances.
_CURVE_EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True, kw_only=True)
class Clustered:
    """The patches of a curation in clusters.

    Attributes:
        clustering: fitted; None where others made the clusters.
        arrays: what is stored of it.
        clusters: int32, (n, L), finest first; -1 where a clustering without centroids was not fitted on the patch, or
            published clusters have none for it.
        similarity: float32, (n,), cosine to the finest centroid; None without centroids.
        ids: int32, (n, L): what the manifest calls the clusters: published ones as their file does, ours by number.
    """

    clustering: Clustering | None
    arrays: Arrays
    clusters: NDArray[np.int32]
    similarity: NDArray[np.float32] | None
    ids: NDArray[np.int32]


def cluster_counts(config: CurateConfig, patches: int) -> tuple[int, ...]:
    """Clusters of each level that so many patches are to have, finest first."""
    if config.clusters is None:
        return derive_counts(patches)
    if config.clusters_made_for is not None:
        return scaled_counts(config.clusters, config.clusters_made_for, patches)
    return tuple(config.clusters)


def make_clusters(
    inputs: Inputs, ledger: Ledger, vectors: NDArray[np.float16], work: Work, device: str, facts: dict[str, Any]
) -> Clustered:
    """Cluster what is left, or take the clusters of the kept curation; and assign every patch.

    Args:
        inputs: of the curation.
        ledger: what was decided so far.
        vectors: (n, d), of the selection encoder.
        work: what it works with.
        device: where clusters are made.
        facts: takes what the record says of them.

    Raises:
        CurationError: if no patch is left, or a clustering of another package gives what cannot be used.
    """
    rows = np.flatnonzero(ledger.left)
    if inputs.kept is not None:
        work.say(f"taking the clusters of {inputs.config.keep}")
        arrays: Arrays = inputs.kept.clusters()
        clustering = inputs.clustering.clustering.from_arrays(arrays)
        facts["clusters"] = {"counts": list(clustering.counts), "from": inputs.config.keep}
    else:
        clustering, arrays = _fitted(inputs, ledger, vectors, rows, work, device, facts)
    name, is_ours = inputs.clustering.name, inputs.clustering.facts is None
    if not is_ours:
        _check_arrays(arrays, name)
        facts["clusters"]["arrays"] = {key: len(values) for key, values in sorted(arrays.items())}
    work.say("assigning every patch to its clusters")
    everything = clustering.has_centroids
    asked = vectors if everything else work.scratch.rows("trained", vectors, rows)
    clusters, similarity = clustering.assign(asked, device=device)
    if not is_ours:
        check_clusters(clusters, similarity, clustering.counts, len(asked), name)
    if everything and similarity is None:
        raise CurationError(f"--clustering {name} has centroids and gives no similarity to them")
    if not everything:
        own, similarity = clusters, None
        clusters = np.full((len(vectors), own.shape[1]), -1, dtype=np.int32)
        clusters[rows] = own
    return Clustered(clustering=clustering, arrays=arrays, clusters=clusters, similarity=similarity, ids=clusters)


def published_clusters(published: Published, ledger: Ledger) -> Clustered:
    """The clusters of a file for the draw.

    Raises:
        CurationError: if no patch is left.
    """
    if not ledger.left.any():
        raise CurationError(f"no patch is left to choose from: {ledger.counts()}; loosen the filters")
    return Clustered(
        clustering=None,
        arrays=published.arrays,
        clusters=published.nested.clusters,
        similarity=None,
        ids=published.ids,
    )


def _fitted(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16],
    rows: NDArray[np.int64],
    work: Work,
    device: str,
    facts: dict[str, Any],
) -> tuple[Clustering, Arrays]:
    """A clustering of some rows, and its arrays; those of an interrupted run where there are any."""
    config, prototype = inputs.config, inputs.clustering.clustering
    if not len(rows):
        raise CurationError(f"no patch is left to cluster: {ledger.counts()}; loosen the filters")
    counts = cluster_counts(config, len(rows))
    work.say(f"clustering {len(rows):,} patches into {' / '.join(f'{count:,}' for count in counts)}")

    def compute() -> tuple[Arrays, Mapping[str, Any]]:
        fitted = prototype.fit(
            work.scratch.rows("trained", vectors, rows),
            counts,
            seed=config.seed,
            device=device,
            progress=lambda level, done, rounds: work.count(f"rounds of clustering, {level}", done, rounds),
        )
        return fitted.to_arrays(), {"notes": list(getattr(fitted, "notes", ()))}

    depends: dict[str, Any] = {
        "version": __version__,
        "vectors": inputs.vectors,
        "rows": digest_of(rows),
        "counts": counts,
        "seed": config.seed,
        "device": device,
    }
    if inputs.clustering.facts is not None:
        depends["clustering"] = inputs.clustering.facts
    arrays, found = work.stages.run("hierarchy", depends, compute)
    work.notes.extend(found["notes"])
    clustering = prototype.from_arrays(arrays)
    facts["clusters"] = {"counts": list(clustering.counts), "from": None, "device": device}
    return clustering, arrays


def _check_arrays(arrays: Arrays, name: str) -> None:
    """Refuse arrays that a store does not hold."""
    for key, values in arrays.items():
        is_plain = isinstance(values, np.ndarray) and values.ndim in (1, 2) and values.dtype.kind in "biuf"
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}", key) is None or not is_plain:
            raise CurationError(
                f"--clustering {name} stores {key!r}; a clustering's arrays are of numbers, have one or two "
                "dimensions, and names of letters, digits and '_'"
            )


def thin_clusters(
    inputs: Inputs,
    ledger: Ledger,
    vectors: NDArray[np.float16],
    clustered: Clustered,
    work: Work,
    facts: dict[str, Any],
) -> None:
    """Decide about redundant patches, where that is asked for."""
    epsilon = inputs.config.redundancy
    if epsilon is None:
        return
    work.say(f"thinning clusters at a cosine of {1 - epsilon:g}")
    left, similarity, kept = ledger.left, clustered.similarity, inputs.kept_rows
    finest = np.where(left, clustered.clusters[:, 0], -1).astype(np.int32)
    stays = thin(vectors, finest, epsilon=epsilon, order_key=similarity, eligible=left, kept=kept)
    dropped = ledger.decide(stays >= 0, "redundant", f"cosine above {1 - epsilon:g} to one that stays")
    epsilons = sorted({*_CURVE_EPSILONS, epsilon})
    shares = thinning_curve(vectors, finest, epsilons, order_key=similarity, eligible=left, kept=kept)
    facts["redundancy"] = {
        "epsilon": epsilon,
        "dropped": dropped,
        "kept_share": {f"{each:g}": round(float(share), 6) for each, share in zip(epsilons, shares, strict=True)},
    }
