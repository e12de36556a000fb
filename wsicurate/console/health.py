"""What the doctor found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from wsicurate.console.terminal import coloured, out

if TYPE_CHECKING:
    from wsicurate.steps.doctor import DoctorReport
    from wsicurate.steps.examining.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def show_finding(finding: Finding) -> None:
    """A line, and another with what to do."""
    console = out()
    state = coloured(f"{finding.state:8s}", _COLOURS[finding.state])
    console.print(Text.assemble(state, coloured(f"{finding.part:10s}", ""), coloured(finding.what, "")))
    if finding.fix:
        console.print(f"{'':18s}{finding.fix}")


def show_health(report: DoctorReport) -> None:
    """The closing line."""
    states = [finding.state for finding in report.findings]
    console, faults, warnings = out(), states.count("fault"), states.count("warning")
    if faults:
        console.print(coloured(f"{faults} faults and {warnings} warnings", "red"))
    else:
        console.print(Text.assemble(coloured("OK", "green"), f", {warnings} warnings"))
