"""Recipes: published settings by name, and a laboratory's own, as TOML."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from wsicurate.config import CurateConfig, TileConfig
from wsicurate.errors import ConfigError
from wsicurate.toml_files import parse_toml, read_toml
from wsicurate.validation import checked, require_path, shown

#: Sections that a recipe may have, and the settings that each may hold.
_SECTIONS: Mapping[str, frozenset[str]] = {
    "tile": frozenset(field.name for field in dataclasses.fields(TileConfig)),
    "embed": frozenset({"encoder"}),
    "curate": frozenset(field.name for field in dataclasses.fields(CurateConfig)),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the steps, with their source.

    Attributes:
        name: of the recipe.
        title: one line.
        source: where the settings were published.
        departures: where they depart from it.
        needs: options that the user must give besides.
        tile, embed, curate: settings that differ from the defaults.
    """

    name: str
    title: str
    source: str
    departures: tuple[str, ...]
    needs: tuple[str, ...]
    tile: Mapping[str, Any]
    embed: Mapping[str, Any]
    curate: Mapping[str, Any]


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    return tuple(sorted(_files()))


def all_recipes() -> Iterator[Recipe]:
    """The recipes that come with the package, sorted by name."""
    for name in recipe_names():
        yield find_recipe(name)


def find_recipe(name: str | Path) -> Recipe:
    """A recipe by its name, or a TOML file of one's own.

    Raises:
        ConfigError: if there is none, it is no TOML, or it holds settings that no step has.
    """
    files = _files()
    if str(name) in files:
        return _parsed(str(name), parse_toml(files[str(name)], f"the recipe {name}"))
    if not str(name).endswith(".toml"):
        raise ConfigError(f"--recipe is {shown(name)}; choose one of {', '.join(sorted(files))}, or give a .toml file")
    path = require_path("--recipe", name)
    return _parsed(path.stem, read_toml(path, "the recipe"))


def check_needs(recipe: Recipe, config: CurateConfig) -> None:
    """Raise `ConfigError` unless the options that a recipe needs are given."""
    for name in recipe.needs:
        if not getattr(config, name):
            raise ConfigError(f"the recipe {recipe.name} needs --{name.replace('_', '-')}; see wsicurate recipes")


def _files() -> dict[str, str]:
    folder = resources.files("wsicurate") / "recipes"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


def _parsed(name: str, document: Mapping[str, Any]) -> Recipe:
    texts = {"title": str, "source": str, "departures": Sequence[str], "needs": Sequence[str]}
    for key, value in document.items():
        if key in texts:
            continue
        if key not in _SECTIONS or not isinstance(value, dict):
            raise ConfigError(
                f"the recipe {name} has {key} = {shown(value)}; it may have the sections {', '.join(sorted(_SECTIONS))}"
            )
        unknown = sorted(set(value) - _SECTIONS[key])
        if unknown:
            raise ConfigError(f"the recipe {name}, section {key}: {key} has no setting {unknown[0]!r}")
    for section, config, sections in (
        ("tile", TileConfig, ("tile",)),
        ("embed", CurateConfig, ("embed",)),
        ("curate", CurateConfig, ("embed", "curate")),
    ):
        try:
            config(**{key: value for part in sections for key, value in document.get(part, {}).items()})
        except ConfigError as error:
            raise ConfigError(f"the recipe {name}, section {section}: {error}") from error
    words = {
        key: checked(f"the recipe {name}: {key}", document.get(key, "" if kind is str else ()), kind)
        for key, kind in texts.items()
    }
    for need in words["needs"]:
        if need not in _SECTIONS["curate"]:
            raise ConfigError(f"the recipe {name}: needs names {need!r}, which is no setting of curate")
    return Recipe(
        name=name,
        tile=document.get("tile", {}),
        embed=document.get("embed", {}),
        curate=document.get("curate", {}),
        **words,
    )
