"""What one view of a patch is like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from wsicurate.errors import ConfigError
from wsicurate.validation import Rule, between, validate

#: Most pixels of a view's edge: a typing error should not ask for gigabytes.
MOST_PX = 4096

Probability = Annotated[float, between(0, 1, "give a probability, 0 to 1")]
Strength = Annotated[float, between(0, 1, "give a strength, 0 (none) to 1")]
Range = Annotated[
    Sequence[float],
    Rule(
        lambda ends: len(ends) == 2 and 0 < ends[0] <= ends[1],
        "give two positive numbers, the smaller one first",
    ),
]


@dataclass(frozen=True, kw_only=True)
class View:
    """How a view is made of a patch: in this order, with numbers drawn anew for each patch.

    Attributes:
        size: edge of the view, in pixels.
        scale: share of the patch's area that is cut out, least and most; at most 1.
        ratio: width by height of what is cut out, least and most (`torchvision`'s ``RandomResizedCrop``). What is cut
            out is resized to ``size`` by antialiased bicubic interpolation.
        symmetries: ``"all"`` turns by right angles and mirrors (the 8 symmetries of the square, equally likely),
            ``"mirror"`` exchanges left and right of one half, ``"none"``.
        stain, stain_probability: stain jitter in HED space (`hed.py`). Amounts of haematoxylin, eosin and the residual
            are each multiplied by a number within 1 ± ``stain``, and one within ± ``stain`` is added.
        brightness, contrast, saturation: colour jitter in random order (`torchvision`'s ``ColorJitter``); each is a
            factor within 1 ± the strength.
        hue: likewise; part of the colour circle by which hues are turned at most, up to 0.5.
        jitter_probability: of colour jitter.
        grayscale_probability: of losing all colour.
        blur_probability, sigma: of Gaussian blur, and its least and greatest standard deviation, in pixels of the view.
        solarise_probability: of inverting all intensities of at least half the range.

    Raises:
        ConfigError: at the first that cannot be.
    """

    size: Annotated[int, between(1, MOST_PX, f"give a number of pixels, 1 to {MOST_PX}")]
    scale: Annotated[Range, Rule(lambda ends: ends[1] <= 1, "give two shares of the area, at most 1")] = (0.4, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    symmetries: Literal["none", "mirror", "all"] = "all"
    stain: Annotated[float, between(0, 1, "give a bound, 0 (none) to 1")] = 0.0
    stain_probability: Probability = 1.0
    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Annotated[float, between(0, 0.5, "give a part of the colour circle, 0 (none) to 0.5")] = 0.0
    jitter_probability: Probability = 0.8
    grayscale_probability: Probability = 0.0
    blur_probability: Probability = 0.0
    sigma: Range = (0.1, 2.0)
    solarise_probability: Probability = 0.0

    def __post_init__(self) -> None:
        validate(self, lambda name: name)
        if self.sigma[1] > self.size:
            raise ConfigError(f"sigma is up to {self.sigma[1]} for views of {self.size} px; give at most the size")
