"""The closing words of commands that run several steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsicurate.console.curation import show_curated
from wsicurate.console.slides import show_embedded, show_tiled
from wsicurate.console.stores import show_checked
from wsicurate.console.terminal import out

if TYPE_CHECKING:
    from wsicurate.steps.demo import DemoReport
    from wsicurate.steps.run import RunReport


def show_run(report: RunReport) -> None:
    """What each step did."""
    show_tiled(report.tiled)
    for embedded in report.embedded:
        show_embedded(embedded)
    show_curated(report.curated)


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
        (
            report.report,
            "the report, a page for your browser: slides, reasons, copies, clusters, a map, the evaluation",
        ),
        (report.curated.manifest, "the manifest: Parquet, one row per patch, with a reason for each left behind"),
        (report.store, "the store: wsicurate info, wsicurate check, or zarr.open_group"),
        (report.slides, "the slides and their ground truth"),
    ):
        console.print(f"  {path}  {what}")
