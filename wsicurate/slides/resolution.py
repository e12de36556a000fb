"""How large is a pixel of this slide, and how do we know?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wsicurate.config import MPP_RANGE, is_plausible_mpp
from wsicurate.errors import NoResolutionError
from wsicurate.slides.base import SlideMetadata
from wsicurate.slides.stated import VOLUME, Stated, stated_in

Origin = Literal["slide table", "metadata", "objective power", "default mpp"]

#: µm per pixel of slides by scanners, 100x to 2.5x; what lies outside is believed where nothing speaks against it.
USUAL_MPP = (0.1, 4.0)

#: A slide of an unusually fine resolution is not believed where a patch would be reduced by this much: 256 pixels of
#: it would be 2,048 of the slide.
MAX_REDUCTION = 8.0

#: No slide is longer, µm.
MAX_SLIDE_UM = 300_000.0

#: mpp times objective power is about 10 for every scanner; outside this range one of the two is wrong.
POWER_PRODUCT_RANGE = (8.0, 12.0)

#: Metadata whose x and y resolutions differ by more than this share is not believed.
MAX_ANISOTROPY = 0.05


@dataclass(frozen=True)
class Resolution:
    """A slide's resolution and where it comes from.

    Attributes:
        mpp: µm per level-0 pixel.
        origin: where it comes from.
        objective_power: as the file says, or None.
        warnings: what does not fit together, in sentences; empty where nothing is odd.
    """

    mpp: float
    origin: Origin
    objective_power: float | None
    warnings: tuple[str, ...]


def resolve(
    metadata: SlideMetadata,
    *,
    table_mpp: float | None = None,
    default_mpp: float | None = None,
    size: tuple[int, int] | None = None,
    target_mpp: float | None = None,
) -> Resolution:
    """Decide a slide's resolution: slide table, then metadata, then objective power, then the default.

    Metadata is what the reader understood, then what stands in the slide's descriptions (`wsicurate.slides.stated`).
    Resolution tags give way to a description that contradicts them: tags are written for printers, too. It counts where
    it lies within `MPP_RANGE`, x and y agree, and it is no suspected mistake of units; the objective power, where
    10 / power lies within `MPP_RANGE`. Nothing is guessed.

    Args:
        metadata: what the file says.
        table_mpp: what the slide table says, µm per level-0 pixel.
        default_mpp: ``--default-mpp``.
        size: width and height of level 0, pixels.
        target_mpp: resolution that the slide is tiled at; without it, a value that is only suspected is believed.

    Returns:
        The resolution, with warnings where a source was not believed or two disagree.

    Raises:
        NoResolutionError: if no source is left; the message says what was found and what would help.
    """
    doubts: list[str] = []
    stated = stated_in(metadata.properties, size)
    powers = [metadata.objective_power, *(part.power for part in stated)]
    power = next((value for value in powers if value is not None), None)
    candidates: list[tuple[Origin, float | None]] = [
        ("slide table", table_mpp),
        ("metadata", _metadata_mpp(metadata, stated, power, size, target_mpp, doubts)),
        ("objective power", _mpp_of_power(power, doubts)),
        ("default mpp", default_mpp),
    ]
    for origin, mpp in candidates:
        if mpp is not None:
            odd = _odd_warning(mpp, power) if origin == "metadata" else ()
            return Resolution(mpp, origin, power, (*doubts, *_power_warning(mpp, power), *odd))
    remarks = [part.remark for part in stated if part.remark]
    found = "; ".join([*doubts, *remarks]) or "the metadata have neither a resolution nor an objective power"
    raise NoResolutionError(
        f"its resolution is not known: {found}. Give --default-mpp, or a row with an mpp in --slide-table"
    )


def _metadata_mpp(
    metadata: SlideMetadata,
    stated: Sequence[Stated],
    power: float | None,
    size: tuple[int, int] | None,
    target_mpp: float | None,
    doubts: list[str],
) -> float | None:
    """What the metadata says, if it is believed; ``doubts`` take what is not, and what contradicts it."""
    own = [Stated("the metadata", metadata.mpp)] if metadata.mpp is not None else []
    others = [part for part in stated if part.mpp is not None]
    of_tags = metadata.vendor in _NO_VENDOR
    found: tuple[str, float] | None = None
    for part in [*others, *own] if of_tags else [*own, *others]:
        if found is not None and not of_tags and part.where != VOLUME:
            continue
        mpp = _believed(part, power, size, target_mpp, doubts)
        if mpp is None:
            continue
        if found is None:
            found = part.where, mpp
        elif abs(mpp - found[1]) > MAX_ANISOTROPY * found[1]:
            doubts.append(f"{found[0]} gives {found[1]:g} µm/px, and {part.where} {mpp:g}; {found[0]} is believed")
        elif of_tags and part in own:
            found = part.where, mpp  # the same, with more digits
    return None if found is None else found[1]


#: What readers call TIFFs of no vendor: their resolution is that of the tags.
_NO_VENDOR = frozenset({"generic-tiff", "tiff", ""})


def _believed(
    part: Stated, power: float | None, size: tuple[int, int] | None, target_mpp: float | None, doubts: list[str]
) -> float | None:
    """µm per pixel that a part of the file states, or None, with the reason in ``doubts``."""
    x, y = part.mpp or (math.nan, math.nan)
    whose = f"{part.where}'s"
    if not (is_plausible_mpp(x) and is_plausible_mpp(y)):
        shown = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        doubts.append(f"{whose} {shown} µm/px is not believed (outside {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g})")
        return None
    if abs(x - y) > MAX_ANISOTROPY * min(x, y):
        doubts.append(f"{whose} {x:g} x {y:g} µm/px is not believed (x and y differ)")
        return None
    mpp = (x + y) / 2
    reason = _why_not(mpp, power, size, target_mpp)
    if reason:
        doubts.append(f"{whose} {mpp:g} µm/px is not believed ({reason})")
        return None
    return mpp


def _why_not(mpp: float, power: float | None, size: tuple[int, int] | None, target_mpp: float | None) -> str:
    """Why a resolution that could be one is taken for a mistake of units, or empty."""
    if size is not None and max(size) * mpp > MAX_SLIDE_UM:
        return f"it would make the slide {max(size) * mpp / 1e4:,.0f} cm long: a mistake of units?"
    if power is not None and power > 0:
        is_tenth = abs(mpp * power / 10 - 0.1) <= 0.03
        return f"{_TENTH}, and {power:g}x gives {10 / power:g}" if is_tenth and mpp < USUAL_MPP[0] * 2 else ""
    if mpp < USUAL_MPP[0] and target_mpp is not None and target_mpp / mpp >= MAX_REDUCTION:
        return f"no objective gives it: {_TENTH}"
    return ""


_TENTH = "it looks ten times too small, a mistake of units"


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
    ratio = mpp * power / 10
    mistake = next((words for factor, words in _MISTAKES if abs(ratio / factor - 1) <= 0.06), "")
    suspicion = f": {mistake}, a mistake of units?" if mistake else ""
    return (
        f"{mpp:g} µm/px does not fit an objective of {power:g}x (10 / {power:g} = {10 / power:g} µm/px){suspicion}",
    )


_MISTAKES = tuple(
    (factor if is_large else 1 / factor, f"{words} too {'large' if is_large else 'small'}")
    for factor, words in ((10, "ten times"), (2.54, "2.54 times"), (25.4, "25.4 times"), (100, "a hundred times"))
    for is_large in (True, False)
)


def _odd_warning(mpp: float, power: float | None) -> tuple[str, ...]:
    """A resolution that scanners do not have, where no objective power speaks for it."""
    low, high = USUAL_MPP
    if power is not None or low <= mpp <= high:
        return ()
    suspect = mpp * 10 if mpp < low else mpp / 10
    usual = f"; {suspect:g} would be usual: a mistake of units?" if low <= suspect <= high else ""
    return (f"{mpp:g} µm/px is unusual, and the file states no objective power{usual}",)
