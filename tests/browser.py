"""Pages in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: Chromium asks for nothing on the network by itself.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")

#: Faults that keep people out.
GRAVE = ("serious", "critical")


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium; Debian's package is called chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=[*QUIET, "--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def faults(page: Any) -> list[str]:
    """What axe-core finds on an open page that is serious or worse: the rule, and where."""
    import axe_core_python

    page.evaluate((importlib.resources.files(axe_core_python) / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {node['html'][:120]}"
        for fault in found["violations"]
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]
