from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsicurate.errors import ConfigError
from wsicurate.plugins import Plugin, plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    monkeypatch.syspath_prepend(tmp_path)
    plugins.cache_clear()
    yield tmp_path
    plugins.cache_clear()
    importlib.invalidate_caches()


def install(site: Path, package: str, points: str) -> None:
    folder = site / f"{package}-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(points)


def test_what_is_installed_is_found_and_imported_when_asked_for(site: Path) -> None:
    install(site, "mine", "[wsicurate.masks]\nbright = mine_masks:Bright\ndark = mine_masks:Dark\n")
    (site / "mine_masks.py").write_text("class Bright:\n    pass\n")
    found = plugins("masks")
    assert found["bright"] == Plugin("bright", "mine_masks:Bright", "mine 1.2")
    assert "mine_masks" not in sys.modules
    assert found["bright"].load().__name__ == "Bright"
    with pytest.raises(
        ConfigError, match=r"'dark' of mine 1.2 cannot be imported from mine_masks:Dark: AttributeError"
    ):
        found["dark"].load()
    assert not {"bright", "dark"} & set(plugins("readers"))


def test_a_name_that_two_packages_bring_is_refused(site: Path) -> None:
    install(site, "one", "[wsicurate.masks]\nbright = one:A\n")
    install(site, "two", "[wsicurate.masks]\nbright = two:A\n")
    with pytest.raises(ConfigError, match=r"'bright' of the masks is brought by one 1.2 and by two 1.2; remove one"):
        plugins("masks")
