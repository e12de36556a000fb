"""How a store shows itself in a notebook."""

from __future__ import annotations

import base64
import html
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wsicurate.store.store import SlidePatches, Store

_SLIDES_SHOWN = 8
_PATCHES_SHOWN = 8


def store_html(store: Store) -> str:
    """A summary: counts, the largest slides, why patches are missing, and a few patches."""
    slides = sorted(store.slides.values(), key=len, reverse=True)
    rows = "".join(_row(slide) for slide in slides[:_SLIDES_SHOWN])
    more = len(slides) - _SLIDES_SHOWN
    rest = f"<p>and {more:,} more slides</p>" if more > 0 else ""
    dropped: Counter[str] = Counter()
    for slide in slides:
        dropped.update(slide.record.counts.get("dropped", {}))
    reasons = ", ".join(f"{count:,} {html.escape(reason)}" for reason, count in dropped.most_common()) or "none"
    return (
        f"<div><p><b>{html.escape(str(store.path))}</b>: {len(store):,} patches of {store.record.patch_px} px from "
        f"{len(slides):,} slides, codec {html.escape(store.record.codec)}; dropped: {reasons}</p>"
        "<table><thead><tr><th>slide</th><th>patches</th><th>mpp</th><th>patient</th><th>kind</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{rest}{_patches(store)}</div>"
    )


def _row(slide: SlidePatches) -> str:
    record = slide.record
    cells = (record.name, f"{len(slide):,}", f"{record.reading['effective_mpp']:.4g}", record.patient, record.kind)
    return "<tr>" + "".join(f"<td>{html.escape(str(cell or ''))}</td>" for cell in cells) + "</tr>"


def _patches(store: Store) -> str:
    """A strip of patches spread over the store, in their stored JPEG bytes."""
    if store.record.codec != "jpeg" or not len(store):
        return ""
    chosen = np.unique(np.linspace(0, len(store) - 1, _PATCHES_SHOWN).astype(int))
    pictures = []
    for index in chosen:
        slide, row = store.locate(int(index))
        data = base64.b64encode(slide.encoded(row)).decode()
        title = html.escape(f"{slide.key}, row {row}")
        pictures.append(f'<img src="data:image/jpeg;base64,{data}" width="96" height="96" title="{title}">')
    return f'<div style="display:flex;gap:4px">{"".join(pictures)}</div>'
