"""What decides the batches, and how two of these differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from wsicurate.validation import between, validate

_MOST = 2**63 - 1
_Number = Annotated[int, between(1, _MOST, "give a whole number, at least 1")]

#: How messages call what decides the batches, where its name alone does not say it.
_CALLED = {
    "global_batch": "the batch of all processes together",
    "patches": "the fingerprint of the chosen patches",
    "strata": "the fingerprint of the strata",
}


@dataclass(frozen=True)
class BatchSettings:
    """Settings of a `BalancedBatchSampler`.

    Raises:
        ConfigError: if one is of another type, or out of range.
    """

    batch_size: _Number
    by: str | None = None
    seed: Annotated[int, between(0, _MOST, "give a whole number, at least 0")] = 0
    batches: _Number | None = None
    max_slides: Annotated[int, between(2, _MOST, "give a whole number, at least 2")] | None = None

    def __post_init__(self) -> None:
        validate(self, str)


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], here: str = "here", there: str = "there"
) -> list[str]:
    """What differs, in words: ``seed is 0 here and 1 there``."""
    return [
        f"{_CALLED.get(name, name)} is {ours[name]!r} {here} and {theirs.get(name)!r} {there}"
        for name in ours
        if ours[name] != theirs.get(name)
    ]
