"""What the command prints: progress, closing tables, summaries. No decisions."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsicurate.streams import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from wsicurate.engine.progress import Progress, SlideOutcome
    from wsicurate.steps.check import CheckReport
    from wsicurate.steps.curate import CurateReport
    from wsicurate.steps.demo import DemoReport
    from wsicurate.steps.embed import EmbedReport
    from wsicurate.steps.encoders import Preset
    from wsicurate.steps.imports import ImportReport
    from wsicurate.steps.info import StoreInfo
    from wsicurate.steps.recipes import Recipe
    from wsicurate.steps.run import RunReport
    from wsicurate.steps.tile import TileReport

#: Without a terminal, a line is printed at least this often while patches are cut, seconds.
_LINE_EVERY_S = 15.0

_SLIDES_LISTED = 40
_PATCHES_LISTED = 40

#: Width of tables where there is no terminal.
_PIPE_COLUMNS = 180

_COLOURS = {
    "tiled": "green",
    "imported": "green",
    "embedded": "green",
    "planned": "green",
    "updated": "green",
    "skipped": "yellow",
    "failed": "red",
}


class _Console(Console):
    """Prints every string as it is: without markup or emoji, and with signs that do not show escaped.

    Names of files, and what slides, tables and images say, reach the terminal here alone.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, markup=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text on one line, as it is."""
        return super().render_str(printable(text), **options)


def out() -> Console:
    """The console of results: standard output, as wide as the terminal, and wide enough for names in a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return _Console(width=None if is_terminal else _PIPE_COLUMNS, soft_wrap=not is_terminal)


def complain(message: str) -> None:
    """Print an error to standard error."""
    _Console(stderr=True, soft_wrap=True).print(_coloured("error:", "red"), message)


def _coloured(words: str, colour: str) -> Text:
    return Text(printable(words), style=colour)


class ProgressDisplay:
    """Shows a step's progress on standard error: a bar on a terminal, plain lines otherwise."""

    def __init__(self, verb: str, unit: str = "patches") -> None:
        self._console = _Console(stderr=True, soft_wrap=True)
        self._verb = verb
        self._unit = unit
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._last_line = self._began
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
            self._last_line = time.monotonic()
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
        left = f"{_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
        counts = f"{done:,}/{total:,} {progress.stage}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=1.0, completed=done / max(total, 1), slides=counts, rate="", left=left)
        elif now - self._last_line > _LINE_EVERY_S:
            self._last_line = now
            self._console.print(f"{self._verb}: {counts} {left}".rstrip())

    def _outcome(self, progress: Progress, outcome: SlideOutcome) -> None:
        if self._bar is None:
            self._last_line = time.monotonic()
            place = f"[{progress.slides_done}/{progress.slides_total}]"
            self._console.print(f"{place} {outcome.name}: {_in_words(outcome)}")
        elif outcome.status in ("skipped", "failed") or outcome.warnings:
            self._console.print(f"{outcome.name}: {_in_words(outcome)}")


def _to_come(progress: Progress) -> float:
    """Patches still to be cut, if slides that were not surveyed yet are as large as the others."""
    per_slide = progress.patches_known / (progress.slides_done + 1)
    unseen = max(progress.slides_total - progress.slides_done - 1, 0)
    return progress.patches_known - progress.patches_done + per_slide * unseen


def _time_left(progress: Progress, rate: float) -> str:
    to_come = _to_come(progress)
    return f"{_duration(to_come / rate)} left" if rate > 0 and to_come >= 1 else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


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


def _show_counts(console: Console, outcomes: Sequence[SlideOutcome]) -> None:
    """How many slides and patches came to each end."""
    table = Table("outcome", "reason", "slides", "patches", title=None)
    groups: dict[tuple[str, str], list[SlideOutcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[(outcome.status, outcome.reason)].append(outcome)
    for (status, reason), group in sorted(
        groups.items(), key=lambda item: (item[0][0] in ("skipped", "failed"), item[0])
    ):
        colour = _COLOURS.get(status, "default")
        patches = sum(outcome.patches for outcome in group)
        table.add_row(_coloured(status, colour), reason, f"{len(group):,}", f"{patches:,}" if patches else "")
    for column in table.columns[2:]:
        column.justify = "right"
    console.print(table)


def show_tiled(report: TileReport) -> None:
    """The closing table of `tile`, then every slide that was skipped or failed, with its reason."""
    console = out()
    _show_counts(console, report.outcomes)
    dropped: dict[str, int] = defaultdict(int)
    for outcome in report.outcomes:
        for reason, count in outcome.dropped.items():
            dropped[reason] += count
    if dropped:
        console.print(
            "patches dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        )
    for outcome in report.outcomes:
        if outcome.message and (outcome.status, outcome.reason) != ("excluded", "kind"):
            console.print(f"{outcome.status} {outcome.name} ({outcome.reason or 'note'}): {outcome.message}")
        for warning in outcome.warnings:
            console.print(f"warning {outcome.name}: {warning}")
    if report.unmatched:
        names = ", ".join(repr(row.slide) for row in report.unmatched[:5])
        more = f" and {len(report.unmatched) - 5} more" if len(report.unmatched) > 5 else ""
        console.print(
            f"warning: {len(report.unmatched)} rows of the slide table match no slide: {names}{more}; check the paths"
        )
    _closing_line(console, report)


def _closing_line(console: Console, report: TileReport) -> None:
    size = sum(outcome.megabytes for outcome in report.outcomes)
    if report.dry_run:
        for outcome in report.outcomes:
            if outcome.status == "planned":
                console.print(
                    f"would store {outcome.name}: {outcome.patches:,} patches, about {outcome.megabytes:,.1f} MB"
                )
        console.print(
            f"dry run: {report.patches:,} patches of {report.count('planned', 'unchanged'):,} slides, "
            f"about {size:,.1f} MB, would be in {report.store}; nothing was written"
        )
        return
    console.print(
        f"{report.patches:,} patches of {report.count('tiled', 'imported', 'unchanged', 'updated'):,} slides, "
        f"{size:,.1f} MB, in {report.store} ({_duration(report.seconds)})"
    )


def show_imported(report: ImportReport) -> None:
    """The closing table of `import`, what was assumed, and every patch that was dropped."""
    show_tiled(report)
    console = out()
    for note in report.notes:
        console.print(f"note: {note}")
    for patch in report.dropped[:_PATCHES_LISTED]:
        console.print(f"dropped {patch.name} ({patch.reason})")
    if len(report.dropped) > _PATCHES_LISTED:
        console.print(f"and {len(report.dropped) - _PATCHES_LISTED:,} more; the run's record names them all")


def show_embedded(report: EmbedReport) -> None:
    """The closing table of `embed`, what failed, and what the licence says."""
    console = out()
    _show_counts(console, report.outcomes)
    for outcome in report.outcomes:
        if outcome.status == "failed":
            console.print(f"failed {outcome.name} ({outcome.reason}): {outcome.message}")
    for warning in report.warnings:
        console.print(f"warning: {warning}")
    if report.forward_share is not None:
        console.print(f"the forward pass ran {report.forward_share:.0%} of the time")
    terms = f" ({report.terms})" if report.terms else ""
    console.print(f"licence of {report.encoder}: {report.licence}{terms}")
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items() if value is not False)
    console.print(
        f"{report.patches:,} patches of {report.count('embedded', 'unchanged'):,} slides have vectors by "
        f"{report.encoder} in {report.store} ({_duration(report.seconds)}; {settings})"
    )


def show_encoders(presets: Sequence[Preset]) -> None:
    """The table of encoders."""
    console = out()
    table = Table("encoder", "input px", "pooling", "µm/px", "licence", "gated", "weights")
    for preset in presets:
        table.add_row(
            preset.name,
            str(preset.input_px or ""),
            "" if preset.is_descriptor else preset.pooling,
            f"{preset.mpp:g}" if preset.mpp else "any",
            preset.licence,
            "yes" if preset.gated else "",
            "none" if preset.is_descriptor else preset.source,
        )
    console.print(table)
    console.print(
        "Any timm model, hf-hub:OWNER/NAME, or file of weights (--arch) can be named besides; --presets FILE adds"
    )
    console.print("encoders of your own. The licences are those of the weights; embed says and records what they say.")


def show_checked(report: CheckReport) -> None:
    """What `check` found."""
    console = out()
    for problem in report.problems:
        console.print(f"{problem.where}: {problem.what}")
    for key in report.in_progress:
        console.print(f"{key}: a run is at work on it; not checked")
    for note in report.notes:
        console.print(f"note: {note}")
    for folder in report.leftovers:
        console.print(f"{folder}: left by a run that was killed; the next run that writes to the store removes it")
    verdict = (
        _coloured(f"{len(report.problems)} problems found", "red")
        if report.problems
        else _coloured("OK: no problems found", "green")
    )
    checked = f": {report.slides:,} slides, {report.patches:,} patches, {report.bytes / 1e6:,.1f} MB checked"
    console.print(Text.assemble(verdict, checked))


def show_info(summary: StoreInfo) -> None:
    """What is in a store."""
    console = out()
    record = summary.record
    codec = record.codec if record.quality is None else f"{record.codec} (quality {record.quality})"
    console.print(
        f"{summary.path}: {summary.patches:,} patches of {record.patch_px} px from {len(summary.slides):,} slides, "
        f"{sum(summary.bytes.values()) / 1e6:,.1f} MB, codec {codec}, format {record.format}"
    )
    for key, what in summary.damaged.items():
        console.print(f"damaged {key}: {what}")
    table = Table("slide", "patches", "µm/px", "from", "patient", "kind", "MB")
    for key, slide in list(summary.slides.items())[:_SLIDES_LISTED]:
        table.add_row(
            slide.name,
            f"{slide.counts['stored']:,}",
            f"{slide.reading['effective_mpp']:.4g}",
            str(slide.resolution["origin"]),
            slide.patient or "",
            slide.kind or "",
            f"{summary.bytes[key] / 1e6:,.1f}",
        )
    for index in (1, 2, 6):
        table.columns[index].justify = "right"
    console.print(table)
    if len(summary.slides) > _SLIDES_LISTED:
        console.print(f"and {len(summary.slides) - _SLIDES_LISTED:,} more slides")
    if summary.dropped:
        console.print(
            "patches dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in summary.dropped.items())
        )
    for key in summary.unfinished:
        verb, _, name = key.rpartition("curate-")
        again = f"curate command (--name {name})" if verb == "" and name != key else "tile command"
        console.print(f"unfinished: {key}; run the same {again} again")
    if summary.encoders:
        embedded = ", ".join(f"{name} ({count:,} slides)" for name, count in summary.encoders.items())
        console.print(f"embedded by: {embedded}")
    for name, count in summary.curations.items():
        state = f"{count:,} patches selected" if count >= 0 else "its record cannot be read; wsicurate check says more"
        console.print(f"curation {name}: {state}")
    if summary.last_run is not None:
        bad = [slide for slide in summary.last_run["slides"] if slide["status"] in ("skipped", "failed")]
        run = summary.last_run
        console.print(f"last run: {run['verb']}, {run['ended']}, {_duration(run['seconds'])}")
        for slide in bad:
            console.print(f"{slide['status']} {slide['name']} ({slide['reason']}): {slide['message']}")


def show_demo(report: DemoReport) -> None:
    """Where to look after the demo."""
    show_tiled(report.tiled)
    show_curated(report.curated)
    show_checked(report.checked)
    console = out()
    console.print()
    console.print(
        "Two of the seven files are deliberately invalid: one has no resolution metadata, one is damaged. Look at"
    )
    for path, what in (
        (report.slide_sheet, "the slides, with the patches that were taken"),
        (report.patch_sheet, "a sample of the patches"),
        (report.subset_sheet, "a sample of those that were chosen"),
        (report.curated.manifest, "the manifest: Parquet, one row per patch, with a reason for each left behind"),
        (report.store, "the store: wsicurate info, wsicurate check, or zarr.open_group"),
        (report.slides, "the slides and their ground truth"),
    ):
        console.print(f"  {path}  {what}")


def show_curated(report: CurateReport) -> None:
    """What became of the patches, the evaluation, and where the manifest lies."""
    console = out()
    run = report.run
    table = Table("decision", "patches", "share")
    total = max(sum(report.counts.values()), 1)
    for decision, count in report.counts.items():
        colour = "green" if decision == "selected" else "default"
        table.add_row(_coloured(decision, colour), f"{count:,}", f"{count / total:.1%}")
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    for note in (*run["notes"], *report.notes):
        console.print(f"note: {note}")
    for line in (run.get("listed") or {}).get("unmatched", ()):
        console.print(f"warning: the list's {line} matches nothing in this store")
    if run["evaluation"] is not None:
        _show_evaluation(console, run["evaluation"])
    encoder = run["encoder"]
    console.print(f"chosen by {encoder['encoder']}, licence {encoder['licence']}. {encoder['terms']}".rstrip())
    said = "was there already" if report.status == "unchanged" else _duration(report.seconds)
    console.print(f"{report.selected:,} patches selected; the manifest is in {report.manifest} ({said})")


def _show_evaluation(console: Console, evaluation: Mapping[str, Any]) -> None:
    if "reason" in evaluation:
        console.print(f"no evaluation: {evaluation['reason']}")
        return
    comparisons = evaluation["comparisons"]
    names = list(dict.fromkeys(comparison["baseline"] for comparison in comparisons))
    table = Table(
        "measure",
        "kind",
        "better if",
        "subset",
        *names,
        title=f"Evaluation by {evaluation['evaluation_encoder']}: means of {len(evaluation['seeds'])} seeds, {evaluation['pool']:,} patches",
        title_justify="left",
    )
    missing: dict[str, list[str]] = defaultdict(list)
    for measure in dict.fromkeys(comparison["measure"] for comparison in comparisons):
        found = {each["baseline"]: each for each in comparisons if each["measure"] == measure}
        first = next(iter(found.values()))
        if all(each["difference"] is None for each in found.values()):
            missing[first["reason"]].append(first["title"])
            continue
        table.add_row(
            first["title"],
            first["kind"],
            "higher" if first["better"] > 0 else "lower",
            _figure(first["subset_mean"]),
            *(_compared(found[name]) for name in names),
        )
    for column in table.columns[3:]:
        column.justify = "right"
    console.print(table)
    console.print("+ and - : better and worse than the baseline, the 95% interval of the paired difference excludes 0")
    for reason, titles in missing.items():
        console.print(f"not measured ({reason}): {', '.join(titles)}")
    for sentence in (*evaluation["summary"], *evaluation["notes"]):
        console.print(sentence)


def _compared(comparison: Mapping[str, Any]) -> Text:
    """A baseline's mean, and whether the subset is better (+) or worse (-)."""
    signs = {"better": ("+", "green"), "worse": ("-", "red")}
    return Text.assemble(f"{_figure(comparison['baseline_mean'])} ", signs.get(comparison["verdict"], (" ", "")))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def show_run(report: RunReport) -> None:
    """What each step did."""
    show_tiled(report.tiled)
    for embedded in report.embedded:
        show_embedded(embedded)
    show_curated(report.curated)


def show_recipes(recipes: Iterable[Recipe]) -> None:
    """Names, titles, sources and departures of recipes."""
    console = out()
    for recipe in recipes:
        console.print(f"{recipe.name}: {recipe.title}")
        console.print(f"    {recipe.source}")
        for departure in recipe.departures:
            console.print(f"    differs: {departure}")
