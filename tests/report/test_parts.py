"""What the page is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from wsicurate.curation.evaluation.catalogue import CATALOGUE
from wsicurate.report.cluster_mosaics import members_of_clusters
from wsicurate.report.copy_strips import registered
from wsicurate.report.embedding_map import plane
from wsicurate.report.verdict import EXPLAINED, verdict


def compared(baseline: str, kind: str, verdicts: list[str]) -> list[dict[str, Any]]:
    return [{"baseline": baseline, "kind": kind, "verdict": one, "difference": 1.0} for one in verdicts]


def test_the_verdict_does_not_flatter() -> None:
    same = "not discriminating"
    comparisons = compared("random", "outcome", ["better", "better", same, "worse"]) + compared(
        "random", "diagnostic", [same, same]
    )
    assert verdict({"comparisons": comparisons}) == [
        "Against random, of 4 outcomes: better on 2, worse on 1.",
        "Not distinguished from random on any of 2 diagnostics of geometry and composition.",
    ]
    alone = verdict({"comparisons": compared("random", "diagnostic", ["better"])})
    assert alone[-1].startswith("No labels were given, so what can be learnt from the subset was not measured")
    assert verdict(None)[0].startswith("This curation was not evaluated")
    assert "no evaluation encoder" in verdict({"reason": "there is no evaluation encoder"})[0]


def test_every_measure_is_explained() -> None:
    assert set(CATALOGUE) == set(EXPLAINED)


@pytest.mark.parametrize("parts", [1, 3])
def test_members_are_those_of_the_whole_computed_at_once(rng: np.random.Generator, parts: int) -> None:
    vectors = rng.normal(size=(60, 8)).astype(np.float16)
    codes = rng.integers(0, 4, 60)

    def in_parts() -> Iterator[tuple[int, np.ndarray]]:
        for part in np.array_split(np.arange(60), parts):
            yield int(part[0]), vectors[part]

    found = members_of_clusters(in_parts, codes, np.array([0, 2, 3]), 5)
    units = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    assert set(found) == {0, 2, 3}
    for cluster, members in found.items():
        own = np.flatnonzero(codes == cluster)
        mean = units[own].sum(axis=0)
        order = own[np.argsort(-(units[own] @ mean), kind="stable")]
        assert members.nearest.tolist() == order[:5].tolist() and members.farthest.tolist() == order[::-1][:5].tolist()
        assert set(members.random.tolist()) <= set(own.tolist())


def test_a_registration_is_drawn_where_both_show_the_same(rng: np.random.Generator) -> None:
    tissue = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    first, second = tissue[:128, :128], tissue[16:144, 32:160]
    picture = registered(first, second, np.array([[1.0, 0, 32], [0, 1.0, 16]]), 128)
    both = picture[:, 2 * 131 :]
    inside = np.s_[24:120, 40:120]
    assert picture.shape == (128, 3 * 128 + 6, 3) and (both[inside] == first[inside]).all()
    assert (both[:10, :20] > first[:10, :20] // 4).all() and not (both[:10, :20] == first[:10, :20]).all()


def test_the_plane_shows_what_lies_apart(rng: np.random.Generator) -> None:
    vectors = np.concatenate([rng.normal(0, 0.1, (20, 6)) + 1, rng.normal(0, 0.1, (20, 6)) - [1, 1, 1, -1, -1, -1]])
    places, _ = plane(vectors)
    gap = np.linalg.norm(places[:20].mean(axis=0) - places[20:].mean(axis=0))
    assert places.shape == (40, 2) and gap > 3 * places[:20].std()
    assert plane(vectors[:2])[0].shape == (2, 2)
