"""Where patches lie on a slide, and from which level they are read. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsicurate.errors import TooCoarseError

#: How far a level, or a whole-number reduction of it, may be from the target resolution, as a share.
TOLERANCE = 0.05

#: Patches are never interpolated by more than this, asked for or not.
MAX_UPSAMPLING = 8


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, of level 0 unless said otherwise; `x`, `y` is its top-left corner."""

    x: int
    y: int
    width: int
    height: int

    def at(self, downsample: float) -> Window:
        """The same rectangle in pixels of a level, its edges rounded to whole pixels."""
        x, y = round(self.x / downsample), round(self.y / downsample)
        right, bottom = round((self.x + self.width) / downsample), round((self.y + self.height) / downsample)
        return Window(x, y, right - x, bottom - y)


@dataclass(frozen=True)
class ReadPlan:
    """From which level patches are read, and how they reach the target resolution.

    Attributes:
        level: index of the level.
        downsample: its level-0 pixels per pixel.
        reduction: whole number of level pixels averaged along each axis, or None where the source window is
            resampled by area because no whole number fits.
        pitch: edge of a patch in level-0 pixels; a whole number only by luck.
        effective_mpp: µm per pixel that patches really have.
        upsampled: whether patches are interpolated from coarser pixels.
    """

    level: int
    downsample: float
    reduction: int | None
    pitch: float
    effective_mpp: float
    upsampled: bool


def plan_reading(
    downsamples: Sequence[float], slide_mpp: float, target_mpp: float, patch_px: int, *, allow_upsampling: bool = False
) -> ReadPlan:
    """Choose the level to read and the reduction from it.

    The coarsest level at or finer than the target is read (a level up to 5% coarser counts). If averaging a whole
    number of its pixels lands within 5% of the target, that is done, with no interpolation, and the patches'
    effective resolution is that of the average; otherwise each source window is resampled by area to exactly the
    target.

    Args:
        downsamples: level-0 pixels per pixel of each level, ascending from 1.
        slide_mpp: µm per level-0 pixel.
        target_mpp: wanted, µm per patch pixel.
        patch_px: edge of a patch, pixels.
        allow_upsampling: whether a slide coarser than the target is interpolated.

    Raises:
        TooCoarseError: if even level 0 is more than 5% coarser than the target, unless upsampling is allowed and
            enlarges by no more than 8.
    """
    fine_enough = [
        level for level, downsample in enumerate(downsamples) if slide_mpp * downsample <= target_mpp * (1 + TOLERANCE)
    ]
    if not fine_enough:
        fix = f"ask for a coarser --mpp ({slide_mpp:.3g})"
        if slide_mpp <= target_mpp * MAX_UPSAMPLING:
            fix += ", or for --allow-upsampling"
        elif allow_upsampling:
            fix += f": pixels are not enlarged more than {MAX_UPSAMPLING} times"
        if not allow_upsampling or slide_mpp > target_mpp * MAX_UPSAMPLING:
            raise TooCoarseError(
                f"the finest pixels are {slide_mpp:g} µm, more than {TOLERANCE:.0%} coarser than the target of "
                f"{target_mpp:g} µm; {fix}"
            )
        return ReadPlan(0, downsamples[0], None, patch_px * target_mpp / slide_mpp, target_mpp, upsampled=True)
    level = max(fine_enough, key=lambda index: downsamples[index])
    level_mpp = slide_mpp * downsamples[level]
    reduction = max(1, round(target_mpp / level_mpp))
    if abs(level_mpp * reduction - target_mpp) <= target_mpp * TOLERANCE:
        pitch = patch_px * reduction * downsamples[level]
        return ReadPlan(level, downsamples[level], reduction, pitch, level_mpp * reduction, upsampled=False)
    return ReadPlan(level, downsamples[level], None, patch_px * target_mpp / slide_mpp, target_mpp, upsampled=False)


@dataclass(frozen=True)
class Grid:
    """All patch positions of a slide: one grid, anchored at level-0 (0, 0).

    With pitch p, column i covers the level-0 pixels [round(i*p), round((i+1)*p)), and rows likewise: windows touch,
    never overlap, and none crosses the slide's edge.

    Attributes:
        pitch: level-0 pixels, at least 1.
        columns: number of windows in a row.
        rows: number of windows in a column.
    """

    pitch: float
    columns: int
    rows: int

    @classmethod
    def over(
        cls, plan: ReadPlan, width: int, height: int, level_width: int | None = None, level_height: int | None = None
    ) -> Grid:
        """The grid of a slide of ``width`` x ``height`` level-0 pixels.

        ``level_width`` and ``level_height`` are the size of the level that is read: a pyramid whose sizes were rounded
        down can end a pixel early, and no window may reach beyond it either.
        """
        return cls(
            plan.pitch,
            _count(plan, width, level_width),
            _count(plan, height, level_height),
        )

    def edge(self, index: int) -> int:
        """Level-0 pixel at which column or row ``index`` begins."""
        return round(index * self.pitch)

    def window(self, column: int, row: int) -> Window:
        """The level-0 window of a cell."""
        x, y = self.edge(column), self.edge(row)
        return Window(x, y, self.edge(column + 1) - x, self.edge(row + 1) - y)

    def index(self, edge: int) -> int:
        """The column or row that begins at level-0 pixel ``edge``; the inverse of `edge`.

        Raises:
            ValueError: if none begins there.
        """
        index = round(edge / self.pitch)
        if self.edge(index) != edge:
            raise ValueError(f"no patch begins at level-0 pixel {edge} on a grid of pitch {self.pitch:g}")
        return index


def _count(plan: ReadPlan, length: int, level_length: int | None) -> int:
    """How many windows fit into ``length`` level-0 pixels and, where given, the level's pixels."""
    count = int(length / plan.pitch) + 1
    while count > 0:
        end = round(count * plan.pitch)
        if end <= length and (level_length is None or round(end / plan.downsample) <= level_length):
            break
        count -= 1
    return count
