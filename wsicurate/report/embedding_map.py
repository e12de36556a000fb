"""Where patches lie in the plane by their vectors: by UMAP where it is installed, else the principal components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plane(vectors: NDArray[np.floating], seed: int = 0) -> tuple[NDArray[np.float32], str]:
    """Places of vectors, (n, d), in the plane, float32 (n, 2), and the name of the method.

    UMAP: McInnes, Healy and Melville, 2018; cosine, 15 neighbours.
    """
    values = np.asarray(vectors, dtype=np.float32)
    if len(values) < 3:
        return np.zeros((len(values), 2), dtype=np.float32), "none"
    try:
        import umap
    except ImportError:
        from sklearn.decomposition import PCA

        units = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        found = PCA(n_components=2, svd_solver="full").fit_transform(units)
        return np.asarray(found, dtype=np.float32), "principal components"
    found = umap.UMAP(metric="cosine", random_state=seed, n_neighbors=min(15, len(values) - 1)).fit_transform(values)
    return np.asarray(found, dtype=np.float32), "UMAP"
