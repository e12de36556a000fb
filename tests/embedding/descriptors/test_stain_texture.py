from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.embedding.descriptors.projected_contract import ProjectedContract, digest, real_patches, symmetries
from wsicurate.embedding.descriptors.stain_texture import CHANNELS, StainTexture, _channels, stain_texture_features
from wsicurate.pixels.stain import optical_density, separation_matrix

#: The first numbers of the golden patch's vector. If they change, so must the version.
GOLDEN = [0.0376, -0.0196, -0.0045, -0.0324, 0.0910, -0.0186, 0.0670, -0.1149, 0.0342, -0.0048, 0.1212, -0.0531]


class TestStainTexture(ProjectedContract):
    descriptor = StainTexture()
    real_copies_found = 0.97

    def test_golden_values_of_this_version(self, patches: NDArray[np.uint8]) -> None:
        assert digest(patches[0]) == "f21def1804e4af6c", "the synthetic patch changed, not the descriptor"
        assert (self.descriptor.name, self.descriptor.version, self.descriptor.dim) == ("stain-texture", 1, 96)
        np.testing.assert_allclose(self.descriptor(patches[:1])[0][: len(GOLDEN)], GOLDEN, atol=2e-4)

    def test_symmetries_are_equal_to_the_bit(self, patches: NDArray[np.uint8]) -> None:
        for patch in (patches[0], patches[1][:224, :224], patches[2][:64, :64]):
            vectors = self.descriptor(symmetries(patch))
            assert all(np.array_equal(vector, vectors[0]) for vector in vectors)

    def test_small_changes_of_stain_and_recompression_stay_nearest(self, shared: Path) -> None:
        patches, _ = real_patches(shared)
        before = self.descriptor(patches)
        data = [cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, 70])[1] for patch in patches]
        again = np.stack([np.asarray(cv2.imdecode(one, cv2.IMREAD_COLOR), np.uint8) for one in data])
        gamma = (255 * (patches / 255.0) ** 1.05 + 0.5).astype(np.uint8)
        for changed in (again, gamma):
            assert ((self.descriptor(changed) @ before.T).argmax(axis=1) == np.arange(len(patches))).mean() > 0.98


def test_channels_are_the_stains_by_the_formula(patches: NDArray[np.uint8]) -> None:
    patch = patches[0]
    stains = optical_density(patch) @ separation_matrix().T
    slow = {
        "haematoxylin": 40 + 150 * stains[..., 0],
        "eosin": 60 + 150 * stains[..., 1],
        "residual": 128 + 300 * stains[..., 2],
        "density": 150 * optical_density(patch).mean(axis=-1),
    }
    found = _channels(patch)
    assert tuple(found) == CHANNELS
    for name, channel in found.items():
        # Densities are rounded to grey levels before they are taken apart, which the inverse enlarges.
        assert np.abs(channel - slow[name].clip(0, 255)).max() < 4, name
        assert abs((channel - slow[name].clip(0, 255)).mean()) < 0.6, name


def test_features_are_finite_and_of_the_documented_number(patches: NDArray[np.uint8]) -> None:
    features = stain_texture_features(patches[0])
    assert features.shape == (275,)
    assert np.isfinite(features).all()
