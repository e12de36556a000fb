from __future__ import annotations

import numpy as np

from wsicurate.pixels.stain import EOSIN, HAEMATOXYLIN, from_stains, optical_density


def test_density_of_painted_stain_is_what_was_painted() -> None:
    amounts = np.linspace(0, 1, 30, dtype=np.float32).reshape(5, 6)
    pixels = from_stains(amounts, 0.3 * amounts)
    density = optical_density(np.rint(pixels).astype(np.uint8))
    wanted = amounts[..., None] * HAEMATOXYLIN + 0.3 * amounts[..., None] * EOSIN
    assert np.abs(density - wanted).max() < 0.01


def test_glass_has_no_density_and_black_a_finite_one() -> None:
    image = np.array([[[255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
    density = optical_density(image)
    assert (density[0, 0] == 0).all()
    assert np.isfinite(density).all()
    assert density[0, 1].min() > 2.3


def test_stain_vectors_are_unit_vectors() -> None:
    assert np.allclose([np.linalg.norm(HAEMATOXYLIN), np.linalg.norm(EOSIN)], 1, atol=1e-2)
