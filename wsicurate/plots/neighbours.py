"""How similar patches are to their nearest neighbours, and from where on they may be copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import hex_colour
from wsicurate.curation.evaluation.coverage import sample_rows
from wsicurate.curation.neighbours.search import largest_similarity
from wsicurate.errors import ConfigError
from wsicurate.plots.axes import axes_or_new
from wsicurate.store.manifest import Curation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 80


def similarity_histogram(
    vectors: NDArray[np.floating],
    threshold: float | Curation | None = None,
    *,
    sample: int = 5_000,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a histogram of each patch's cosine to its nearest neighbour among all others.

    Pairs at or above the threshold are candidates for copies; the pixels decide. Of a curation, the patches that it
    left out as copies are coloured. The counts are logarithmic, because copies are few.

    Args:
        vectors: (n, d), of the encoder that the threshold is of.
        threshold: a cosine, or a curation of these patches that looked for copies.
        sample: of more patches than this, so many are asked about at random; neighbours are looked for among all.
        seed: of the random patches.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if there are fewer than two vectors, the curation is of other patches or did not look for copies,
            or matplotlib is missing.
        VectorError: if a vector is zero or not finite.
    """
    values = np.asarray(vectors)
    if values.ndim != 2 or len(values) < 2 or sample < 1:
        raise ConfigError(f"neighbours take at least 2 vectors (n, d); these have {values.shape}, sample is {sample}")
    limit = _threshold_of(threshold) if isinstance(threshold, Curation) else threshold
    rows = sample_rows(np.arange(len(values)), sample, seed)
    similarity = largest_similarity(values, values, query_rows=rows, but_itself=True)
    ax = axes_or_new(ax)
    low = min(float(similarity.min()), 1.0 if limit is None else limit)
    edges = np.linspace(low, 1.0 + 1e-6, _BINS + 1).tolist()
    ax.hist(similarity, bins=edges, color=hex_colour("not_drawn"), log=True, label="all patches")
    if isinstance(threshold, Curation):
        copies = similarity[_left_out_as_copies(threshold, len(values))[rows]]
        ax.hist(copies, bins=edges, color=hex_colour("copy"), log=True, label=f"left out as copies ({len(copies):,})")
    if limit is not None:
        share = float((similarity >= limit).mean())
        ax.axvline(limit, color=hex_colour("leakage"), label=f"threshold {limit:.3g} ({share:.1%} at or above)")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize="small", borderaxespad=0.2)
    ax.set(xlabel="cosine to the nearest other patch", ylabel="patches", ylim=(0.7, None))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _threshold_of(curation: Curation) -> float:
    """The candidates' threshold of a curation."""
    threshold = (curation.run.get("copies") or {}).get("threshold")
    if threshold is None:
        raise ConfigError(
            f"the curation {curation.name} did not look for copies by a threshold; give a cosine, such as threshold=0.9"
        )
    return float(threshold)


def _left_out_as_copies(curation: Curation, count: int) -> NDArray[np.bool_]:
    """Which patches a curation decided to be copies of others, bool (n,)."""
    decisions = [name for part in curation.parts(["decision"]) for name in part["decision"].to_pylist()]
    if len(decisions) != count:
        raise ConfigError(
            f"the curation {curation.name} is of {len(decisions):,} patches and there are {count:,} vectors; give "
            "those of its store"
        )
    return np.array([name == "copy" for name in decisions])
