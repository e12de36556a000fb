"""What holds for our descriptors, besides what holds for every one."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.embedding.descriptors.projected import ProjectedDescriptor
from wsicurate.testing.descriptor_contract import ODD_PATCHES, DescriptorContract


def symmetries(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The eight, the identity first."""
    return np.stack([np.rot90(image, quarters) for image in (patch, patch[::-1]) for quarters in range(4)])


def real_patches(shared: Path) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Seventy colorectal patches and the tissue of each."""
    paths = sorted((shared / "patches" / "colorectal").glob("*.jpg"))
    images = [np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8) for path in paths]
    return np.stack(images), np.array([path.name[:3] for path in paths])


def share_found(descriptor: ProjectedDescriptor, patches: NDArray[np.uint8]) -> float:
    """How many patches turned by 20 degrees are nearest to themselves turned back by 11 and smaller."""
    side = patches.shape[1]
    edge, copies = side * 3 // 16, []
    for degrees, zoom in ((20, 1.1), (-11, 0.9)):
        motion = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, zoom)
        turned = [cv2.warpAffine(patch, motion, (side, side), flags=cv2.INTER_CUBIC) for patch in patches]
        copies.append(descriptor(np.stack(turned).astype(np.uint8)[:, edge:-edge, edge:-edge]))
    return float(((copies[0] @ copies[1].T).argmax(axis=1) == np.arange(len(patches))).mean())


class ProjectedContract(DescriptorContract):
    descriptor: ProjectedDescriptor
    real_copies_found: float

    def test_it_says_what_it_is_and_is_frozen(self) -> None:
        assert dataclasses.is_dataclass(self.descriptor)
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.descriptor.version = 2  # type: ignore[misc]
        assert type(self.descriptor)() == self.descriptor

    def test_vectors_are_unit_float32_and_survive_float16(self, patches: NDArray[np.uint8]) -> None:
        vectors = self.descriptor(patches)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(patches), self.descriptor.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
        halved = vectors.astype(np.float16).astype(np.float32)
        assert ((vectors * halved).sum(axis=1) / np.linalg.norm(halved, axis=1) > 0.999999).all()

    @pytest.mark.parametrize("side", [32, 33, 45, 100, 224, 299, 600, 1024])
    def test_symmetries_of_the_square_are_one_patch(self, patches: NDArray[np.uint8], side: int) -> None:
        patch = cv2.resize(patches[0], (side, side), interpolation=cv2.INTER_CUBIC)
        vectors = self.descriptor(symmetries(np.asarray(patch, np.uint8)))
        assert (vectors @ vectors[0] > 0.999).all(), vectors @ vectors[0]

    def test_a_turned_and_zoomed_copy_is_nearer_than_another_patch(self, patches: NDArray[np.uint8]) -> None:
        # Synthetic patches are more alike than any real ones, and few: chance is 1 in 12.
        assert share_found(self.descriptor, patches) >= 0.5

    def test_a_turned_and_zoomed_copy_is_nearer_than_another_real_patch(self, shared: Path) -> None:
        assert share_found(self.descriptor, real_patches(shared)[0]) >= self.real_copies_found

    @pytest.mark.parametrize("name", ODD_PATCHES)
    @pytest.mark.parametrize("side", [32, 64, 1024])
    def test_odd_patches_have_unit_vectors(self, name: str, side: int) -> None:
        patch = cv2.resize(ODD_PATCHES[name], (side, side), interpolation=cv2.INTER_NEAREST)
        vector = self.descriptor(np.asarray(patch, np.uint8)[None])[0]
        assert np.isfinite(vector).all()
        np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-6)

    def test_sides_may_differ(self, patches: NDArray[np.uint8]) -> None:
        assert np.isfinite(self.descriptor(patches[:1, :100, :237])).all()

    def test_float_patches_are_refused(self, patches: NDArray[np.uint8]) -> None:
        with pytest.raises(ValueError, match="uint8"):
            self.descriptor(patches.astype(np.float32))  # type: ignore[arg-type]

    def test_real_patches_spread(self, shared: Path) -> None:
        images, kinds = real_patches(shared)
        vectors = self.descriptor(images)
        similar = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
        assert abs(similar.mean()) < 0.3
        assert similar.std() > 0.2
        beside = vectors @ vectors.T - 2 * np.eye(len(vectors))
        assert (kinds[beside.argmax(axis=1)] == kinds).mean() > 0.7  # chance is 0.13


def digest(patch: NDArray[np.uint8]) -> str:
    return hashlib.sha256(patch.tobytes()).hexdigest()[:16]
