from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsicurate.report.pairs import PatchPair, pair_sheet


def test_pairs_stand_side_by_side_in_their_colours(tmp_path: Path) -> None:
    red, blue = (np.full((64, 64, 3), colour, np.uint8) for colour in ((250, 10, 20), (10, 20, 250)))
    assert pair_sheet([PatchPair(red, blue, "0.9")] * 7, tmp_path / "pairs.png", columns=3, patch_px=50) == 7
    sheet = cv2.imread(str(tmp_path / "pairs.png"))[..., ::-1]
    assert sheet.shape == (3 * 78, 3 * 108, 3)
    assert sheet[25, 25].tolist() == [250, 10, 20]
    assert sheet[25, 75].tolist() == [10, 20, 250]
    assert sheet[2 * 78 + 25, 2 * 108 + 25].tolist() == [255, 255, 255]


def test_a_sheet_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pair"):
        pair_sheet([], tmp_path / "pairs.png")
