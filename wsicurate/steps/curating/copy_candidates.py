"""Pairs of patches that may be copies: the most similar ones by embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.curation.neighbours.nearest import Neighbours, nearest_neighbours
from wsicurate.engine.cache import Stages
from wsicurate.steps.curating.copy_settings import CopiesConfig
from wsicurate.steps.curating.pool import Scratch, digest_of, vectors_hashes, vectors_on_disk
from wsicurate.store.store import Store


class Candidates:
    """The pairs that the embedding proposes, sorted: int64 (p, 2), and their similarity, float32 (p,).

    Args:
        store: that was embedded by ``encoder``.
        encoder: its name.
        vectors: float16, (n, d), of all patches.
        eligible: int64, the rows that are searched.
        threshold: the least similarity of a pair.
        config: settings.
        stages: keeps the pairs; None: nothing does.
        scratch: where vectors are laid out; None keeps them in memory.
    """

    def __init__(
        self,
        store: Store,
        encoder: str,
        vectors: NDArray[np.float16],
        eligible: NDArray[np.int64],
        threshold: float,
        config: CopiesConfig,
        stages: Stages | None,
        scratch: Scratch | None,
    ) -> None:
        self.store = store
        self.encoder = encoder
        self.eligible = eligible
        self.threshold = threshold
        self.config = config
        self.stages = stages
        self.scratch = scratch
        self._vectors = vectors
        self._base: NDArray[np.float16] | None = None

    def own(self) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], str, float | None]:
        """Pairs of the store's patches, how they were found, and the recall of that."""

        def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
            near = self._neighbours(self.base())
            pairs, similarity = near.pairs(self.threshold)
            facts = {"method": near.method, "recall": near.recall}
            return {"pairs": self.eligible[pairs], "similarity": similarity}, facts

        arrays, facts = self._run(compute, {})
        return (arrays["pairs"], arrays["similarity"]), facts["method"], facts["recall"]

    def beside(self, evaluation: Store, number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Pairs of the store's patches and those of an evaluation store."""

        def compute() -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
            if self.scratch is None:
                theirs = evaluation.vectors(self.encoder)
            else:
                theirs = vectors_on_disk(evaluation, self.encoder, self.scratch, f"evaluation-{number}")
            near = self._neighbours(theirs, self.base())
            pairs, similarity = near.query_pairs(self.threshold)
            pairs[:, 0] = self.eligible[pairs[:, 0]]
            return {"pairs": pairs, "similarity": similarity}, {}

        arrays, _ = self._run(compute, {"evaluation": vectors_hashes(evaluation, self.encoder)})
        return arrays["pairs"], arrays["similarity"]

    def base(self) -> NDArray[np.float16]:
        """Vectors of the patches that are searched."""
        if self._base is None:
            if len(self.eligible) == len(self._vectors):
                self._base = self._vectors
            elif self.scratch is None:
                self._base = self._vectors[self.eligible]
            else:
                self._base = self.scratch.rows("eligible", self._vectors, self.eligible)
        return self._base

    def _neighbours(self, base: NDArray[np.float16], queries: NDArray[np.float16] | None = None) -> Neighbours:
        k, seed = self.config.candidates, self.config.seed
        if not len(self.eligible):
            nothing = np.empty((0, 0))
            return Neighbours(
                index=nothing.astype(np.int64), similarity=nothing.astype(np.float32), recall=None, method="exact"
            )
        return nearest_neighbours(base, k, seed=seed, queries=queries, least=self.threshold)

    def _run(
        self, compute: Callable[[], tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]], inputs: Mapping[str, Any]
    ) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        if self.stages is None:
            return compute()
        return self.stages.run(
            "copies-candidates",
            {
                "version": __version__,
                "vectors": vectors_hashes(self.store, self.encoder),
                "among": digest_of(self.eligible),
                "threshold": self.threshold,
                "candidates": self.config.candidates,
                "seed": self.config.seed,
                **inputs,
            },
            compute,
        )
