"""The contract of tissue masks: ours and two examples keep it, and what breaks it is noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import REPOSITORY
from wsicurate.testing.mask_contract import MaskContract
from wsicurate.tissue.find import MASKS


@pytest.mark.parametrize("name", sorted(MASKS))
@pytest.mark.parametrize("test", [name for name in sorted(dir(MaskContract)) if name.startswith("test_")])
def test_our_own(name: str, test: str) -> None:
    contract = MaskContract()
    contract.make_mask = lambda: MASKS[name][0]  # type: ignore[method-assign]
    getattr(contract, test)()


class Coloured:
    """What has a colour, at another resolution than the overview's."""

    mpp = 2.0

    def __call__(self, overview: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
        return np.asarray(overview.max(axis=2) - overview.min(axis=2) > 30)


class TestColoured(MaskContract):
    def make_mask(self) -> Coloured:
        return Coloured()


class Tiled:
    """The same for tiles, with a fault perhaps."""

    name, version, mpp, tile_px, batch = "tiled", 3, 1.0, 64, 4

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.calls = 0
        if fault == "facts":
            self.version = -1.5  # type: ignore[assignment]
        if fault == "pickle":
            self.never = lambda: None

    def predict(self, tiles: NDArray[np.uint8], mpp: float) -> NDArray[Any]:
        self.calls += 1
        found = np.asarray(tiles.max(axis=3) - tiles.min(axis=3) > 30)
        if self.fault == "writes":
            tiles[0, 0, 0] = 0
        if self.fault == "shape":
            return found[:, :-1]
        if self.fault == "type":
            return found.astype(np.uint8)
        if self.fault == "blank":
            return found | (tiles.max(axis=3) < 250)
        if self.fault == "empty":
            return found & False
        if self.fault == "random":
            return found ^ (np.random.default_rng().random(found.shape) < 0.01)
        if self.fault == "state":
            return found & (self.calls < 3)
        if self.fault == "batch":
            return found & found[:1]
        return found


class TestTiled(MaskContract):
    def make_mask(self) -> Tiled:
        return Tiled()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("facts", "it_has_what_tile_asks_for"),
        ("shape", "it_gives_a_bool_for_each_pixel"),
        ("type", "it_gives_a_bool_for_each_pixel"),
        ("empty", "tissue_is_found_and_background_is_not"),
        ("blank", "a_blank_slide_has_no_tissue"),
        ("random", "the_same_picture_gives_the_same_mask"),
        ("batch", "a_tile_s_mask_does_not_depend_on_its_batch"),
        ("state", "a_tile_s_mask_does_not_depend_on_its_batch"),
        ("writes", "what_it_is_shown_is_left_as_it_is"),
        ("pickle", "it_can_be_sent_to_a_worker"),
    ],
)
def test_a_fault_is_noticed(fault: str, test: str) -> None:
    contract = MaskContract()
    contract.make_mask = lambda: Tiled(fault)  # type: ignore[method-assign]
    with pytest.raises(Exception) as caught:
        getattr(contract, f"test_{test}")()
    expected = AttributeError if fault == "pickle" else AssertionError | ValueError  # ConfigError is a ValueError
    assert isinstance(caught.value, expected) or "pickle" in type(caught.value).__name__.lower()


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Any) -> None:
    text = (REPOSITORY / "docs" / "extending" / "masks.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "blocks.py").write_text("\n".join(blocks))
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "blocks.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    patches, mask = ended.stdout.splitlines()
    assert re.fullmatch(r"[1-9]\d* patches", patches)
    assert mask == "network-2024-1 (__main__)"
