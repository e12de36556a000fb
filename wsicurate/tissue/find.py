"""Tissue masks by name: ours, those of other packages by their entry points, and objects from Python."""

from __future__ import annotations

import functools
import io
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.errors import ConfigError, MaskError, SlideTimeoutError, with_name
from wsicurate.plugins import Plugin, plugins
from wsicurate.tissue.masks import otsu_mask
from wsicurate.tissue.protocol import Picture
from wsicurate.tissue.stitching import tiled_mask, whole_mask
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
class FoundMask:
    """A tissue mask and what stores record of it.

    Attributes:
        mask: a `TissueMask` or a `TiledTissueMask`.
        name: of the mask.
        version: of its results.
        package: that brings it, or its module where that is part of none; None for ours.
    """

    mask: Any
    name: str
    version: str
    package: str | None = None

    @property
    def recorded(self) -> str:
        """What stores record: ``otsu-1``, or ``name-version (package)`` for one that is not ours."""
        return f"{self.name}-{self.version}" + ("" if self.package is None else f" ({self.package})")

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the tissue mask {self.name!r}" + ("" if self.package is None else f" of {self.package}")

    def tissue(self, overview: NDArray[np.uint8], mpp: float, picture: Callable[[float], Picture]) -> NDArray[np.bool_]:
        """Find the tissue of a slide.

        Args:
            overview: uint8, (h, w, 3), RGB: the whole slide. It is left as it is.
            mpp: µm per pixel of the overview.
            picture: the slide at about so many µm per pixel, for masks that want to see another resolution.

        Returns:
            bool, (h, w), an array of its own: True on tissue. What was found at another resolution is reduced to the
            overview's: a pixel is tissue where half of it or more is.

        Raises:
            MaskError: if the mask fails, or gives anything else.
        """
        shape = overview.shape[:2]
        if hasattr(self.mask, "predict"):
            return tiled_mask(self.mask, self._asked, picture, shape)
        if getattr(self.mask, "mpp", None) is not None:
            return whole_mask(self.mask, self._asked, picture, shape)
        return self._asked(self.mask, overview if self.package is None else overview.copy(), mpp)

    def _asked(
        self, ask: Callable[[NDArray[np.uint8], float], object], pixels: NDArray[np.uint8], mpp: float
    ) -> NDArray[np.bool_]:
        """What the mask gives for pixels: bool, of their shape without the colours.

        Raises:
            MaskError: if it raises anything, or gives something else.
        """
        shape = pixels.shape[:-1]
        try:
            found = ask(pixels, mpp)
        except SlideTimeoutError:  # raised by the clock, wherever the code is
            raise
        except (Exception, SystemExit) as error:  # whatever another package raises
            raise MaskError(f"{self.title} failed: {with_name(error)}") from error
        if not isinstance(found, np.ndarray):
            raise MaskError(f"{self.title} gave a {type(found).__name__}, not a numpy array of bool {shape}")
        if found.dtype != np.bool_ or found.shape != shape:
            raise MaskError(f"{self.title} gave {found.dtype} {found.shape}, not bool {shape}")
        return found if self.package is None else found.copy()


def find_mask(mask: str | object) -> FoundMask:
    """The tissue mask of that name, or an object (or class) of one's own.

    Raises:
        ConfigError: if there is none of that name, its package cannot be imported, or it is no mask.
    """
    if not isinstance(mask, str):
        package, version = _package_of(getattr(mask, "__module__", type(mask).__module__))
        return _checked(mask, getattr(mask, "__name__", type(mask).__name__), version, package)
    if mask in MASKS:
        function, number = MASKS[mask]
        return FoundMask(function, mask, str(number))
    brought = plugins("masks")
    if mask not in brought:
        known = ", ".join([*MASKS, *(name for name in brought if name not in MASKS)])
        raise ConfigError(f"--mask is {shown(mask)}; choose one of {known}")
    return _loaded(brought[mask])


@functools.cache
def _loaded(plugin: Plugin) -> FoundMask:
    """The mask of another package, made once per process: a network is loaded once."""
    package, _, version = plugin.package.rpartition(" ")
    return _checked(plugin.load(), plugin.name, version, package or plugin.package)


def _checked(mask: Any, name: str, version: str, package: str) -> FoundMask:
    """A mask that has all that it must have; what it says itself of name and version counts.

    Args:
        mask: an object, or a class, of which one is made.
        name, version: where it does not say.
        package: that brings it.

    Raises:
        ConfigError: which says what is wrong with it.
    """
    title = f"the tissue mask {name!r} of {package}"
    if isinstance(mask, type):
        try:
            mask = mask()
        except (Exception, SystemExit) as error:  # whatever another package raises
            raise ConfigError(f"{title} cannot be made without arguments: {with_name(error)}") from error
    name = getattr(mask, "name", name)
    version = getattr(mask, "version", version)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{title} has the name {shown(name)}; give it a text")
    if isinstance(version, bool) or not isinstance(version, str | int) or version == "":
        raise ConfigError(f"{title} has the version {shown(version)}; give it a whole number or a text")
    if not callable(getattr(mask, "predict", mask)):
        raise ConfigError(f"{title} is {shown(mask)}; give a function, or an object that can be called or has predict")
    is_tiled = hasattr(mask, "predict")
    wanted = getattr(mask, "mpp", None)
    is_number = isinstance(wanted, int | float) and not isinstance(wanted, bool) and 0 < wanted < math.inf
    if (is_tiled or wanted is not None) and not is_number:
        raise ConfigError(f"{title} has the mpp {shown(wanted)}; give µm per pixel")
    if is_tiled:
        for fact, value in {"tile_px": getattr(mask, "tile_px", None), "batch": getattr(mask, "batch", 1)}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{title} has the {fact} {shown(value)}; give a whole number, at least 1")
    return FoundMask(mask, name, str(version), package)


@functools.cache
def _package_of(module: str) -> tuple[str, str]:
    """The package that a module is part of and its version; the module itself and 0 where it is part of none."""
    found = metadata.packages_distributions().get(module.partition(".")[0])
    return (found[0], metadata.version(found[0])) if found else (module, "0")


def require_picklable(mask: str | object) -> None:
    """Refuse an object that worker processes cannot be sent.

    Raises:
        ConfigError: if it cannot be pickled, or is of the user's script, which workers do not run.
    """
    if isinstance(mask, str):
        return
    title = f"--mask is {shown(mask)}, which cannot be sent to worker processes"
    advice = "define it in a module that can be imported, or run in threads: tile(..., executor=ThreadPoolExecutor())"
    try:
        _OfModules(io.BytesIO(pickle.dumps(mask))).load()
    except Exception as error:  # whatever its own methods raise
        raise ConfigError(f"{title}: {with_name(error)}; {advice}") from error


class _OfModules(pickle.Unpickler):
    """Loads what a worker could load: nothing of the user's script."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            raise pickle.UnpicklingError(f"{name} is defined in a script or notebook")
        return super().find_class(module, name)
