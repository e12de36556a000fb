"""How well the nearest neighbours among labelled patches tell a patch's label, by each of some encoders.

python examples/knn_accuracy.py STORE CURATION ENCODER...

Among the patches that the curation selected, which are no copies of each other. Neighbours of the patient's own are
left out where patients are known.
"""

import sys

import numpy as np
import pyarrow as pa

import wsicurate


def knn_accuracy(vectors: np.ndarray, labels: np.ndarray, patients: np.ndarray, neighbours: int = 10) -> float:
    """Mean over the labels of the share of patches whose nearest neighbours are mostly of their own label.

    Args:
        vectors: (n, d).
        labels: int, (n,).
        patients: int, (n,); neighbours of the same patient do not count, negative ones are of nobody.
        neighbours: how many of them vote, each with its cosine similarity.
    """
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = units @ units.T
    similarities[(patients[:, None] == patients) & (patients[:, None] >= 0)] = -np.inf
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :neighbours]
    votes = np.zeros((len(labels), labels.max() + 1))
    for column in nearest.T:
        weights = np.exp(similarities[np.arange(len(labels)), column] / 0.07)
        votes[np.arange(len(labels)), labels[column]] += weights
    is_right = votes.argmax(axis=1) == labels
    return float(np.mean([is_right[labels == label].mean() for label in np.unique(labels)]))


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """Texts as numbers, -1 where there is none."""
    values = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return values.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def main(path: str, curation: str, *encoders: str) -> None:
    """Print the accuracy of each encoder."""
    store = wsicurate.open_store(path)
    manifest = store.curation(curation).manifest()
    labels = codes(manifest["label"])
    chosen = manifest["selected"].to_numpy() & (labels >= 0)
    print(f"{chosen.sum():,} labelled patches, chance {1 / len(np.unique(labels[chosen])):.3f}")
    for encoder in encoders:
        vectors = store.vectors(encoder).astype(np.float32)[chosen]
        accuracy = knn_accuracy(vectors, labels[chosen], codes(manifest["patient"])[chosen])
        print(f"{encoder}: balanced 10-NN accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
