"""Figures of slides, patches, vectors, subsets and what a vision transformer looks at; they need matplotlib.

Functions that draw into one axes take ``ax=``, and return it; the others return a figure. Nothing is saved or shown:
a notebook shows what a cell returns, and elsewhere ``figure.savefig`` does. ``pip install "wsicurate[plots]"``.
"""

from __future__ import annotations

from wsicurate.plots.attention import attention_heads, attention_map, attention_region
from wsicurate.plots.coverage import coverage_against_budget
from wsicurate.plots.embedding_map import embedding_map
from wsicurate.plots.mosaic import mosaic
from wsicurate.plots.neighbours import similarity_histogram
from wsicurate.plots.region import stitched_region
from wsicurate.plots.slide_overview import slide_overview
from wsicurate.plots.token_colours import token_colours

__all__ = [
    "attention_heads",
    "attention_map",
    "attention_region",
    "coverage_against_budget",
    "embedding_map",
    "mosaic",
    "similarity_histogram",
    "slide_overview",
    "stitched_region",
    "token_colours",
]
