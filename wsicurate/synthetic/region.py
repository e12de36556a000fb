"""A rectangle of the canvas on which synthetic slides are painted: pixels at 20x (0.5 µm)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A rectangle of canvas pixels; may reach beyond the canvas."""

    x: int
    y: int
    width: int
    height: int

    def grown(self, margin: int) -> Region:
        """The rectangle with a margin on all sides."""
        return Region(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)
