"""A store, its slides and its curations as a notebook shows them."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.decisions import DECISIONS
from wsicurate.html_tables import jpeg_html, table_html
from wsicurate.pixels.jpeg import encode_jpeg
from wsicurate.pixels.resample import resample_area
from wsicurate.store.records import SlideRecord, StoreRecord

_SLIDES_SHOWN = 8

#: Longer side of an overview that is shown, pixels.
_OVERVIEW_PX = 320


@dataclass(frozen=True)
class Picture:
    """A patch to show.

    Attributes:
        title: what it is.
        jpeg: a JPEG file.
    """

    title: str
    jpeg: bytes


def store_html(path: str, record: StoreRecord, slides: Sequence[SlideRecord], pictures: Sequence[Picture]) -> str:
    """A summary as HTML: counts, the largest slides, why patches are missing, and a few patches.

    Args:
        path: of the store.
        record: its attributes.
        slides: those of its slides.
        pictures: patches to show.
    """
    ordered = sorted(slides, key=_stored, reverse=True)
    rows = "".join(_row(slide) for slide in ordered[:_SLIDES_SHOWN])
    more = len(ordered) - _SLIDES_SHOWN
    rest = f"<p>and {more:,} more slides</p>" if more > 0 else ""
    dropped: Counter[str] = Counter()
    for slide in ordered:
        dropped.update(slide.counts.get("dropped", {}))
    reasons = ", ".join(f"{count:,} {html.escape(reason)}" for reason, count in dropped.most_common()) or "none"
    return (
        f"<div><p><b>{html.escape(path)}</b>: {sum(map(_stored, slides)):,} patches of {record.patch_px} px from "
        f"{len(slides):,} slides, codec {html.escape(record.codec)}; dropped: {reasons}</p>"
        "<table><thead><tr><th>slide</th><th>patches</th><th>mpp</th><th>patient</th><th>kind</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{rest}{_strip(pictures)}</div>"
    )


def slide_html(record: SlideRecord, overview: NDArray[np.uint8] | None, encoders: Sequence[str]) -> str:
    """A slide's facts beside its overview.

    Args:
        record: its attributes.
        overview: uint8, (h, w, 3), RGB; None where it cannot be read.
        encoders: that embedded its patches.
    """
    reading, resolution = record.reading, record.resolution
    facts = {
        "patches": f"{_stored(record):,} of {record.patch_px} px at {reading['effective_mpp']:.4g} µm per pixel",
        "dropped": record.counts.get("dropped", {}),
        "level 0": f"{reading['width']:,} x {reading['height']:,} px, {resolution['mpp']:.4g} µm per pixel from "
        f"{resolution['origin']}",
        "patient": record.patient,
        "site": record.site,
        "kind": record.kind,
        "label": record.label,
        "reader": record.reader,
        "vectors by": encoders,
        "warnings": resolution["warnings"],
        "overview": "cannot be read: wsicurate check says what to do" if overview is None else None,
    }
    return table_html(record.name, facts, "" if overview is None else _overview(overview, record.name))


def _overview(overview: NDArray[np.uint8], name: str) -> str:
    """The image of an overview; nothing where it has no pixels."""
    if not overview.size:
        return ""
    height, width = overview.shape[:2]
    shrink = max(1.0, max(height, width) / _OVERVIEW_PX)
    small = resample_area(overview, max(1, round(height / shrink)), max(1, round(width / shrink)))
    return jpeg_html(encode_jpeg(small, 85), f"overview of {name}")


def curation_html(name: str, run: Mapping[str, Any]) -> str:
    """What a curation decided, by what, and what its evaluation says.

    Args:
        name: of the curation.
        run: its record.
    """
    counts = run["counts"]
    total = sum(counts.values())
    evaluation = run["evaluation"] or {}
    facts = {
        "patches": total,
        **{
            decision: f"{counts[decision]:,} ({counts[decision] / total:.1%})"
            for decision in reversed(DECISIONS)
            if counts.get(decision)
        },
        "selection encoder": (run["encoder"] or {}).get("encoder"),
        "licence": (run["encoder"] or {}).get("licence"),
        "evaluation": evaluation.get("summary") or evaluation.get("reason") or "none",
        "notes": run["notes"],
    }
    return table_html(f"curation {name}", facts)


def _stored(slide: SlideRecord) -> int:
    """Number of a slide's patches."""
    return int(slide.counts["stored"])


def _row(slide: SlideRecord) -> str:
    """A slide's row of the table."""
    mpp = f"{slide.reading['effective_mpp']:.4g}"
    cells = (slide.name, f"{_stored(slide):,}", mpp, slide.patient, slide.kind)
    return "<tr>" + "".join(f"<td>{html.escape(str(cell or ''))}</td>" for cell in cells) + "</tr>"


def _strip(pictures: Sequence[Picture]) -> str:
    """The pictures side by side; empty if there are none."""
    if not pictures:
        return ""
    shown = "".join(jpeg_html(picture.jpeg, picture.title, width=96, height=96) for picture in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px">{shown}</div>'
