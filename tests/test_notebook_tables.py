"""What notebooks show: small tables whose texts are escaped, and overviews of slides as images within them."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsicurate
from wsicurate.config import TileConfig
from wsicurate.engine.progress import SlideOutcome
from wsicurate.html_tables import table_html
from wsicurate.opening import open_store
from wsicurate.pixels.jpeg import decode_jpeg
from wsicurate.steps.check import CheckReport, check
from wsicurate.steps.curate import CurateReport
from wsicurate.steps.embed import EmbedReport
from wsicurate.steps.export import ExportReport
from wsicurate.steps.imports import DroppedPatch, ImportReport
from wsicurate.steps.info import info
from wsicurate.steps.materialise import MaterialiseReport
from wsicurate.steps.report import PageReport
from wsicurate.steps.run import RunReport
from wsicurate.steps.tile import TileReport, tile
from wsicurate.store.verify import Problem
from wsicurate.testing.fake_slide import FakeSlide, Rectangle

HOSTILE = "<script>alert(1)</script>\"'&.svs"


class Page(HTMLParser):
    """The cells of a page, and whether its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.described: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.described += [value for name, value in attributes if name in ("alt", "title")]
        if tag not in ("img", "br"):
            self.open.append(tag)
        else:
            self.text += "\n"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += "\n"

    def handle_data(self, data: str) -> None:
        self.text += data

    def rows(self) -> dict[str, str]:
        lines = [line for line in self.text.splitlines() if line]
        return dict(pairwise(lines))


def pictures_of(html: str) -> list[np.ndarray]:
    return [decode_jpeg(base64.b64decode(data)) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", html)]


def test_values_are_words_and_what_is_empty_is_left_out() -> None:
    html = table_html(
        "a <b>",
        {
            "number": 12345,
            "share": 0.123456,
            "flag": True,
            "list": [f"<{number}>" for number in range(11)],
            "counts": {"a&b": 1000},
            **dict(zip("vwxyz", (None, "", [], {}, ()), strict=True)),
        },
    )
    page = Page(html)
    assert page.tags.count("tr") == 5
    rows = page.rows()
    assert rows["number"] == "12,345" and rows["share"] == "0.1235" and rows["flag"] == "yes"
    assert rows["counts"] == "a&b: 1,000"
    assert "<7>\nand 3 more" in page.text
    assert "<b>" in page.text and "<8>" not in page.text


def test_a_slide_of_a_store_shows_its_overview(curated_store: Path) -> None:
    slide = next(iter(open_store(curated_store).slides.values()))
    html = slide._repr_html_()
    rows = Page(html).rows()
    assert rows["patches"].startswith(f"{len(slide):,} of 256 px at 0.5 µm per pixel")
    assert rows["vectors by"] == "stain-texture"
    (picture,) = pictures_of(html)
    assert max(picture.shape) <= 320
    assert np.abs(picture.mean(axis=(0, 1)) - slide.overview.mean(axis=(0, 1))).max() < 3
    assert len(html) < 60_000
    slide.record = replace(slide.record, name=HOSTILE, label="<i>")
    page = Page(slide._repr_html_())
    assert not {"script", "i"} & set(page.tags)
    assert HOSTILE in page.text and page.rows()["label"] == "<i>"
    assert page.described == [f"overview of {HOSTILE}"] * 2


def test_a_damaged_overview_is_said(tmp_path: Path, small_slides: Path) -> None:
    store = tmp_path / "s.zarr"
    tile([small_slides], store, TileConfig(workers=1, max_patches_per_slide=2))
    for file in (store / "slides").glob("*/overview/c/**/*"):
        if file.is_file():
            file.write_bytes(b"no")
    slide = next(iter(open_store(store).slides.values()))
    html = slide._repr_html_()
    assert not pictures_of(html)
    assert Page(html).rows()["overview"].startswith("cannot be read: wsicurate check")


def test_an_open_slide_shows_itself(small_slides: Path) -> None:
    path = sorted(small_slides.rglob("*.svs"))[0]
    with wsicurate.open_slide(path) as slide:
        html = slide._repr_html_()  # type: ignore[attr-defined]
        full = slide.levels[0]
    rows = Page(html).rows()
    assert rows["level 0"] == f"{full.width:,} x {full.height:,} px"
    assert rows["reader"] == slide.reader
    assert max(pictures_of(html)[0].shape) == 320


def test_a_slide_that_cannot_be_shown_is_described_all_the_same() -> None:
    pixels = np.full((32, 64, 3), 200, dtype=np.uint8)
    slide = FakeSlide(pixels, unreadable=[Rectangle(0, 0, 8, 8)], name=HOSTILE)
    html = slide._repr_html_()
    assert not pictures_of(html) and HOSTILE in Page(html).text


def test_a_curation_shows_its_decisions(curated_store: Path) -> None:
    curation = open_store(curated_store).curation("half")
    rows = Page(curation._repr_html_()).rows()
    selected = int(sum(curation.manifest()["selected"].to_pylist()))
    total = curation.manifest().num_rows
    assert rows["selected"] == f"{selected:,} ({selected / total:.1%})"
    assert rows["patches"] == f"{total:,}"
    assert rows["selection encoder"] == "stain-texture" and rows["evaluation"] == "none"


OUTCOMES = (
    SlideOutcome(slide_id="a", name="a.svs", status="tiled", patches=1200, warnings=("odd",)),
    SlideOutcome(slide_id="b", name=HOSTILE, status="failed", message="broken <here>"),
)
RUN = {
    "counts": {"selected": 3, "copy": 1},
    "encoder": {"encoder": "e", "licence": "<l>"},
    "evaluation": {"reason": "none was <asked> for"},
    "notes": ["<n>"],
}
TILED = TileReport(store=Path("s.zarr"), outcomes=OUTCOMES, seconds=2)
EMBEDDED = EmbedReport(store=Path("s.zarr"), encoder="<e>", outcomes=OUTCOMES, terms="<terms>")
CURATED = CurateReport(
    store=Path("s.zarr"), name="half", status="curated", counts=RUN["counts"], run=RUN, seconds=1, left_out={"k": "<w>"}
)

REPORTS: list[tuple[Any, list[str]]] = [
    (TILED, ["1,200", "1 tiled, 1 failed", f"{HOSTILE}: broken <here>", "a.svs: odd", "2.0 s"]),
    (
        ImportReport(store=Path("s"), outcomes=OUTCOMES, dropped=[DroppedPatch(name="<p>", reason="size")]),
        ["<p>: size"],
    ),
    (
        MaterialiseReport(store=Path("s"), outcomes=(), parent=Path("<old>"), curation="half", without_patches=2),
        ["<old>", "half", "2"],
    ),
    (EMBEDDED, ["<e>", "<terms>", "1,200"]),
    (CURATED, ["k: <w>", "curation half", "3 (75.0%)", "<l>", "none was <asked> for", "<n>"]),
    (RunReport(tiled=TILED, embedded=(EMBEDDED,), curated=CURATED), ["TileReport", "EmbedReport", "curation half"]),
    (
        ExportReport(
            destination=Path("<d>"), to="csv", status="exported", patches=5, slides=1, files=2, bytes=3_000_000
        ),
        ["<d>", "2 of 3.0 MB"],
    ),
    (
        PageReport(path=Path("<r>.html"), bytes=10, slides=1, clusters=2, verdict=("<v>",), left_out={}, seconds=1),
        ["<r>.html", "<v>"],
    ),
    (
        CheckReport(store=Path("s"), problems=[Problem("<key>", "bad")], in_progress=(), slides=1, patches=2, bytes=3),
        ["<key>: bad"],
    ),
]


@pytest.mark.parametrize(("report", "texts"), REPORTS, ids=lambda value: type(value).__name__)
def test_reports_of_runs_show_themselves_and_escape(report: Any, texts: list[str]) -> None:
    page = Page(report._repr_html_())
    lines = page.text.splitlines()
    assert [text for text in texts if text not in lines] == []
    assert set(page.tags) <= {"div", "p", "b", "table", "tbody", "tr", "th", "td", "br"}


def test_a_summary_and_a_check_show_themselves(curated_store: Path) -> None:
    summary = Page(info(curated_store)._repr_html_()).rows()
    assert summary["slides"] == "3" and summary["slides with vectors by"] == "stain-texture: 3"
    assert Page(check(curated_store)._repr_html_()).rows()["problems"] == "none"


def test_a_store_with_hostile_names_is_escaped(curated_store: Path) -> None:
    store = open_store(curated_store)
    slide = next(iter(store.slides.values()))
    slide.record = replace(slide.record, name=HOSTILE)
    slide.key = HOSTILE
    page = Page(store._repr_html_())
    assert "script" not in page.tags and HOSTILE in page.text
