"""Tissue masks by name: ours, those of other packages (entry points ``wsicurate.masks``), and objects from Python."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, MaskError, WsicurateError, with_name
from wsicurate.plugins import Plugin, plugins
from wsicurate.tissue.masks import otsu_mask
from wsicurate.tissue.protocol import Picture
from wsicurate.tissue.stitching import require_mask, tiled_mask, whole_mask
from wsicurate.tissue.tiatoolbox_masks import tiatoolbox_morphological, tiatoolbox_otsu
from wsicurate.validation import shown

#: The masks of ours that ``--mask`` knows. A mask that changes its results gets a new version: stores record it.
MASKS: Mapping[str, tuple[Any, int]] = MappingProxyType(
    {
        "otsu": (otsu_mask, 1),
        "tiatoolbox-otsu": (tiatoolbox_otsu, 1),
        "tiatoolbox-morphological": (tiatoolbox_morphological, 1),
    }
)


@dataclass(frozen=True)
class NamedMask:
    """A tissue mask and what stores record of it.

    Attributes:
        mask: a `TissueMask` or a `TiledTissueMask`.
        name: of the mask.
        version: of its results.
        package: that it is part of, or its module where that is part of none; None for ours.
    """

    mask: Any
    name: str
    version: str
    package: str | None = None

    @property
    def recorded(self) -> str:
        """What stores record: ``otsu-1``, or ``name-version (package)`` for one that is not ours."""
        return f"{self.name}-{self.version}" + ("" if self.package is None else f" ({self.package})")

    def tissue(self, overview: NDArray[np.uint8], mpp: float, picture: Callable[[float], Picture]) -> NDArray[np.bool_]:
        """Find the tissue of a slide.

        Args:
            overview: uint8, (h, w, 3), RGB: the whole slide.
            mpp: µm per pixel of the overview.
            picture: the slide at about so many µm per pixel, for masks that want to see another resolution.

        Returns:
            bool, (h, w), an array of its own: True on tissue. What was found at another resolution is reduced to the
            overview's: a pixel is tissue where half of it or more is.

        Raises:
            MaskError: if the mask fails, or gives anything else.
        """
        shape = overview.shape[:2]
        try:
            if hasattr(self.mask, "predict"):
                return tiled_mask(self.mask, picture, shape)
            wanted: float | None = getattr(self.mask, "mpp", None)
            if wanted is not None:
                return whole_mask(self.mask, picture, wanted, shape)
            found = self.mask(overview, mpp)
            return found if self.package is None else require_mask(found, shape).copy()
        except (WsicurateError, MemoryError):
            raise
        except Exception as error:
            raise MaskError(f"the tissue mask {self.recorded} failed: {with_name(error)}") from error


def find_mask(mask: Any) -> NamedMask:
    """The tissue mask of that name, or an object with what stores record of it.

    Args:
        mask: the name of one of ours or of another package; or a `TissueMask` or `TiledTissueMask`.

    Raises:
        ConfigError: if there is none of that name, its package cannot be imported, or the object is no mask.
    """
    if not isinstance(mask, str):
        name = getattr(mask, "name", None) or getattr(mask, "__name__", None) or type(mask).__name__
        package, version = _package_of(getattr(mask, "__module__", None) or type(mask).__module__)
        return _named(mask, name, version, package)
    if mask in MASKS:
        function, number = MASKS[mask]
        return NamedMask(function, mask, str(number))
    if mask in plugins("masks"):
        return _brought(plugins("masks")[mask])
    known = [*sorted(MASKS), *plugins("masks")]
    raise ConfigError(f"--mask is {mask!r}; choose one of {', '.join(known)}")


@functools.cache
def _brought(plugin: Plugin) -> NamedMask:
    """The mask of another package, made once per process: networks are loaded once."""
    mask = plugin.load()
    if isinstance(mask, type):
        try:
            mask = mask()
        except Exception as error:
            raise ConfigError(
                f"the tissue mask {plugin.name!r} of {plugin.package} cannot be made: {with_name(error)}"
            ) from error
    package, _, version = plugin.package.rpartition(" ")
    return _named(mask, plugin.name, version, package or plugin.package)


def _named(mask: Any, name: Any, version: str, package: str) -> NamedMask:
    """A mask of another package or from Python, if it is one.

    Raises:
        ConfigError: which says what is wrong with it.
    """
    version = getattr(mask, "version", version)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the tissue mask {shown(mask)} has the name {shown(name)}; give it a text")
    called = f"the tissue mask {name!r}"
    if isinstance(version, bool) or not isinstance(version, str | int) or version == "":
        raise ConfigError(f"{called} has the version {shown(version)}; give it a whole number or a text")
    is_tiled = hasattr(mask, "predict")
    if isinstance(mask, type) or not callable(getattr(mask, "predict", mask)):
        raise ConfigError(f"{called} is {shown(mask)}; give a function, or an object that can be called or can predict")
    wanted = getattr(mask, "mpp", None)
    if (is_tiled or wanted is not None) and not (_is_number(wanted) and 0 < wanted < float("inf")):
        raise ConfigError(f"{called} has the mpp {shown(wanted)}; give µm per pixel")
    counts = {"tile_px": getattr(mask, "tile_px", None), "batch_tiles": getattr(mask, "batch_tiles", 1)}
    for fact, value in counts.items() if is_tiled else ():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{called} has the {fact} {shown(value)}; give a whole number, at least 1")
    return NamedMask(mask, name, str(version), package)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@functools.cache
def _package_of(module: str) -> tuple[str, str]:
    """The package that a module is part of and its version; the module itself and 0 where it is part of none."""
    top = module.partition(".")[0]
    found = metadata.packages_distributions().get(top) if top not in sys.builtin_module_names else None
    return (found[0], metadata.version(found[0])) if found else (module, "0")
