"""What can become of a patch: the words of the manifest's column ``decision``."""

from __future__ import annotations

#: In the order in which they are decided; the first that applies stands.
DECISIONS = (
    "low_quality",
    "leakage",
    "no_cluster",
    "copy",
    "redundant",
    "not_retrieved",
    "over_cap",
    "not_drawn",
    "selected",
)
