"""What is in a store, and whether it is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from wsicurate.console.slides import _SLIDES_LISTED
from wsicurate.console.terminal import coloured, duration, out

if TYPE_CHECKING:
    from wsicurate.steps.check import CheckReport
    from wsicurate.steps.info import StoreInfo
    from wsicurate.steps.report import PageReport


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
    verdict = coloured(f"{len(report.problems)} problems found", "red") if report.problems else coloured("OK", "green")
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
        console.print(f"last run: {run['verb']}, {run['ended']}, {duration(run['seconds'])}")
        for slide in bad:
            console.print(f"{slide['status']} {slide['name']} ({slide['reason']}): {slide['message']}")


def show_page(report: PageReport) -> None:
    """What a page says first, and where it is."""
    console = out()
    for line in report.verdict:
        console.print(line, markup=False)
    for key, why in report.left_out.items():
        console.print(f"left out {key}: {why}", markup=False)
    console.print(
        f"{report.slides:,} slides and {report.clusters:,} clusters are shown in {report.path} "
        f"({report.bytes / 1e6:,.1f} MB, {duration(report.seconds)})",
        markup=False,
    )
