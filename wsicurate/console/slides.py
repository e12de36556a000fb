"""What a step did with the slides: counts, and every slide that was left out with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from wsicurate.console.terminal import coloured, duration, out

if TYPE_CHECKING:
    from wsicurate.engine.progress import SlideOutcome, Status
    from wsicurate.steps.embed import EmbedReport
    from wsicurate.steps.encoders import Preset
    from wsicurate.steps.imports import ImportReport
    from wsicurate.steps.materialise import MaterialiseReport
    from wsicurate.steps.tile import TileReport


_SLIDES_LISTED = 40

_PATCHES_LISTED = 40

_COLOURS = {
    "tiled": "green",
    "imported": "green",
    "materialised": "green",
    "embedded": "green",
    "planned": "green",
    "updated": "green",
    "skipped": "yellow",
    "failed": "red",
}

#: Statuses of slides whose patches are in the store.
_STORED: tuple[Status, ...] = ("tiled", "imported", "materialised", "unchanged", "updated")

#: What statuses mean that look alike.
_LEGEND = {
    "unchanged": "unchanged: in the store already, made in the same way",
    "excluded": "excluded: left out by an option or by the slide table",
    "skipped": "skipped: cannot be used as it is (see the reason)",
    "failed": "failed: an error (see the reason); correct it and run again",
}


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
        table.add_row(coloured(status, colour), reason, f"{len(group):,}", f"{patches:,}" if patches else "")
    for column in table.columns[2:]:
        column.justify = "right"
    console.print(table)
    statuses = {outcome.status for outcome in outcomes}
    if legend := [meaning for status, meaning in _LEGEND.items() if status in statuses]:
        console.print("; ".join(legend))


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
        f"{report.patches:,} patches of {report.count(*_STORED):,} slides, "
        f"{size:,.1f} MB, in {report.store} ({duration(report.seconds)})"
    )


#: What became of the manifest.
_CURATION = {
    "carried": "its curation {name} was taken along",
    "unchanged": "its curation {name} is there",
    "own": "it has a curation {name} that was made there, which stays as it is",
}


def show_materialised(report: MaterialiseReport) -> None:
    """The closing table of `materialise`, and what went with the patches."""
    show_tiled(report)
    console = out()
    if report.without_patches:
        console.print(f"{report.without_patches:,} slides of {report.parent} have no chosen patch and are left out")
    if report.curation_status is not None:
        console.print(f"{report.store}: {_CURATION[report.curation_status].format(name=report.curation)}")
    for note in report.notes:
        console.print(f"note: {note}")
    if report.is_unchanged and not report.dry_run:
        console.print("everything was there already; nothing was written")


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
        f"{report.encoder} in {report.store} ({duration(report.seconds)}; {settings})"
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
            preset.package or ("none" if preset.is_descriptor else preset.source),
        )
    console.print(table)
    console.print(
        "Any timm model, hf-hub:OWNER/NAME, or file of weights (--arch) can be named besides; --presets FILE adds"
    )
    console.print("encoders of your own. The licences are those of the weights; embed says and records what they say.")
