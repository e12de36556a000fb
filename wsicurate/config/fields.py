"""Types of settings that several steps share, each with the rule that its values keep."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from wsicurate.errors import ConfigError
from wsicurate.validation import Rule, between, checked, is_array_name, one_of

CodecName = Literal["jpeg", "zstd", "none"]

#: mpp values outside this range are not slides; metadata that claims them is not believed.
MPP_RANGE = (0.05, 20.0)

Mpp = Annotated[
    float,
    between(*MPP_RANGE, f"give µm per pixel from {MPP_RANGE[0]} to {MPP_RANGE[1]:g} (20x is 0.5, 40x is 0.25)"),
]
PatchPx = Annotated[int, between(8, 4096, "give a whole number of pixels from 8 to 4096")]
Quality = Annotated[int, between(1, 100, "give a JPEG quality from 1 to 100")]
Seed = Annotated[int, between(0, 2**63 - 1, "give a whole number, 0 or more")]
Share = Annotated[float, between(0, 1, "give a share from 0 to 1")]
CurationName = Annotated[
    str,
    Rule(
        is_array_name,
        "it cannot name a curation; use up to 100 letters, digits, '-', '_', '.', beginning with a letter or digit",
    ),
]
Cosine = Annotated[float, between(-1, 1, "give a cosine between -1 and 1", without_ends=True)]
Seconds = Annotated[float, Rule(lambda value: 0 < value <= 1e9, "give seconds above 0, at most 1e9")]
Device = Annotated[
    str,
    Rule(
        lambda text: re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text) is not None,
        "choose auto, cpu, mps, cuda, or one of several as cuda:1",
    ),
]
Precision = Annotated[str, one_of("auto", "fp32", "bf16", "fp16")]


Encoder = Annotated[str, Rule(lambda text: bool(text.strip()), "wsicurate encoders lists those that are known")]


def at_least(least: int) -> Rule:
    """Whole numbers from ``least`` on."""
    return Rule(lambda value: value >= least, f"give a whole number, at least {least}")


Budget = Annotated[
    int | float,
    Rule(
        lambda value: 0 < value <= 1 if isinstance(value, float) else value >= 1,
        "give a share above 0 up to 1.0, or a whole number of patches",
    ),
]
Clusters = Annotated[
    Sequence[int],
    Rule(
        lambda counts: bool(counts) and counts[-1] >= 1 and all(fine > coarse for fine, coarse in pairwise(counts)),
        "give falling numbers, finest first, such as 2000,200,20",
    ),
]
Clusterer = Annotated[
    str | object,
    Rule(
        lambda value: (
            isinstance(value, str)
            or all(callable(getattr(value, name, None)) for name in ("fit", "assign", "to_arrays", "from_arrays"))
        ),
        "give a name, or an object with fit, assign, to_arrays and from_arrays",
    ),
]
Mask = Annotated[
    str | object,
    Rule(
        lambda value: bool(value) if isinstance(value, str) else callable(getattr(value, "predict", value)),
        "give a name, a function, or an object that can be called or has predict",
    ),
]


def is_plausible_mpp(mpp: float) -> bool:
    """Whether ``mpp`` (µm per pixel) can be a slide's resolution."""
    return math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]


def check_mpp(option: str, mpp: float) -> None:
    """Raise `ConfigError` unless ``mpp`` is within `MPP_RANGE`."""
    checked(option, mpp, Mpp)


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` unless a condition holds."""
    if not condition:
        raise ConfigError(message)
