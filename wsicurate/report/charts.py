"""The charts: Vega-Lite specifications by Altair, with hover and filter where scripts run, and drawn as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsicurate.colours import CATEGORIES, COLOURS, hex_colour

#: Differences that are farther from 0, in halves of their interval, are drawn here.
_FARTHEST = 8.0

#: Grey that is read on white and on black.
_INK = "#808080"


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: its element on the page.
        title: what it shows, for those who do not see it.
        spec: Vega-Lite, as JSON.
        svg: the same, drawn.
    """

    name: str
    title: str
    spec: str
    svg: str


def _data(values: Sequence[Mapping[str, Any]]) -> Any:
    """Rows of a chart, within its specification."""
    import altair

    return altair.InlineData(values=list(values))


def drawn(name: str, title: str, chart: Any) -> Chart:
    """An Altair chart in the page's looks, drawn."""
    import vl_convert

    spec = specified(chart)
    return Chart(name, title, spec, vl_convert.vegalite_to_svg(spec))


def specified(chart: Any) -> str:
    """An Altair chart in the page's looks, as Vega-Lite in JSON."""
    looks = (
        chart.configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelColor=_INK, titleColor=_INK, gridColor="#80808040", domainColor=_INK, tickColor=_INK)
        .configure_legend(labelColor=_INK, titleColor=_INK)
        .configure_title(color=_INK)
        .configure_range(category=list(CATEGORIES))
        .configure_header(labelColor=_INK, titleColor=_INK)
    )
    return str(looks.to_json(indent=None))


def cluster_sizes(before: Sequence[int], after: Sequence[int]) -> Chart:
    """Patches of each cluster in the store and in the subset, in the order of their size in the store."""
    import altair

    rows = [
        {"place": place, "patches": max(count, 0.5), "which": which, "exact": count}
        for which, counts in (("in the store", before), ("in the subset", after))
        for place, count in enumerate(counts, 1)
    ]
    chart = (
        altair.Chart(_data(rows), width=620, height=240)
        .mark_line(point={"size": 18, "filled": True}, strokeWidth=1)
        .encode(
            x=altair.X("place:Q", title="clusters, the largest first"),
            y=altair.Y("patches:Q", title="patches (logarithmic)", scale=altair.Scale(type="log")),
            color=altair.Color(
                "which:N",
                title=None,
                scale=altair.Scale(domain=["in the store", "in the subset"], range=["#999999", "#0072B2"]),
            ),
            tooltip=[altair.Tooltip("which:N"), altair.Tooltip("place:Q"), altair.Tooltip("exact:Q", title="patches")],
        )
    )
    return drawn("sizes", "Patches of each cluster in the store and in the subset", chart)


def intervals(name: str, title: str, comparisons: Sequence[Mapping[str, Any]], explained: Mapping[str, str]) -> Chart:
    """The difference of the subset from each baseline with its 95% interval, in units of half that interval's width.

    Args:
        name, title: of the chart.
        comparisons: those of an evaluation that have an interval.
        explained: a sentence of each measure, by name.
    """
    import altair

    rows = []
    for one in comparisons:
        half = max((one["high"] - one["low"]) / 2, 1e-12)
        middle = min(max(one["better"] * one["difference"] / half, -_FARTHEST), _FARTHEST)
        rows.append(
            {
                "measure": one["title"],
                "baseline": f"against {one['baseline']}",
                "low": middle - 1,
                "high": middle + 1,
                "middle": middle,
                "verdict": one["verdict"],
                "subset": one["subset_mean"],
                "other": one["baseline_mean"],
                "meaning": explained.get(one["measure"], ""),
            }
        )
    colours = {"better": "#0072B2", "not discriminating": "#999999", "worse": "#D55E00"}
    base = altair.Chart().encode(
        y=altair.Y("measure:N", title=None, sort=[row["measure"] for row in rows], axis=altair.Axis(labelLimit=400)),
        color=altair.Color(
            "verdict:N", title=None, scale=altair.Scale(domain=list(colours), range=list(colours.values()))
        ),
        tooltip=[
            *("measure:N", "baseline:N", "verdict:N", "subset:Q", "meaning:N"),
            altair.Tooltip("other:Q", title="baseline"),
        ],
    )
    edge = _FARTHEST + 1.5
    x = altair.X(
        "low:Q", title="worse | better", scale=altair.Scale(domain=[-edge, edge]), axis=altair.Axis(labels=False)
    )
    zero = altair.Chart().mark_rule(color=_INK, strokeDash=[3, 3], aria=False).encode(x=altair.datum(0))
    marks = altair.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=45).encode(x="middle:Q"),
        data=_data(rows),
    )
    columns = altair.Column("baseline:N", title=None, sort=list(dict.fromkeys(row["baseline"] for row in rows)))
    return drawn(name, title, marks.properties(width=210).facet(column=columns))


def embedding(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], method: str) -> Chart:
    """A map of patches: hover shows one, a list says by what they are coloured, the wheel zooms.

    Args:
        rows: ``x``, ``y``, ``image`` (a data URI) and each of ``columns``, as texts, of every patch that is shown.
        columns: by which the map can be coloured, the first at the start.
        method: what ``x`` and ``y`` are.
    """
    import altair

    axes = {
        name: getattr(altair, name.upper())(f"{name}:Q", title=title, axis=altair.Axis(labels=False, ticks=False))
        for name, title in zip("xy", (f"{method}, first", "second"), strict=True)
    }

    def points(values: Sequence[Mapping[str, Any]]) -> Any:
        return altair.Chart(_data(values), width=620, height=460).mark_circle(size=34, opacity=0.8)

    title = f"Map of {len(rows):,} patches by their vectors ({method})"
    present = sorted(name for name in COLOURS if any(row[columns[0]] == name for row in rows))  # as Vega orders them
    fixed = altair.Scale(domain=present, range=[hex_colour(name) for name in present])
    still = points([{key: value for key, value in row.items() if key != "image"} for row in rows]).encode(
        **axes, color=altair.Color(f"{columns[0]}:N", title=None, scale=fixed if present else altair.Undefined)
    )
    by = altair.param(
        name="colour", value=columns[0], bind=altair.binding_select(options=list(columns), name="coloured by ")
    )
    moving = (
        points(rows)
        .transform_calculate(group="datum[colour]")
        .encode(
            **axes,
            color=altair.Color("group:N", title=None, scale=altair.Scale(range=_colours_by(columns[0], present))),
            tooltip=[altair.Tooltip(f"{name}:N") for name in ("image", *columns)],
        )
        .add_params(by)
        .interactive()
    )
    svg: str = drawn("map", title, still).svg
    return Chart("map", title, specified(moving), svg)


def _colours_by(decision: str, present: Sequence[str]) -> list[Any]:
    """The colours of what is chosen: those of the decisions where it is the decision, else the categories'."""
    import altair

    own = [hex_colour(name) for name in present] or list(CATEGORIES)
    number = max(len(own), len(CATEGORIES))
    pairs = [(own[place % len(own)], CATEGORIES[place % len(CATEGORIES)]) for place in range(number)]
    return [altair.expr(f"colour === {decision!r} ? {mine!r} : {other!r}") for mine, other in pairs]
