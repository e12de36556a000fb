from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.embedding.descriptors.projected_contract import ProjectedContract, digest
from wsicurate.embedding.descriptors.filter_bank import (
    FilterBank,
    _coherence,
    _Responses,
    filter_bank_features,
    standardised_density,
)
from wsicurate.pixels.stain import optical_density

#: The first numbers of the golden patch's vector. If they change, so must the version.
GOLDEN = [0.1530, 0.0642, -0.0543, -0.0047, -0.0134, 0.0132, 0.0184, -0.1216, 0.1829, -0.1037, -0.2584, -0.0393]


class TestFilterBank(ProjectedContract):
    descriptor = FilterBank()
    real_copies_found = 0.9

    def test_golden_values_of_this_version(self, patches: NDArray[np.uint8]) -> None:
        assert digest(patches[0]) == "f21def1804e4af6c", "the synthetic patch changed, not the descriptor"
        assert (self.descriptor.name, self.descriptor.version, self.descriptor.dim) == ("filter-bank", 1, 96)
        np.testing.assert_allclose(self.descriptor(patches[:1])[0][: len(GOLDEN)], GOLDEN, atol=2e-4)

    def test_it_is_blind_to_hue_and_nearly_to_strength(self, patches: NDArray[np.uint8]) -> None:
        before = self.descriptor(patches)
        assert ((self.descriptor(patches[..., ::-1]) * before).sum(axis=1) > 0.999999).all()
        paler = (255 * (patches / 255.0) ** 0.8 + 0.5).astype(np.uint8)  # four fifths of every stain
        assert ((self.descriptor(paler) * before).sum(axis=1) > 0.97).all()


def waves(degrees: float, period: float = 12, side: int = 128) -> NDArray[np.float32]:
    y, x = np.mgrid[:side, :side]
    angle = np.deg2rad(degrees)
    return np.cos((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period).astype(np.float32)


def test_responses_do_not_depend_on_orientation() -> None:
    inner = (slice(16, -16), slice(16, -16))
    upright = _Responses.of(waves(0))
    for degrees in (17, 30, 45, 71):
        turned = _Responses.of(waves(degrees))
        for name in ("edge", "line"):
            means = [float(getattr(responses, name)[inner].mean()) for responses in (upright, turned)]
            np.testing.assert_allclose(means[1], means[0], rtol=0.05)
        np.testing.assert_allclose(turned.blob[inner].std(), upright.blob[inner].std(), rtol=0.05)


def test_filters_are_derivatives() -> None:
    y, x = np.mgrid[:32, :32].astype(np.float32)
    responses = _Responses.of(np.float32(0.5) * x * x + 2 * x * y - 3 * y)
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(responses.gradient_x[inner], (x + 2 * y)[inner], atol=1e-3)
    np.testing.assert_allclose(responses.gradient_y[inner], (2 * x - 3)[inner], atol=1e-3)
    np.testing.assert_allclose(responses.blob[inner], 1, atol=1e-3)
    np.testing.assert_allclose(responses.line[inner], np.hypot(1, 4), atol=1e-3)


def test_coherence_is_one_for_waves_and_small_for_noise(rng: np.random.Generator) -> None:
    assert (_coherence(_Responses.of(waves(33))) > 0.95).all()
    local, over_all = _coherence(_Responses.of(rng.normal(size=(128, 128)).astype(np.float32)))
    assert over_all < 0.1 < local < 0.5


def test_density_is_standardised_by_the_formula(patches: NDArray[np.uint8]) -> None:
    density = optical_density(patches[0]).mean(axis=-1).astype(np.float64)
    slow = (density - density.mean()) / (density.std() + 0.02)
    np.testing.assert_allclose(standardised_density(patches[0]), slow, atol=1e-4)


def test_features_are_finite_and_of_the_documented_number(patches: NDArray[np.uint8]) -> None:
    features = filter_bank_features(patches[0])
    assert features.shape == (149,)
    assert np.isfinite(features).all()
