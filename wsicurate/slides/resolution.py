"""How large is a pixel of this slide, and how do we know?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsicurate.config import MPP_RANGE, is_plausible_mpp
from wsicurate.errors import NoResolutionError
from wsicurate.slides.base import SlideMetadata

Origin = Literal["slide table", "metadata", "objective power", "default mpp"]

#: mpp times objective power is about 10 for every scanner; outside this range one of the two is wrong.
POWER_PRODUCT_RANGE = (8.0, 12.0)

#: Metadata whose x and y resolutions differ by more than this share is not believed.
MAX_ANISOTROPY = 0.05


@dataclass(frozen=True)
class Resolution:
    """A slide's resolution and where it comes from.

    Attributes:
        mpp: µm per level-0 pixel.
        origin: which source said so.
        objective_power: as the file says, or None.
        warnings: what does not fit together, in sentences; empty when all is well.
    """

    mpp: float
    origin: Origin
    objective_power: float | None
    warnings: tuple[str, ...]


def resolve(metadata: SlideMetadata, *, table_mpp: float | None = None, default_mpp: float | None = None) -> Resolution:
    """Decide a slide's resolution: slide table, then metadata, then objective power, then the default.

    Metadata counts where it lies within `MPP_RANGE` and x and y agree; the objective power, where 10 / power
    does. Nothing is guessed.

    Args:
        metadata: what the file says.
        table_mpp: what the slide table says, µm per level-0 pixel.
        default_mpp: ``--default-mpp``.

    Returns:
        The resolution, with warnings where a source was not believed or two disagree.

    Raises:
        NoResolutionError: if no source is left; the message says what was found and what would mend it.
    """
    doubts: list[str] = []
    candidates: list[tuple[Origin, float | None]] = [
        ("slide table", table_mpp),
        ("metadata", _believed_mpp(metadata, doubts)),
        ("objective power", _mpp_of_power(metadata.objective_power, doubts)),
        ("default mpp", default_mpp),
    ]
    for origin, mpp in candidates:
        if mpp is not None:
            warnings = (*doubts, *_power_warning(mpp, metadata.objective_power))
            return Resolution(mpp, origin, metadata.objective_power, warnings)
    found = "; ".join(doubts) or "the file states neither a resolution nor an objective power"
    raise NoResolutionError(
        f"its resolution is not known: {found}. Give --default-mpp, or a row with an mpp in --slide-table"
    )


def _believed_mpp(metadata: SlideMetadata, doubts: list[str]) -> float | None:
    if metadata.mpp is None:
        return None
    x, y = metadata.mpp
    if not (is_plausible_mpp(x) and is_plausible_mpp(y)):
        stated = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        doubts.append(f"the metadata's {stated} µm/px is not believed (outside {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g})")
        return None
    if abs(x - y) > MAX_ANISOTROPY * min(x, y):
        doubts.append(f"the metadata's {x:g} x {y:g} µm/px is not believed (x and y differ)")
        return None
    return (x + y) / 2


def _mpp_of_power(power: float | None, doubts: list[str]) -> float | None:
    if power is None:
        return None
    if power > 0 and is_plausible_mpp(10 / power):
        return 10 / power
    doubts.append(f"the objective power {power:g} is not believed")
    return None


def _power_warning(mpp: float, power: float | None) -> tuple[str, ...]:
    if power is None or not power > 0:
        return ()
    low, high = POWER_PRODUCT_RANGE
    if low <= mpp * power <= high:
        return ()
    return (f"{mpp:g} µm/px does not fit an objective of {power:g}x (10 / {power:g} = {10 / power:g} µm/px)",)
