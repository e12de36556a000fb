from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsicurate.config import CurateConfig, TileConfig
from wsicurate.errors import ConfigError
from wsicurate.steps.recipes import all_recipes, find_recipe, recipe_names
from wsicurate.tissue.find import find_mask


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = ", "not TOML"),
        ("[curate]\nbudge = 1", "no setting 'budge'"),
        ("[slides]\nx = 1", "may have the sections"),
        ("departures = 5", "departures is 5; give a list"),
        ('needs = "seeds, nothing"', "needs names 'nothing', which is no setting of curate"),
        ("title = 1", "title is 1; give some text"),
        ("source = [1]", "source is "),
        ("tile = 5", "may have the sections"),
        ('[curate]\nbudget = "x"', "section curate: --budget is 'x'"),
        ("[embed]\nencoder = 5", "section embed: --encoder is 5"),
        ("[tile]\nmpp = true", "section tile: --mpp is True"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_recipe_of_ones_own_is_checked(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        find_recipe(tmp_path / "mine.toml")


def test_recipes_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "large.toml").write_bytes(b"#" * 2_000_000)
    for name, words in (("pipe", "it is no file"), ("folder", "it is no file"), ("large", "more than 1 MB")):
        with pytest.raises(ConfigError, match=words):
            find_recipe(tmp_path / f"{name}.toml")
    with pytest.raises(ConfigError, match="--recipe is 5; choose one of"):
        find_recipe(5)  # type: ignore[arg-type]
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        find_recipe(tmp_path / "latin.toml")


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(ConfigError, match="choose one of chen-krishnan-2022, dinov2-2023"):
        find_recipe("dino")
    with pytest.raises(ConfigError, match="--recipe is empty; choose one of"):
        find_recipe("")
    with pytest.raises(ConfigError, match=r"nothing.toml cannot be read: No such file or directory$"):
        find_recipe("nothing.toml")
