"""A store as a notebook shows it."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wsicurate.store.records import SlideRecord, StoreRecord

_SLIDES_SHOWN = 8


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
    shown = "".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}" width="96" height="96" '
        f'title="{html.escape(picture.title)}">'
        for picture in pictures
    )
    return f'<div style="display:flex;gap:4px">{shown}</div>'
