"""What became of the patches, and how the subset compares with baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wsicurate.console.terminal import coloured, duration, out

if TYPE_CHECKING:
    from wsicurate.steps.curate import CurateReport
    from wsicurate.steps.recipes import Recipe


def show_curated(report: CurateReport) -> None:
    """What became of the patches, the evaluation, and where the manifest lies."""
    console = out()
    run = report.run
    table = Table("decision", "patches", "share")
    total = max(sum(report.counts.values()), 1)
    for decision, count in report.counts.items():
        colour = "green" if decision == "selected" else "default"
        table.add_row(coloured(decision, colour), f"{count:,}", f"{count / total:.1%}")
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    for note in (*run["notes"], *report.notes):
        console.print(f"note: {note}")
    for line in (run.get("listed") or {}).get("unmatched", ()):
        console.print(f"warning: {line} of the exclusion list matches nothing in this store")
    if run["evaluation"] is not None:
        _show_evaluation(console, run["evaluation"])
    published = ((run.get("clusters") or {}).get("published") or {}).get("file")
    if published is not None:
        console.print(f"balanced over the clusters of {published}")
    if (encoder := run["encoder"]) is not None:
        verb = "selected" if published is None else "compared"
        console.print(f"{verb} by {encoder['encoder']}, licence {encoder['licence']}. {encoder['terms']}".rstrip())
    said = "up to date" if report.status == "unchanged" else duration(report.seconds)
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
        title=f"Evaluation by {evaluation['evaluation_encoder']}: means of {len(evaluation['seeds'])} seeds, "
        f"{evaluation['pool']:,} patches",
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


def show_recipes(recipes: Iterable[Recipe]) -> None:
    """Names, titles, sources and departures of recipes."""
    console = out()
    for recipe in recipes:
        console.print(f"{recipe.name}: {recipe.title}")
        console.print(f"    {recipe.source}")
        for departure in recipe.departures:
            console.print(f"    differs: {departure}")
