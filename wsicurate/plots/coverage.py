"""How much of a store a subset covers, against the size of the subset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import CATEGORIES
from wsicurate.curation.evaluation.coverage import coverage_at, covering_distances, sample_rows, typical_distance
from wsicurate.curation.evaluation.measures import COVERAGE_SAMPLE
from wsicurate.curation.selection.baselines import plain_random
from wsicurate.curation.selection.draw import Groups
from wsicurate.errors import ConfigError
from wsicurate.plots.axes import axes_or_new
from wsicurate.store.manifest import Curation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Who selected, and their subsets.
Subsets = Mapping[str, Sequence[Curation | NDArray[np.bool_]]]


def coverage_against_budget(
    vectors: NDArray[np.floating],
    subsets: Subsets,
    *,
    delta: float | None = None,
    random_draws: int = 5,
    sample: int = COVERAGE_SAMPLE,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of patches that have a selected one within ``delta``, against the share that is selected.

    The measure is the evaluation's ``coverage_at_delta``. Lines are means, bands go from the least to the largest of
    the subsets of a size; random draws of the same sizes stand beside them.

    Args:
        vectors: (n, d), of an encoder that did not select: the one that did flatters itself.
        subsets: name -> subsets of several sizes: curations of the store, or bool (n,). Several of one size, such as
            those of several seeds, make a band.
        delta: cosine distance; by default the median distance of a patch to its nearest neighbour.
        random_draws: how many random subsets of each size are drawn; 0 for none.
        sample: patches asked about, at most.
        seed: of the random subsets and the patches asked about.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if a subset has another length or is empty, or matplotlib is missing.
        VectorError: if a vector is zero or not finite.
    """
    values = np.asarray(vectors)
    if values.ndim != 2 or len(values) < 2:
        raise ConfigError(f"coverage takes at least 2 vectors (n, d); these have the shape {values.shape}")
    masks = {name: [_mask(one, len(values), name) for one in given] for name, given in subsets.items()}
    sizes = sorted({int(mask.sum()) for own in masks.values() for mask in own})
    if not sizes:
        raise ConfigError('there is no subset; give some, such as {"balanced": [store.curation("default")]}')
    everything = np.ones(len(values), dtype=bool)
    within = typical_distance(values, everything, seed=seed) if delta is None else delta
    if random_draws > 0:
        same = np.zeros(len(values), dtype=np.int32)
        groups = Groups(site=same, patient=same, slide=same)
        masks["random"] = [
            plain_random.draw(size, groups=groups, seed=seed + draw).selected
            for size in sizes
            for draw in range(random_draws)
        ]
    queries = sample_rows(np.arange(len(values)), sample, seed)
    ax = axes_or_new(ax)
    for number, (name, own) in enumerate(masks.items()):
        colour = CATEGORIES[-1] if name == "random" else CATEGORIES[number % (len(CATEGORIES) - 1)]
        found = defaultdict(list)
        for mask in own:
            found[mask.mean()].append(coverage_at(covering_distances(values, mask, queries), within))
        shares = sorted(found)
        ax.plot(
            [100 * share for share in shares],
            [100 * np.mean(found[share]) for share in shares],
            marker="os^Dv<>"[number % 7],
            color=colour,
            linestyle="--" if name == "random" else "-",
            label=name,
        )
        low, high = ([100 * end(found[share]) for share in shares] for end in (min, max))
        ax.fill_between([100 * share for share in shares], low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="selected, % of the patches", ylabel=f"within a cosine distance of {within:.3g}, % of the patches")
    for text in ax.legend(frameon=False).get_texts():
        text.set_parse_math(False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _mask(subset: Curation | NDArray[np.bool_], count: int, name: str) -> NDArray[np.bool_]:
    """Which patches a subset holds, bool (n,)."""
    if isinstance(subset, Curation):
        mask = np.concatenate([part["selected"].to_numpy() for part in subset.parts(["selected"])]).astype(bool)
    else:
        mask = np.asarray(subset)
    if mask.dtype != bool or mask.shape != (count,) or not mask.any():
        raise ConfigError(
            f"a subset of {name!r} is {mask.dtype} of shape {mask.shape} with {np.count_nonzero(mask):,} selected; "
            f"give bool of shape ({count},), one for each vector, at least one of them true"
        )
    return mask
