from __future__ import annotations

from typing import Any

import pytest

from wsicurate.curation.clustering.find import find_clustering
from wsicurate.curation.clustering.hierarchy import Hierarchy
from wsicurate.errors import ConfigError


class Needy(Hierarchy):
    def __init__(self, what: str) -> None:
        super().__init__()


def test_the_default_is_known_by_its_name_alone() -> None:
    found = find_clustering("hierarchy")
    assert found.clustering == Hierarchy() and found.facts is None
    assert find_clustering(Hierarchy()).facts == {
        "name": "wsicurate.curation.clustering.hierarchy.Hierarchy",
        "package": None,
        "settings": {},
    }


@pytest.mark.parametrize(
    ("clustering", "words"),
    [
        ("leiden", "--clustering is 'leiden'; choose one of hierarchy"),
        (Needy, "Needy cannot be made without arguments"),
        (object(), "--clustering builtins.object has no 'has_centroids'"),
        (type("Odd", (Hierarchy,), {"settings": {"x": {1, 2}}})(), "Odd are no plain values"),
        (type("Nan", (Hierarchy,), {"settings": {"x": float("nan")}})(), "Nan are no plain values"),
    ],
)
def test_what_is_no_clustering_is_named(clustering: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_clustering(clustering)
