from __future__ import annotations

from pathlib import Path

import pytest

from wsicurate.config import CurateConfig, TileConfig
from wsicurate.errors import ConfigError
from wsicurate.steps.recipes import all_recipes, find_recipe, recipe_names, scaled_counts
from wsicurate.tissue.masks import find_mask


def test_every_recipe_makes_settings_and_says_where_it_comes_from() -> None:
    assert set(recipe_names()) == {
        "chen-krishnan-2022",
        "dinov2-2023",
        "hierarchical-2024",
        "patho-t1-2025",
        "patho-t2-2025",
    }
    for recipe in all_recipes():
        assert "arXiv" in recipe.source and recipe.title and recipe.departures
        find_mask(TileConfig(**recipe.tile).mask)
        CurateConfig(**recipe.curate)


def test_published_counts_are_scaled() -> None:
    published = (3_500_000, 35_000, 350, 62)
    assert scaled_counts(published, 350_000_000, 350_000_000) == published
    for patches in (2, 10, 60, 5_000, 2_000_000):
        counts = scaled_counts(published, 350_000_000, patches)
        assert list(counts) == sorted(set(counts), reverse=True)
        assert counts[-1] >= 1 and counts[0] <= max(1, patches // 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "not TOML"),
        ("[curate]\nbudge = 1", "no setting 'budge'"),
        ("[slides]\nx = 1", "may have the sections"),
    ],
)
def test_a_recipe_of_ones_own_is_checked(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        find_recipe(tmp_path / "mine.toml")


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(ConfigError, match="choose one of chen-krishnan-2022, dinov2-2023"):
        find_recipe("dino")
    with pytest.raises(ConfigError, match=r"nothing.toml cannot be read"):
        find_recipe("nothing.toml")
