"""Parts that other packages bring: masks, readers, encoders and clusterings, found by their entry points.

A package names its part in its own metadata, in one of the groups below (`docs/extending.md` has an example of each)::

    [project.entry-points."wsicurate.masks"]
    my-mask = "my_package.masks:MyMask"

Nothing of another package is imported before the name is asked for. Our own names cannot be taken.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from wsicurate.errors import ConfigError, with_name

#: What others may bring.
Group = Literal["masks", "readers", "encoders", "clusterings"]


@dataclass(frozen=True)
class Plugin:
    """A part of another package.

    Attributes:
        name: that it is asked for by.
        value: ``module:object``.
        package: the package that brings it, with its version, for records: ``my-package 1.2``.
    """

    name: str
    value: str
    package: str

    def load(self) -> Any:
        """Import the object.

        Raises:
            ConfigError: if that fails, whatever the package does when it is imported.
        """
        try:
            return EntryPoint(name=self.name, value=self.value, group="").load()
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{self.name!r} of {self.package} cannot be imported from {self.value}: {with_name(error)}; "
                "correct or remove that package"
            ) from error


@functools.cache
def plugins(group: Group) -> dict[str, Plugin]:
    """What is installed of a group, by name, sorted.

    Raises:
        ConfigError: if two packages bring one name.
    """
    found: dict[str, Plugin] = {}
    for point in sorted(entry_points(group=f"wsicurate.{group}"), key=lambda point: (point.name, point.value)):
        package = "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        plugin = Plugin(point.name, point.value, package)
        if found.setdefault(point.name, plugin).value != point.value:
            raise ConfigError(
                f"{point.name!r} of the {group} is brought by {found[point.name].package} and by {package}; remove one"
            )
    return found
