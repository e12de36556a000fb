"""What a step tells while it works, and what it says of each slide in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: What became of a slide. ``tiled``, ``imported``, ``materialised``, ``embedded``: done now. ``unchanged``: was there
#: already. ``updated``: its patches were there, its row of the slide table is new. ``planned``: a dry run.
#: ``excluded``: the user did not ask for it. ``skipped``: a rule. ``failed``: an error.
Status = Literal[
    "tiled",
    "imported",
    "materialised",
    "embedded",
    "unchanged",
    "updated",
    "planned",
    "excluded",
    "skipped",
    "failed",
]


@dataclass(frozen=True, kw_only=True)
class SlideOutcome:
    """What became of one slide.

    Attributes:
        slide_id: its safe name.
        name: its readable name.
        status: see `Status`.
        reason: one word; ``no_tissue`` for a slide without patches, empty when there is none.
        message: a sentence, empty when there is none.
        patches: number stored (in a dry run: planned).
        dropped: number of patches that were planned and are not there, by reason.
        megabytes: size of the stored patches (in a dry run: an estimate).
        warnings: what does not fit together about it.
        seconds: from its survey to its commit.
        details: for the run's record: resolution, reader, reads.
    """

    slide_id: str
    name: str
    status: Status
    reason: str = ""
    message: str = ""
    patches: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    megabytes: float = 0.0
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


def outcome_facts(outcomes: Sequence[SlideOutcome]) -> dict[str, object]:
    """What a notebook shows of a run's slides: how many of each status, and why some are not done."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "slides": ", ".join(f"{count:,} {status}" for status, count in counts.items()) or "none",
        "not done": [
            f"{outcome.name}: {outcome.message or outcome.reason}"
            for outcome in outcomes
            if outcome.status in ("failed", "skipped")
        ],
        "warnings": [f"{outcome.name}: {warning}" for outcome in outcomes for warning in outcome.warnings],
    }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a step is.

    Attributes:
        slides_done, slides_total: slides.
        patches_done, patches_known: patches cut by this run, and to be cut as far as slides were surveyed.
        outcome: the slide that was just finished, if one was.
        note: a sentence for the user, if there is one.
        stage: what is counted, where a step has long stages: ``candidate pairs compared``.
        stage_done, stage_total: of the stage.
    """

    slides_done: int
    slides_total: int
    patches_done: int = 0
    patches_known: int = 0
    outcome: SlideOutcome | None = None
    note: str = ""
    stage: str = ""
    stage_done: int = 0
    stage_total: int = 0


ProgressCallback = Callable[[Progress], None]


def no_progress(progress: Progress) -> None:
    """Say nothing."""
