"""`report`, as a reader meets it."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.damage import flip
from wsicurate.cli import app
from wsicurate.config import CurateConfig, EmbedConfig, ReportConfig, TileConfig
from wsicurate.errors import ConfigError, ManifestError
from wsicurate.opening import open_store
from wsicurate.steps.curate import curate
from wsicurate.steps.embed import embed
from wsicurate.steps.report import write_report
from wsicurate.steps.tile import tile

QUICK = ReportConfig(map_patches=20)


@pytest.fixture(scope="module")
def page(curated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the curation ``half``: read it, never write to it."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    found = write_report(curated_store, path, QUICK)
    assert (found.exit_status, found.slides, found.bytes) == (0, 3, path.stat().st_size)
    return path


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text without scripts and styles."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    elements = Elements(page)
    for tag, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    styles = "".join(re.findall(r"<style>.*?</style>", page.read_text(encoding="utf-8"), flags=re.S))
    assert "url(" not in styles and "@import" not in styles
    assert page.stat().st_size < 3_000_000


def test_it_is_read_aloud_and_by_keyboard(page: Path) -> None:
    elements = Elements(page)
    assert elements.all("html")[0]["lang"] == "en" and len(elements.all("h1")) == 1 and len(elements.all("main")) == 1
    images = elements.all("img")
    assert len(images) > 20 and all(image.get("alt") for image in images)
    ids = {attributes.get("id") for _, attributes in elements.found}
    for link in elements.all("a"):
        assert str(link["href"])[1:] in ids
    for section in elements.all("section"):
        assert section["aria-labelledby"] in ids
    assert all(cell.get("scope") for cell in elements.all("th"))


def test_it_says_what_was_decided(page: Path, curated_store: Path) -> None:
    text = " ".join(Elements(page).text.split())
    manifest = open_store(curated_store).curation("half").manifest()
    selected = sum(manifest["selected"].to_pylist())
    assert f"{selected:,} of {len(manifest):,} patches were selected" in text
    assert "This curation was not evaluated: whether it is better than a random draw is not known" in text
    assert "Copies were not looked for." in text and "Nothing was compared" in text
    assert f"wsicurate report {curated_store} -o {page} --curation half" in text
    for slide in open_store(curated_store).slides.values():
        assert slide.record.name in text


def test_names_are_text(paint: object, tmp_path: Path) -> None:
    slide, _ = paint("slides/<script>alert(1)</script>&amp;.svs")  # type: ignore[operator]
    store = tmp_path / "a.zarr"
    tile(slide.parent.parent, store, TileConfig(workers=1))
    embed(store, EmbedConfig(encoder="stain-texture", workers=1))
    curate(store, CurateConfig(encoder="stain-texture", budget=0.5, copies="none", clusters=(4,), evaluate=False))
    write_report(store, tmp_path / "report.html", QUICK)
    assert "<script>alert(1)" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)</script>&amp;.svs" in Elements(tmp_path / "report.html").text


def test_a_store_without_a_curation(small_slides: Path, tmp_path: Path) -> None:
    tile(small_slides, tmp_path / "a.zarr", TileConfig(workers=1))
    found = write_report(tmp_path / "a.zarr", tmp_path / "report.html")
    assert found.verdict[0].endswith("nothing was curated yet.") and found.clusters == 0


def test_damaged_slides_are_named(curated_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(curated_store, tmp_path / "a.zarr"))
    key = next(iter(open_store(store).slides))
    flip(store / "slides" / key / "zarr.json", 0.5)
    found = write_report(store, tmp_path / "report.html", QUICK)
    assert found.exit_status == 3 and set(found.left_out) == {key} and found.slides == 2
    assert f"{key} does not read back and is left out" in Elements(tmp_path / "report.html").text


def test_what_cannot_be(curated_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="quarter"):
        write_report(curated_store, tmp_path / "report.html", ReportConfig(curation="quarter"))
    with pytest.raises(ConfigError, match="is a folder; name a file, such as"):
        write_report(curated_store, tmp_path)
    store = Path(shutil.copytree(curated_store, tmp_path / "a.zarr"))
    curate(
        store,
        CurateConfig(encoder="stain-texture", name="other", budget=0.5, copies="none", clusters=(4,), evaluate=False),
    )
    (tmp_path / "report.html").write_text("earlier")
    with pytest.raises(ConfigError, match="has the curations half, other; name one with --curation"):
        write_report(store, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "earlier"


def test_the_command(curated_store: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(
        app, ["report", str(curated_store), "-o", str(tmp_path / "report.html"), "--map-patches", "20"]
    )
    assert ended.exit_code == 0 and "3 slides and" in ended.output and (tmp_path / "report.html").exists()
