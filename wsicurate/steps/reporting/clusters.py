"""The clusters: what they hold, and how much of each was selected."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsicurate.config.report import ReportConfig
from wsicurate.report.charts import Chart, cluster_sizes
from wsicurate.report.cluster_mosaics import Members, members_of_clusters
from wsicurate.report.page import ClusterPart, Figure
from wsicurate.report.pictures import data_uri, strip
from wsicurate.steps.reporting.decided import Decided
from wsicurate.steps.reporting.patches import read_patches
from wsicurate.store.store import Store

#: Patches of each kind that are shown of a cluster.
_SHOWN = 6

#: Of the levels, the coarsest with at least so many clusters is shown.
_ENOUGH = 8


def clusters_of(
    store: Store, decided: Decided | None, config: ReportConfig
) -> tuple[list[ClusterPart], int, int, Chart | None]:
    """The largest clusters of a level, how many are not shown, the level, and the chart of all sizes."""
    level = 0 if decided is None else shown_level(decided)
    if decided is None or not level:
        return [], 0, 0, None
    codes = np.nan_to_num(np.asarray(decided.column(f"cluster_{level}"), dtype=np.float64), nan=-1).astype(np.int64)
    known = np.array([bool(key) for key, _ in decided.places])
    ids, before = np.unique(codes[(codes >= 0) & known], return_counts=True)
    chosen = decided.decision == "selected"
    after = np.array([int((chosen & (codes == cluster)).sum()) for cluster in ids])
    order = np.argsort(-before, kind="stable")
    shown = order[: config.max_clusters]
    members = _members(store, decided, np.where(known, codes, -1), ids[shown], config)
    sites = decided.table["site"].to_pylist()
    parts = []
    for place in shown:
        own = np.flatnonzero((codes == ids[place]) & known)
        parts.append(
            ClusterPart(
                number=int(ids[place]),
                before=int(before[place]),
                after=int(after[place]),
                sites=len({sites[row] for row in own} - {None}),
                slides=len({decided.places[row][0] for row in own}),
                figures=_strips(store, decided, members.get(int(ids[place]))),
            )
        )
    sizes = cluster_sizes(before[order].tolist(), after[order].tolist())
    return parts, len(ids) - len(parts), level, sizes


def shown_level(decided: Decided) -> int:
    """The coarsest level that has enough clusters, else the finest; 0 where there are none."""
    levels = sorted(
        int(name.removeprefix("cluster_")) for name in decided.table.column_names if name.startswith("cluster_")
    )
    for level in reversed(levels):
        if len(np.unique(np.asarray(decided.column(f"cluster_{level}")))) >= _ENOUGH:
            return level
    return levels[0] if levels else 0


def _members(
    store: Store, decided: Decided, codes: NDArray[np.int64], clusters: NDArray[np.int64], config: ReportConfig
) -> dict[int, Members]:
    encoder = config.encoder or (decided.run.get("encoder") or {}).get("encoder")
    keys = [key for key in decided.starts if encoder in store.slides[key].encoders]
    if encoder is None or len(keys) < len(decided.starts):
        return _random_members(codes, clusters, config.seed)

    def parts() -> Iterator[tuple[int, NDArray[np.floating]]]:
        for key in keys:
            yield decided.starts[key][0], store.slides[key].embedding(str(encoder))

    return members_of_clusters(parts, codes, clusters, _SHOWN, config.seed)


def _random_members(codes: NDArray[np.int64], clusters: NDArray[np.int64], seed: int) -> dict[int, Members]:
    """Random members alone, where there are no vectors to say what is near."""
    random, none = np.random.default_rng(seed), np.empty(0, dtype=np.int64)
    return {
        int(cluster): Members(none, random.permutation(np.flatnonzero(codes == cluster))[: 2 * _SHOWN], none)
        for cluster in clusters
    }


def _strips(store: Store, decided: Decided, members: Members | None) -> list[Figure]:
    figures = []
    for name in ("nearest", "random", "farthest") if members is not None else ():
        patches = [pixels for _, _, _, pixels in read_patches(store, decided, getattr(members, name))]
        if patches:
            figures.append(Figure(uri=data_uri(strip(patches, 72)), text=f"{name} members"))
    return figures
