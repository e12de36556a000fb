"""What holds for every weightless descriptor."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

DEGENERATE = {
    "black": np.zeros((64, 64, 3), np.uint8),
    "white": np.full((64, 64, 3), 255, np.uint8),
    "grey": np.full((64, 64, 3), 128, np.uint8),
    "red": np.full((64, 64, 3), (255, 0, 0), np.uint8),
    "edge": np.repeat(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None, :, None], 64, axis=0).repeat(
        3, axis=2
    ),
    "one pixel": np.pad(np.zeros((1, 1, 3), np.uint8), ((31, 32), (31, 32), (0, 0)), constant_values=255),
    "noise": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
}


class Descriptor(Protocol):
    name: str
    version: int
    dim: int

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def symmetries(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The eight, the identity first."""
    return np.stack([np.rot90(image, quarters) for image in (patch, patch[::-1]) for quarters in range(4)])


def real_patches(shared: Path) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Seventy colorectal patches and the tissue of each."""
    paths = sorted((shared / "patches" / "colorectal").glob("*.jpg"))
    images = [np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8) for path in paths]
    return np.stack(images), np.array([path.name[:3] for path in paths])


def share_found(descriptor: Descriptor, patches: NDArray[np.uint8]) -> float:
    """How many patches turned by 20 degrees are nearest to themselves turned back by 11 and smaller."""
    side = patches.shape[1]
    edge, copies = side * 3 // 16, []
    for degrees, zoom in ((20, 1.1), (-11, 0.9)):
        motion = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, zoom)
        turned = [cv2.warpAffine(patch, motion, (side, side), flags=cv2.INTER_CUBIC) for patch in patches]
        copies.append(descriptor(np.stack(turned).astype(np.uint8)[:, edge:-edge, edge:-edge]))
    return float(((copies[0] @ copies[1].T).argmax(axis=1) == np.arange(len(patches))).mean())


class DescriptorContract:
    descriptor: Descriptor
    real_copies_found: float

    def test_it_says_what_it_is_and_is_frozen(self) -> None:
        assert dataclasses.is_dataclass(self.descriptor)
        with pytest.raises(dataclasses.FrozenInstanceError):
            self.descriptor.version = 2
        assert type(self.descriptor)() == self.descriptor

    def test_vectors_are_unit_float32_and_survive_float16(self, patches: NDArray[np.uint8]) -> None:
        vectors = self.descriptor(patches)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(patches), self.descriptor.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
        halved = vectors.astype(np.float16).astype(np.float32)
        assert ((vectors * halved).sum(axis=1) / np.linalg.norm(halved, axis=1) > 0.999999).all()

    def test_no_batch_no_vectors(self) -> None:
        assert self.descriptor(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, self.descriptor.dim)

    @pytest.mark.parametrize("size", [1, 5, 7])
    def test_batches_do_not_matter_to_the_bit(self, patches: NDArray[np.uint8], size: int) -> None:
        batches = [self.descriptor(patches[start : start + size]) for start in range(0, len(patches), size)]
        assert np.array_equal(np.concatenate(batches), self.descriptor(patches))

    def test_threads_do_not_matter_to_the_bit(self, patches: NDArray[np.uint8]) -> None:
        alone = self.descriptor(patches)
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(lambda _: self.descriptor(patches), range(4)))
        threads = cv2.getNumThreads()
        cv2.setNumThreads(4)
        try:
            at_once.append(self.descriptor(patches))
        finally:
            cv2.setNumThreads(threads)
        assert all(np.array_equal(vectors, alone) for vectors in at_once)

    def test_memory_layout_does_not_matter(self, patches: NDArray[np.uint8]) -> None:
        apart = np.empty((len(patches), 256, 512, 3), np.uint8)[:, :, ::2]
        apart[:] = patches
        assert np.array_equal(self.descriptor(apart), self.descriptor(patches))

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

    @pytest.mark.parametrize("name", DEGENERATE)
    @pytest.mark.parametrize("side", [32, 64, 1024])
    def test_odd_patches_have_finite_vectors(self, name: str, side: int) -> None:
        patch = cv2.resize(DEGENERATE[name], (side, side), interpolation=cv2.INTER_NEAREST)
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
