from __future__ import annotations

import numpy as np

from wsicurate.pixels.stain import EOSIN, HAEMATOXYLIN, from_stains, optical_density, separation_matrix


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


def test_separation_solves_for_the_stains(rng: np.random.Generator) -> None:
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    absorption = np.stack([v / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN, residual)])
    stains = rng.uniform(0, 1, (50, 3))
    density = stains @ absorption  # Beer-Lambert: each row of absorption times its amount, summed
    np.testing.assert_allclose(density @ separation_matrix().T, stains, atol=1e-6)
    assert abs(absorption[2] @ absorption[0]) < 1e-6
    assert abs(absorption[2] @ absorption[1]) < 1e-6


def test_separation_takes_painted_stains_apart() -> None:
    haematoxylin, eosin = np.float32([[0.8, 0.1]]), np.float32([[0.1, 0.4]])
    found = optical_density(np.round(from_stains(haematoxylin, eosin)).astype(np.uint8)) @ separation_matrix().T
    np.testing.assert_allclose(found[..., 0], haematoxylin, atol=0.02)
    np.testing.assert_allclose(found[..., 1], eosin, atol=0.02)
    np.testing.assert_allclose(found[..., 2], 0, atol=0.02)
