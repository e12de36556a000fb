"""A slide's overview with the outline of its tissue, and its patches in the colours of what became of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.colours import COLOURS, hex_colour
from wsicurate.errors import ConfigError
from wsicurate.plots.axes import add_legend, axes_or_new
from wsicurate.store.layout import slide_key
from wsicurate.store.manifest import Curation
from wsicurate.store.slide_patches import SlidePatches

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def slide_overview(slide: SlidePatches, curation: Curation | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a slide: overview, outline of the tissue, and every patch in the colour of its decision.

    The axes are in level-0 pixels of the slide, so that ``ax.plot(x, y)`` of anything else lands where it belongs.

    Args:
        slide: one of ``store.slides``.
        curation: whose decisions are shown; without one all patches are ``stored``.
        ax: axes to draw into; new ones by default.

    Raises:
        ConfigError: if the curation does not know the slide, or matplotlib is missing.
        ManifestError: if the slide holds other patches than those that were curated, or the manifest is damaged.
    """
    names = _decisions(slide, curation)
    width, height = slide.record.reading["width"], slide.record.reading["height"]
    ax = axes_or_new(ax, 8.5, max(2.5, min(8.0, 6.5 * height / width)))
    ax.imshow(slide.overview, extent=(0, width, height, 0), interpolation="antialiased")
    counts = Counter(names.tolist())
    colours = {name: hex_colour(name) for name in COLOURS if name in counts}
    for name, colour in colours.items():
        _squares(ax, slide.xy[names == name], float(slide.record.reading["pitch"]), colour)
    if slide.tissue.any():
        _outline(ax, slide.tissue, width, height)
    ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    ax.set_title(slide.record.name, parse_math=False, fontsize="medium")
    add_legend(ax, colours, counts)
    return ax


def _decisions(slide: SlidePatches, curation: Curation | None) -> NDArray[np.object_]:
    """The decision of each patch of a slide, texts; the manifest is read part by part."""
    if curation is None:
        return np.full(len(slide), "stored", dtype=object)
    if slide.key not in curation.run["inputs"]:
        raise ConfigError(f"the curation {curation.name} does not know the slide {slide.key}; give one of its store")
    curation.check_inputs({slide.key: slide.record.content_hash}, set(curation.run["inputs"]) - {slide.key})
    found: list[str] = []
    for part in curation.parts(["slide_id", "mpp", "decision"]):
        ids, mpps = part["slide_id"].to_pylist(), part["mpp"].to_pylist()
        own = [slide_key(*one) == slide.key for one in zip(ids, mpps, strict=True)]
        found += [name for name, is_own in zip(part["decision"].to_pylist(), own, strict=True) if is_own]
    return np.array(found, dtype=object)


def _squares(ax: Axes, corners: NDArray[np.int32], pitch: float, colour: str) -> None:
    """Patches as squares, half transparent."""
    from matplotlib.collections import PolyCollection

    square = np.array([(0, 0), (pitch, 0), (pitch, pitch), (0, pitch)])
    ax.add_collection(
        PolyCollection(corners[:, None, :] + square, facecolors=colour, alpha=0.45, linewidths=0, antialiaseds=False),
        autolim=False,
    )


def _outline(ax: Axes, tissue: NDArray[np.bool_], width: float, height: float) -> None:
    """The border of the tissue: a contour through the middle between pixels, the slide's edge included."""
    rows, columns = tissue.shape
    framed = np.pad(tissue.astype(np.float32), 1)
    x = (np.arange(-1, columns + 1) + 0.5) * width / columns
    y = (np.arange(-1, rows + 1) + 0.5) * height / rows
    ax.contour(x, y, framed, levels=[0.5], colors="#1e1e1e", linewidths=0.9)
