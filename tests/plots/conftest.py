from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest

from wsicurate.opening import open_store
from wsicurate.store.store import Store


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    """Figures are drawn without a screen, and closed after each test."""
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")
    matplotlib.use(before)


@pytest.fixture
def store(curated_store: Path) -> Store:
    return open_store(curated_store)
