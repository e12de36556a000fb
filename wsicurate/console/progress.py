"""Progress on standard error: a bar on a terminal; else a line a minute, and each slide that failed or was skipped."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wsicurate.console.terminal import _Console, duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from wsicurate.engine.progress import Progress, SlideOutcome


#: Without a terminal, a line is printed at once and then this often, seconds: a day's log can be read.
_LINE_EVERY_S = 60.0


class ProgressDisplay:
    """Shows a step's progress on standard error: a bar on a terminal, plain lines otherwise."""

    def __init__(self, verb: str, unit: str = "patches") -> None:
        self._console = _Console(stderr=True, soft_wrap=True)
        self._verb = verb
        self._unit = unit
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._last_line = self._began - 2 * _LINE_EVERY_S
        self._stage = ""
        self._stage_began = (self._began, 0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[slides]}"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._verb, total=None, slides="", rate="", left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Take news from the step."""
        if progress.note:
            self._console.print(progress.note)
        if progress.outcome is not None:
            self._outcome(progress, progress.outcome)
        if progress.stage:
            self._count(progress)
            return
        elapsed = time.monotonic() - self._began
        rate = progress.patches_done / max(elapsed, 1e-6)
        slides = f"{progress.slides_done:,}/{progress.slides_total:,} slides"
        speed = f"{progress.patches_done:,} {self._unit}, {rate:,.0f}/s"
        left = _time_left(progress, rate)
        if self._bar is not None and self._task is not None:
            share = progress.patches_done / max(progress.patches_done + _to_come(progress), 1)
            if not progress.patches_known:
                share = progress.slides_done / max(progress.slides_total, 1)
            self._bar.update(self._task, total=1.0, completed=share, slides=slides, rate=speed, left=left)
        elif time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(f"{self._verb}: {slides}, {speed} {left}".rstrip())

    def _count(self, progress: Progress) -> None:
        """Show how far a long stage is."""
        now, done, total = time.monotonic(), progress.stage_done, progress.stage_total
        if progress.stage != self._stage:
            self._stage, self._stage_began = progress.stage, (now, done)
        began, before = self._stage_began
        rate = (done - before) / max(now - began, 1e-6)
        left = f"{duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        counts = f"{done:,}/{total:,} {progress.stage}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=1.0, completed=done / max(total, 1), slides=counts, rate="", left=left)
        elif now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            self._console.print(f"{self._verb}: {counts} {left}".rstrip())

    def _outcome(self, progress: Progress, outcome: SlideOutcome) -> None:
        if outcome.status in ("skipped", "failed") or outcome.warnings:
            place = f"[{progress.slides_done}/{progress.slides_total}] " if self._bar is None else ""
            self._console.print(f"{place}{outcome.name}: {_in_words(outcome)}")


def _to_come(progress: Progress) -> float:
    """Patches still to be cut, if slides that were not surveyed yet are as large as the others."""
    per_slide = progress.patches_known / (progress.slides_done + 1)
    unseen = max(progress.slides_total - progress.slides_done - 1, 0)
    return progress.patches_known - progress.patches_done + per_slide * unseen


def _time_left(progress: Progress, rate: float) -> str:
    to_come = _to_come(progress)
    return f"{duration(to_come / rate)} left" if rate > 0 and to_come >= 1 else ""


def _in_words(outcome: SlideOutcome) -> str:
    words = str(outcome.status)
    if outcome.status not in ("excluded", "skipped", "failed"):
        words += f", {outcome.patches:,} patches"
    if outcome.dropped:
        words += ", dropped " + ", ".join(f"{count:,} {reason}" for reason, count in outcome.dropped.items())
    for sentence in (outcome.message, *(f"warning: {warning}" for warning in outcome.warnings)):
        if sentence:
            words += f"; {sentence}"
    return words
