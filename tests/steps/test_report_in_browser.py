"""The page of `report` in Chromium: drawn without an error, for everybody, by hover and by keyboard, and on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, faults
from wsicurate.config import ReportConfig
from wsicurate.steps.report import write_report


@pytest.fixture(scope="module")
def shown(curated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens the page of ``half``, with what the browser complained of and asked for."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with browser() as chromium:
        write_report(curated_store, path, ReportConfig(map_patches=20))

        def opened(width: int = 1_400, scheme: str = "light", *, scripts: bool = True) -> Any:
            size = {"width": width, "height": 900}
            page = chromium.new_page(viewport=size, color_scheme=scheme, java_script_enabled=scripts)
            page.complaints, page.asked = [], []
            page.on("console", lambda message: page.complaints.append(message.text))
            page.on("pageerror", lambda error: page.complaints.append(str(error)))
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(path.as_uri())
            page.wait_for_selector("#chart-map.vega-embed svg" if scripts else "#chart-map svg")
            return page

        yield opened


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1_400, "light"),
        (400, "dark"),
        pytest.param(1_400, "dark", marks=pytest.mark.slow),
        pytest.param(400, "light", marks=pytest.mark.slow),
    ],
)
def test_it_is_for_everybody(shown: Callable[..., Any], width: int, scheme: str) -> None:
    page = shown(width, scheme)
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(("data:", "file:"))] == []
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hover_shows_a_patch_and_a_list_colours_the_map(shown: Callable[..., Any]) -> None:
    page = shown()
    points = page.locator("#chart-map .mark-symbol.role-mark path")
    assert points.count() == 20

    def fills() -> list[str]:
        return [str(points.nth(place).get_attribute("fill")) for place in range(20)]

    def legend() -> list[str]:
        return list(page.locator("#chart-map .role-legend-label text").all_text_contents())

    points.nth(3).scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # pictures above it are loaded
    points.nth(3).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible img[src^='data:image']")
    assert set(legend()) <= {"selected", "not_drawn", "over_cap", "low_quality"}
    by_decision = fills()
    page.locator("#chart-map select").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => !document.querySelector('#chart-map .role-legend-label').textContent.match('sel')")
    assert fills() != by_decision and all(label.isdigit() for label in legend())


def test_by_keyboard_alone(shown: Callable[..., Any]) -> None:
    page = shown()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdict")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"SELECT", "SUMMARY", "PRE"} <= reached


def test_without_scripts_and_on_paper_the_charts_are_there(shown: Callable[..., Any]) -> None:
    page = shown(scripts=False)
    assert page.locator("#chart-map svg").count() == 1 and page.locator("#chart-sizes svg").count() == 1
    assert len(page.pdf(format="A4")) > 50_000
