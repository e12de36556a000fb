"""Clusterings by name: ours, and those of other packages by their entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from wsicurate.curation.clustering.base import Clustering
from wsicurate.curation.clustering.hierarchy import Hierarchy
from wsicurate.errors import ConfigError, in_words
from wsicurate.plugins import plugins
from wsicurate.validation import plain_settings, shown

#: The clustering of curations whose record names none.
DEFAULT = "hierarchy"

#: What ``--clustering`` knows without other packages.
CLUSTERINGS: Mapping[str, Clustering] = MappingProxyType({DEFAULT: Hierarchy()})


@dataclass(frozen=True)
class FoundClustering:
    """A clustering that was asked for, not fitted.

    Attributes:
        name: of it; for an object, module and class.
        package: that brings it, with its version; None for ours and for objects.
        clustering: itself.
    """

    name: str
    package: str | None
    clustering: Clustering

    @property
    def facts(self) -> dict[str, Any] | None:
        """What a curation's record says of it, in its settings; None for the default."""
        if self.name == DEFAULT:
            return None
        return {"name": self.name, "package": self.package, "settings": dict(self.clustering.settings)}


def find_clustering(clustering: str | object) -> FoundClustering:
    """A clustering by its name, or an object (or class) of one's own.

    Raises:
        ConfigError: if there is none of that name, its package cannot be imported, it lacks something of `Clustering`,
            or its settings are no plain values.
    """
    if not isinstance(clustering, str):
        kind = clustering if isinstance(clustering, type) else type(clustering)
        return _checked(f"{kind.__module__}.{kind.__qualname__}", None, clustering)
    if clustering in CLUSTERINGS:
        return FoundClustering(clustering, None, CLUSTERINGS[clustering])
    brought = plugins("clusterings")
    if clustering not in brought:
        known = ", ".join([*CLUSTERINGS, *(name for name in brought if name not in CLUSTERINGS)])
        raise ConfigError(f"--clustering is {shown(clustering)}; choose one of {known}")
    plugin = brought[clustering]
    return _checked(plugin.name, plugin.package, plugin.load())


def _checked(name: str, package: str | None, found: Any) -> FoundClustering:
    """An object, or one of a class, that has all that a clustering must have."""
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # whatever another package raises
            raise ConfigError(f"--clustering {name} cannot be made without arguments: {in_words(error)}") from error
    for part in ("has_centroids", "settings", "fit", "assign", "to_arrays", "from_arrays"):
        if not hasattr(found, part):
            raise ConfigError(
                f"--clustering {name} has no {part!r}; it must have what "
                "wsicurate.curation.clustering.base.Clustering lists"
            )
    plain_settings(found.settings, f"--clustering {name}")
    return FoundClustering(name, package, found)
