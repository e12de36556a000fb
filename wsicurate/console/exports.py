"""What was exported, and where to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsicurate.console.terminal import duration, out

if TYPE_CHECKING:
    from wsicurate.steps.export import ExportReport


def show_exported(report: ExportReport) -> None:
    """How many patches lie in the destination, as what, and every slide that was left out with its reason."""
    console = out()
    for key, reason in report.left_out.items():
        console.print(f"left out {key}: {reason}", markup=False)
    images = f", images {report.images}" if report.images else ""
    said = "up to date" if report.status == "unchanged" else duration(report.seconds)
    console.print(
        f"{report.patches:,} patches of {report.slides:,} slides as {report.to}{images}: {report.files:,} files, "
        f"{report.bytes / 1e6:,.1f} MB, in {report.destination} ({said})",
        markup=False,
    )
    console.print(f"read it with: {report.opened_by}", markup=False)
