"""Settings of the search for copies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from wsicurate.curation.copies.registration import Criteria
from wsicurate.curation.copies.threshold import PRESET_THRESHOLD
from wsicurate.errors import ConfigError
from wsicurate.steps.curating.copy_evidence import Turns


@dataclass(frozen=True, kw_only=True)
class CopiesConfig:
    """Settings of the search for copies.

    Attributes:
        candidates: the most candidates of a patch, the most similar first: so many neighbours are searched for.
        max_pairs: the most pairs that are registered; those less similar are ``unchecked`` and stay. None: all.
        threshold: candidates are at least this similar; None calibrates it on the store.
        rate, recall: of the calibration; see `wsicurate.curation.copies.threshold.calibrate`.
        preset_threshold: with fewer than two patients; the encoder's preset, if it has one.
        calibration_patches: sample that is changed and embedded anew.
        calibration_queries: sample that is compared with all other patients' patches.
        criteria: what the pixels must show.
        turns: whether arbitrary turns and scales are tried where symmetry and shift fail: ``auto`` tries a sample.
        seed: of all samples.
        workers: processes; None means one per usable core.
    """

    candidates: int = 16
    max_pairs: int | None = None
    threshold: float | None = None
    rate: float = 0.001
    recall: float | None = 0.98
    preset_threshold: float = PRESET_THRESHOLD
    calibration_patches: int = 256
    calibration_queries: int = 4_000
    criteria: Criteria = field(default_factory=Criteria)
    turns: Turns = "auto"
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("candidates", "calibration_patches", "calibration_queries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give a whole number, at least 1")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold!r}; give a cosine from -1 to 1")
        if self.turns not in get_args(Turns):
            raise ConfigError(f"turns is {self.turns!r}; choose one of {', '.join(get_args(Turns))}")
