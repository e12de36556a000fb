from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.clustering.published import nested_clusters
from wsicurate.errors import CurationError


def test_ids_become_numbers_without_gaps_and_know_their_parents() -> None:
    ids = np.array([[70, 9], [-1, -1], [3, 4], [70, 9], [5, 9]], dtype=np.int32)
    nested = nested_clusters(ids, ("level_1", "level_2"))
    assert nested.clusters.tolist() == [[2, 1], [-1, -1], [0, 0], [2, 1], [1, 1]]
    assert [each.tolist() for each in nested.ids] == [[3, 5, 70], [4, 9]]
    assert [each.tolist() for each in nested.parents] == [[0, 1, 1]]
    assert nested.counts == (3, 2)


def test_levels_that_do_not_nest_are_refused_with_an_example() -> None:
    ids = np.array([[7, 1], [7, 2], [8, 1], [8, 3]], dtype=np.int32)
    words = "cluster 7 of fine has tiles in clusters 1 and 2 of coarse, and 1 others are like it"
    with pytest.raises(CurationError, match=words):
        nested_clusters(ids, ("fine", "coarse"))
