"""What a synthetic slide is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wsicurate.errors import ConfigError
from wsicurate.synthetic.layout import DEFAULT_SHARES, Kind
from wsicurate.synthetic.svs_writer import Compression

#: µm per canvas pixel.
CANVAS_MPP = 0.5

#: The pyramid: every level has a fourth of the sides of the one above.
LEVEL_STEP, LEVELS = 4, 3


@dataclass(frozen=True, kw_only=True)
class SyntheticSlide:
    """What a synthetic slide is like.

    Attributes:
        width, height: level-0 pixels.
        mpp: 0.25 (40x) or 0.5 (20x).
        seed: of everything on it.
        site_seed: of its laboratory's colours; slides of one site share it.
        shares: of each tissue kind in the tissue's area.
        tissue: share of the slide that is tissue; 0 is a blank slide.
        strength: of the stain; about 0.35 is pale.
        pale, holes, folds, blurred: number of places that are thin, torn out, folded, out of focus.
        pens: inks of the pen strokes: green, blue, red, black.
        copies: number of patches (256 px at 20x) planted again elsewhere, turned or mirrored.
        tile_px: edge of the file's tiles.
        compression: of the file.
        quality: JPEG quality, or the PSNR in dB that JPEG 2000 aims at.
        states_mpp, states_power: whether the file says its resolution and its objective power.
        repeat_px: paint only a square of this many level-0 pixels and repeat it over the slide, every fourth one
            blank; the tiles of the repeats are the same bytes in the file. For slides of any size in seconds.
    """

    width: int = 20_000
    height: int = 20_000
    mpp: float = 0.25
    seed: int = 0
    site_seed: int = 0
    shares: Mapping[Kind, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    tissue: float = 0.45
    strength: float = 1.0
    pale: int = 0
    holes: int = 0
    folds: int = 0
    blurred: int = 0
    pens: tuple[str, ...] = ()
    copies: int = 0
    tile_px: int = 256
    compression: Compression = "jpeg"
    quality: int = 70
    states_mpp: bool = True
    states_power: bool = True
    repeat_px: int | None = None

    def __post_init__(self) -> None:
        if self.mpp not in (0.25, 0.5):
            raise ConfigError(f"mpp is {self.mpp!r}; synthetic slides have 0.25 (40x) or 0.5 (20x)")
        if min(self.width, self.height) < 512:
            raise ConfigError(f"the slide is {self.width}x{self.height}; give at least 512 pixels a side")
        if self.repeat_px is not None and self.repeat_px % (self.tile_px * LEVEL_STEP ** (LEVELS - 1)):
            raise ConfigError(
                f"repeat_px is {self.repeat_px}; give a multiple of {self.tile_px * LEVEL_STEP ** (LEVELS - 1)}, "
                "so that it is whole tiles at every level"
            )

    @property
    def scale(self) -> int:
        """Level-0 pixels per canvas pixel."""
        return round(CANVAS_MPP / self.mpp)
