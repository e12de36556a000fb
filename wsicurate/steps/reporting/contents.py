"""All parts of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from wsicurate._version import __version__
from wsicurate.config.report import ReportConfig
from wsicurate.decisions import DECISIONS
from wsicurate.engine.progress import Progress, ProgressCallback
from wsicurate.report.charts import Chart, intervals
from wsicurate.report.page import Figure, Page, SlidePart, as_texts
from wsicurate.report.pictures import data_uri
from wsicurate.report.slide_maps import slide_map
from wsicurate.report.verdict import EXPLAINED, verdict
from wsicurate.steps.reporting.clusters import clusters_of
from wsicurate.steps.reporting.copies import copies_of
from wsicurate.steps.reporting.decided import Decided
from wsicurate.steps.reporting.map import map_of
from wsicurate.steps.reporting.reasons import reasons_of
from wsicurate.store.store import Store


def page_of(store: Store, curation: str | None, config: ReportConfig, command: str, progress: ProgressCallback) -> Page:
    """Gather a page; raises as `wsicurate.steps.report.write_report`."""
    decided = Decided.of(store, curation)
    run: Mapping[str, Any] = {} if decided is None else decided.run
    evaluation = run.get("evaluation")
    charts: dict[str, Chart] = {}
    shown = sorted(store.slides.values(), key=len, reverse=True)[: config.max_slides]
    slides = []
    for number, slide in enumerate(shown):
        progress(_drawn("slides", number, len(shown)))
        slides.append(_slide(slide, decided))
    progress(_drawn("clusters and the map", 0, 1))
    clusters, more, level, sizes = clusters_of(store, decided, config)
    found = [sizes, map_of(store, decided, config)]
    compared = [one for one in (evaluation or {}).get("comparisons", ()) if one["low"] is not None]
    for kind, name in (("outcome", "outcomes"), ("diagnostic", "diagnostics")):
        own = [one for one in compared if one["kind"] == kind]
        if own:
            found.append(intervals(name, f"{name}: the subset beside random draws of its size", own, EXPLAINED))
    charts = {chart.name: chart for chart in found if chart is not None}
    progress(_drawn("copies", 0, 1))
    copies, copies_note = copies_of(store, decided, config)
    missing: Counter[str] = Counter()
    for slide in store.slides.values():
        missing.update(slide.record.counts.get("dropped", {}))
    return Page(
        title=f"{store.path.name}: {curation}" if curation else store.path.name,
        store=str(store.path),
        curation=curation,
        verdict=_verdict(store, decided, evaluation),
        facts=_facts(store, decided),
        notes=[
            *run.get("notes", ()),
            *(f"{key} does not read back and is left out: {why}" for key, why in store.damaged.items()),
        ],
        decisions={} if decided is None else decided.shares(),
        slides=slides,
        more_slides=len(store.slides) - len(slides),
        reasons=reasons_of(store, decided, config),
        missing=dict(missing.most_common()),
        copies=copies,
        copies_note=copies_note,
        clusters=clusters,
        more_clusters=more,
        level=level,
        charts=charts,
        measures=_measures(evaluation),
        table=(evaluation or {}).get("table", ()),
        leakage=_leakage(run),
        settings=as_texts(run.get("settings", {})),
        versions=as_texts(run.get("versions", {})),
        encoder=_encoder(run),
        command=command,
        made=f"Made by wsicurate {__version__}.",
    )


def _drawn(what: str, done: int, total: int) -> Progress:
    return Progress(slides_done=0, slides_total=0, stage=f"{what} drawn", stage_done=done, stage_total=total)


def _verdict(store: Store, decided: Decided | None, evaluation: Mapping[str, Any] | None) -> list[str]:
    if decided is None:
        return [f"{len(store):,} patches of {len(store.slides):,} slides; nothing was curated yet."]
    selected = decided.counts().get("selected", 0)
    first = f"{selected:,} of {decided.total:,} patches were selected ({selected / max(decided.total, 1):.1%})."
    return [first, *verdict(evaluation)]


def _facts(store: Store, decided: Decided | None) -> dict[str, str]:
    records = [slide.record for slide in store.slides.values()]
    known = {
        name: {getattr(record, name) for record in records} - {None} for name in ("patient", "site", "kind", "label")
    }
    origins = Counter(str(record.resolution["origin"]) for record in records)
    mpps = ", ".join(sorted({f"{record.mpp:g}" for record in records}))
    facts = {
        "slides": f"{len(records):,}",
        "patches": f"{len(store):,} of {store.record.patch_px} px at {mpps} µm per pixel",
        "patients": f"{len(known['patient']):,}" if known["patient"] else "not known",
        "sites": f"{len(known['site']):,}" if known["site"] else "not known",
        "labels": ", ".join(sorted(map(str, known["label"]))[:12]) if known["label"] else "none for slides",
        "resolution from": ", ".join(f"{name} ({number:,})" for name, number in origins.most_common()),
        "stored as": store.record.codec
        if store.record.quality is None
        else f"{store.record.codec}, quality {store.record.quality}",
        "vectors by": ", ".join(store.encoders) or "none",
    }
    if store.damaged:
        facts["damaged"] = f"{len(store.damaged):,} slides do not read back: wsicurate check says what to do"
    return facts


def _slide(slide: Any, decided: Decided | None) -> SlidePart:
    record = slide.record
    decisions = None if decided is None else decided.of_slide(slide.key)
    counts = Counter(["stored"] * len(slide) if decisions is None else decisions.tolist())
    facts = {
        "patient": record.patient,
        "site": record.site,
        "kind": record.kind,
        "label": record.label,
        "resolution": f"{record.resolution['mpp']:.4g} µm per pixel, from {record.resolution['origin']}",
        "warnings": "; ".join(record.resolution["warnings"]) or None,
    }
    order = {name: place for place, name in enumerate((*reversed(DECISIONS), "stored"))}
    return SlidePart(
        figure=Figure(uri=data_uri(slide_map(slide, decisions)), text=record.name),
        facts={name: str(value) for name, value in facts.items() if value is not None},
        counts=dict(sorted(counts.items(), key=lambda item: order.get(item[0], 99))),
    )


def _measures(evaluation: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    compared = (evaluation or {}).get("comparisons", ())
    found = {one["measure"]: one for one in compared if one["difference"] is not None}
    return [
        (one["title"], one["kind"], EXPLAINED.get(name, "Share of the patches of this class that was selected."))
        for name, one in found.items()
    ]


def _leakage(run: Mapping[str, Any]) -> list[str]:
    if not run:
        return []
    settings, copies = run["settings"], run.get("copies") or {}
    stores, lists = settings.get("evaluation_sets") or [], settings.get("exclude_patients")
    lines = []
    leaked = run["counts"].get("leakage", 0)
    if stores:
        lines.append(f"Compared with the evaluation stores {', '.join(map(str, stores))}.")
    if lists:
        lines.append(f"Patients, slides and sites of {lists} are not selected.")
    if not stores and not lists:
        return ["Nothing was compared: neither evaluation stores nor a list of patients were given."]
    lines.append(f"{leaked:,} patches are left out for leakage, with all that are copies of them.")
    lines.extend(str(pair) for pair in copies.get("evaluation_pairs", [])[:20])
    return lines


def _encoder(run: Mapping[str, Any]) -> str:
    encoder = run.get("encoder")
    if encoder is None:
        return ""
    return f"Selected by {encoder['encoder']}, licence {encoder['licence']}. {encoder['terms']}".strip()
