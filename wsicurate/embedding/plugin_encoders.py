"""Encoders that other packages bring by the entry points ``wsicurate.encoders``: descriptors, and networks.

Two kinds of objects are taken: a class that makes a `Descriptor`, and one that loads a network
(`wsicurate.embedding.networks.plugin_models.NetworkEncoder`), which has a method ``load``. Either may say of itself
what a
preset says: the attributes in `FACTS`.
"""

from __future__ import annotations

from typing import Any

from wsicurate.embedding.presets import Preset
from wsicurate.errors import ConfigError, with_name
from wsicurate.plugins import Plugin, plugins
from wsicurate.validation import shown

#: Attributes of such an object that are fields of `Preset`.
FACTS = ("input_px", "mean", "std", "mpp", "licence", "terms", "gated", "url", "citation")


def plugin_presets() -> dict[str, Preset]:
    """Every encoder of another package, by name.

    Raises:
        ConfigError: as `plugin_preset`.
    """
    return {name: plugin_preset(plugin) for name, plugin in plugins("encoders").items()}


def plugin_preset(plugin: Plugin) -> Preset:
    """An encoder of another package, described by itself; the package is imported.

    Raises:
        ConfigError: if it cannot be imported, is no encoder, or says what cannot be.
    """
    found = plugin.load()
    if callable(getattr(found, "load", None)):
        source = f"plugin:{plugin.name}"
    elif isinstance(found, type) and "__call__" in dir(found) and hasattr(found, "dim"):
        source = f"descriptor:{plugin.value}"
    else:
        raise ConfigError(
            f"the encoder {plugin.name!r} of {plugin.package} is {shown(found)}; name a descriptor class, or an object "
            "or class with a method load"
        )
    facts = {name: value for name in FACTS if (value := getattr(found, name, None)) is not None}
    return Preset(**{**facts, "name": plugin.name, "source": source, "package": plugin.package})


def network_of(preset: Preset) -> Any:
    """The object that loads a network, made where the entry point names a class.

    Raises:
        ConfigError: if its package is not installed any more, or it cannot be made.
    """
    plugin = plugins("encoders").get(preset.place)
    if plugin is None:
        raise ConfigError(f"encoder {preset.name!r}: no installed package brings {preset.place!r}; install it again")
    found = plugin.load()
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:  # whatever another package raises
        raise ConfigError(
            f"the encoder {plugin.name!r} of {plugin.package} cannot be made: {with_name(error)}"
        ) from error
