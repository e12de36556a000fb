"""Axes to draw into, and how pictures, groups and their legends look in all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import CATEGORIES, COLOURS, hex_colour
from wsicurate.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What is left of groups once the colours are used up, and groups that are not known.
OTHERS, NONE = "others", "none"

#: The colour of these.
_GREY = CATEGORIES[-1]


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, NDArray[Any]]:
    """A figure of panels of a size in inches, and their axes, (rows, columns).

    Raises:
        ConfigError: if matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError(f'plots need {error.name}; run: pip install "wsicurate[plots]"') from error
    size = (columns * width, rows * height)
    return pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.8) -> Axes:
    """The axes that are given, or those of a new figure of a size in inches.

    Raises:
        ConfigError: if ``ax`` is something else, or matplotlib is not installed.
    """
    if ax is None:
        found: Axes = panels(1, 1, width, height)[1][0, 0]
        return found
    if not hasattr(ax, "imshow"):
        raise ConfigError(f"ax is {ax!r}; give axes of matplotlib, such as those of pyplot.subplots()")
    return ax


def show_pixels(ax: Axes, pixels: NDArray[np.uint8]) -> None:
    """An image, uint8 (h, w, 3), RGB, without ticks."""
    ax.imshow(pixels)
    ax.set_axis_off()


def require_patches(patches: object, ndim: int = 4) -> NDArray[np.uint8]:
    """The same array, once it is one of RGB pixels.

    Args:
        patches: uint8, (n, h, w, 3) or, for 3 dimensions, (h, w, 3).
        ndim: how many dimensions.

    Raises:
        ConfigError: if it is something else, or holds nothing.
    """
    array = np.asarray(patches)
    if array.dtype != np.uint8 or array.ndim != ndim or array.shape[-1] != 3 or not array.size:
        shape = "(n, h, w, 3)" if ndim == 4 else "(h, w, 3)"
        raise ConfigError(
            f"pixels are {array.dtype} of shape {array.shape}; give uint8 of shape {shape}, as store[...] does"
        )
    return array


def as_texts(by: object, count: int, name: str = "by") -> list[str]:
    """A text for each patch, from a list, an array or a column of a manifest; what is not known is ``none``.

    Raises:
        ConfigError: if there is not one for each.
    """
    to_pylist = getattr(by, "to_pylist", None)
    values = list(to_pylist()) if callable(to_pylist) else list(np.asarray(by, dtype=object).tolist())
    if len(values) != count:
        raise ConfigError(f"{name} has {len(values):,} entries for {count:,} patches; give one for each")
    return [NONE if value is None or value != value else str(value) for value in values]


def colours_of(texts: Sequence[str]) -> dict[str, str]:
    """The colour of each group, those with the most patches first; decisions have the colours of the report.

    Groups beyond seven are all grey, and called `OTHERS`.
    """
    present = dict.fromkeys(texts)
    if present.keys() <= COLOURS.keys() | {NONE}:
        found = {name: hex_colour(name) for name in COLOURS if name in present}
        return found | ({NONE: _GREY} if NONE in present else {})
    counts = {name: 0 for name in present if name != NONE}
    for text in texts:
        if text != NONE:
            counts[text] += 1
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    shown = len(CATEGORIES) - 1
    found = dict(zip(ordered[:shown], CATEGORIES, strict=False))
    if len(ordered) > shown:
        found[OTHERS] = _GREY
    return found | ({NONE: _GREY} if NONE in present else {})


def add_legend(ax: Axes, colours: Mapping[str, str], counts: Mapping[str, int]) -> None:
    """A legend beside the axes: groups with their numbers of patches. Texts are shown as they are."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=f"{name} ({counts[name]:,})") for name, colour in colours.items()]
    legend = ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, borderaxespad=0)
    for text in legend.get_texts():
        text.set_parse_math(False)
