from __future__ import annotations

import numpy as np

from wsicurate.tissue.tiatoolbox_masks import tiatoolbox_morphological, tiatoolbox_otsu


def overview() -> np.ndarray:
    picture = np.full((200, 300, 3), 240, dtype=np.uint8)
    picture[50:150, 60:200] = (190, 120, 170)
    picture[10:12, 280:282] = (190, 120, 170)  # a speck of 16 µm
    grain = np.random.default_rng(0).integers(-8, 9, picture.shape[:2])
    return np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)


def test_otsu_finds_the_dark_and_morphology_drops_specks_and_dilates() -> None:
    plain = tiatoolbox_otsu(overview(), 8.0)
    assert plain[50:150, 60:200].mean() > 0.9  # what is as dark as the threshold itself is not below it
    assert plain[10:12, 280:282].any()
    assert plain.sum() - plain[50:150, 60:200].sum() - plain[10:12, 280:282].sum() == 0
    cleaned = tiatoolbox_morphological(overview(), 8.0)
    assert not cleaned[:40, 250:].any()
    assert cleaned[50:150, 60:200].all()
    assert 100 * 140 <= cleaned.sum() <= 104 * 144


def test_finer_overviews_are_masked_at_8_um() -> None:
    fine = np.kron(overview(), np.ones((2, 2, 1), dtype=np.uint8))
    coarse = tiatoolbox_morphological(overview(), 8.0)
    np.testing.assert_array_equal(tiatoolbox_morphological(fine, 4.0)[::2, ::2], coarse)


def test_a_uniform_overview_has_no_tissue() -> None:
    for mask in (tiatoolbox_otsu, tiatoolbox_morphological):
        assert not mask(np.full((50, 60, 3), 235, dtype=np.uint8), 10.0).any()
