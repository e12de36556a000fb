"""The page: what a template needs, and the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsicurate.colours import COLOURS, hex_colour
from wsicurate.report.charts import Chart


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with what is said of it.

    Attributes:
        uri: the picture.
        text: a caption, and what those hear who do not see it.
    """

    uri: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SlidePart:
    """A slide.

    Attributes:
        figure: its overview.
        facts: name -> value, in order.
        counts: patches by what became of them.
    """

    figure: Figure
    facts: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class ReasonPart:
    """Why patches were left out.

    Attributes:
        decision: the word of the manifest.
        meaning: a sentence.
        count: patches.
        share: of all patches.
        reasons: the commonest reasons with their counts.
        figures: some of them.
    """

    decision: str
    meaning: str
    count: int
    share: float
    reasons: Sequence[tuple[str, int]]
    figures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class ClusterPart:
    """A cluster.

    Attributes:
        number: its id at its level.
        before, after: patches in the store and in the subset.
        sites, slides: how many sites and slides it is from; sites is 0 where none are known.
        figures: strips of its nearest, random and farthest members.
    """

    number: int
    before: int
    after: int
    sites: int
    slides: int
    figures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page says.

    Attributes:
        title: of the page.
        store: its folder.
        curation: its name, or None.
        verdict: sentences that come first.
        facts: of the cohort, name -> value.
        notes: of the curation, and what is damaged.
        decisions: decision -> (patches, share).
        slides, more_slides: those that are shown, and how many are not.
        reasons: why patches were left out.
        missing: why patches of the plan are not in the store: reason -> patches.
        copies, copies_note: pairs around the threshold, and what was compared.
        clusters, more_clusters, level: those that are shown, how many are not, and of which level they are.
        charts: by name.
        measures: (title, kind, sentence) of each measure of the evaluation.
        table: the evaluation as rows of text, the first a header.
        leakage: sentences.
        settings, versions: name -> value.
        encoder: what is said of the encoder and its licence.
        command: that makes the page again.
        made: by which version.
    """

    title: str
    store: str
    curation: str | None
    verdict: Sequence[str]
    facts: Mapping[str, str]
    notes: Sequence[str]
    decisions: Mapping[str, tuple[int, float]]
    slides: Sequence[SlidePart]
    more_slides: int = 0
    reasons: Sequence[ReasonPart] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    copies: Sequence[Figure] = ()
    copies_note: str = ""
    clusters: Sequence[ClusterPart] = ()
    more_clusters: int = 0
    level: int = 0
    charts: Mapping[str, Chart] = field(default_factory=dict)
    measures: Sequence[tuple[str, str, str]] = ()
    table: Sequence[Sequence[str]] = ()
    leakage: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    encoder: str = ""
    command: str = ""
    made: str = ""


def rendered(page: Page) -> str:
    """The page as one HTML file, with nothing that is loaded from elsewhere; texts are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("wsicurate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    specs = {name: chart.spec for name, chart in page.charts.items()}
    return environment.get_template("report.html.jinja").render(
        page=page,
        colours={name: hex_colour(name) for name in COLOURS},
        # A script ends at the first "</script", wherever that stands.
        specs=Markup("{" + ",".join(f'"{name}":{spec}' for name, spec in specs.items()).replace("<", "\\u003c") + "}"),
        drawings={name: Markup(chart.svg) for name, chart in page.charts.items()},
        library=Markup(_library()) if specs else "",
    )


def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed (BSD 3-clause), which vl-convert brings, as a script."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as texts; what is None is left out."""
    return {name: str(value) for name, value in values.items() if value is not None and value != []}
