"""The colours of pages and figures: those of Okabe and Ito (2008), which people with any colour vision tell apart."""

from __future__ import annotations

from collections.abc import Mapping

#: Colours of decisions, RGB; ``stored`` is for patches of which nothing was decided.
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "selected": (0, 114, 178),
    "not_drawn": (153, 153, 153),
    "over_cap": (204, 121, 167),
    "not_retrieved": (86, 180, 233),
    "redundant": (240, 228, 66),
    "copy": (230, 159, 0),
    "no_cluster": (120, 94, 60),
    "leakage": (213, 94, 0),
    "low_quality": (0, 0, 0),
    "stored": (0, 158, 115),
}

#: Colours of groups that have none of their own, in order.
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def hex_colour(name: str) -> str:
    """The colour of a decision as pages write it."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[name])
