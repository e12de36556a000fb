"""Patches in the plane by their vectors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import CATEGORIES
from wsicurate.errors import ConfigError
from wsicurate.plots.axes import OTHERS, add_legend, as_texts, axes_or_new, colours_of
from wsicurate.report.embedding_map import plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def embedding_map(
    vectors: NDArray[np.floating],
    *,
    by: object = None,
    most: int = 10_000,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw vectors as points of the plane: by UMAP where umap-learn is installed, else their principal components.

    Args:
        vectors: (n, d), such as ``store.vectors("stain-texture")``.
        by: a text for each patch, whose groups have colours: a list, an array or a column of a manifest.
        most: of more patches than this, so many are drawn at random.
        seed: of the random patches and of UMAP.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if an argument is wrong, or matplotlib is missing.
    """
    values = np.asarray(vectors)
    if values.ndim != 2 or len(values) < 3 or most < 3:
        raise ConfigError(f"a map takes at least 3 vectors (n, d); these have the shape {values.shape}, most is {most}")
    texts = None if by is None else as_texts(by, len(values))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(values))[:most])
    places, method = plane(values[chosen], seed)
    ax = axes_or_new(ax, 7.5, 5.0)
    size = float(np.clip(12_000 / len(chosen), 2, 24))
    if texts is None:
        ax.scatter(places[:, 0], places[:, 1], s=size, c=CATEGORIES[0], alpha=0.7, linewidths=0, rasterized=True)
    else:
        shown = [texts[row] for row in chosen]
        colours = colours_of(shown)
        groups = np.array([text if text in colours else OTHERS for text in shown], dtype=object)
        order = np.random.default_rng(seed).permutation(len(chosen))  # so that no group hides the others
        ax.scatter(
            places[order, 0],
            places[order, 1],
            s=size,
            c=[colours[group] for group in groups[order]],
            alpha=0.7,
            linewidths=0,
            rasterized=True,
        )
        add_legend(ax, colours, Counter(groups.tolist()))
    ax.set(xticks=[], yticks=[], xlabel=f"{method}, first", ylabel=f"{method}, second")
    ax.set_title(
        f"{len(chosen):,} of {len(values):,} patches" if len(chosen) < len(values) else f"{len(values):,} patches"
    )
    ax.spines[["top", "right"]].set_visible(False)
    return ax
