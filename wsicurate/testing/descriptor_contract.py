"""What holds for every weightless descriptor: run by ours, and by anyone's under pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.embedding.encoders import Descriptor, check_descriptor
from wsicurate.testing.tissue_patches import tissue_patches

#: Patches, uint8 (64, 64, 3), that come in slides and have little to describe.
ODD_PATCHES = {
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


class DescriptorContract:
    """The contract of `Descriptor`, as tests. A package runs it on a descriptor of its own::

        class TestMine(DescriptorContract):
            descriptor = MyDescriptor()

    Attributes:
        descriptor: what is tested.
        patch_px: edge of the patches that it is tested with, at least 64.
    """

    descriptor: Descriptor
    patch_px: int = 256

    @pytest.fixture
    def patches(self) -> NDArray[np.uint8]:
        """Twelve different patches, uint8 (12, patch_px, patch_px, 3)."""
        return tissue_patches(12, self.patch_px)

    def test_it_says_what_it_is(self) -> None:
        """It has a name, a version and a length."""
        check_descriptor(self.descriptor, type(self.descriptor).__name__)

    def test_it_gives_one_finite_float32_vector_for_each_patch(self, patches: NDArray[np.uint8]) -> None:
        """Of the length that it says."""
        vectors = self.descriptor(patches)
        assert isinstance(vectors, np.ndarray)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(patches), self.descriptor.dim)
        assert np.isfinite(vectors).all()

    def test_different_patches_have_different_vectors(self, patches: NDArray[np.uint8]) -> None:
        """All of them: a vector that says nothing tells no patches apart."""
        assert len(np.unique(self.descriptor(patches), axis=0)) == len(patches)

    def test_float16_holds_the_vectors(self, patches: NDArray[np.uint8]) -> None:
        """They are stored so, and compared by cosine."""
        vectors = self.descriptor(patches).astype(np.float64)
        halved = vectors.astype(np.float16).astype(np.float64)
        assert np.isfinite(halved).all()
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(halved, axis=1)
        assert ((vectors * halved).sum(axis=1) > 0.9999 * lengths).all()

    def test_no_patches_give_no_vectors(self) -> None:
        """An empty batch has the shape (0, dim)."""
        empty = np.empty((0, self.patch_px, self.patch_px, 3), np.uint8)
        assert self.descriptor(empty).shape == (0, self.descriptor.dim)

    @pytest.mark.parametrize("size", [1, 5, 7])
    def test_batches_do_not_matter_to_the_bit(self, patches: NDArray[np.uint8], size: int) -> None:
        """A patch has the same vector in any batch."""
        batches = [self.descriptor(patches[start : start + size]) for start in range(0, len(patches), size)]
        assert np.array_equal(np.concatenate(batches), self.descriptor(patches))

    def test_threads_do_not_matter_to_the_bit(self, patches: NDArray[np.uint8]) -> None:
        """It may be called by several threads at once, and with any number of threads below it."""
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

    def test_it_is_the_same_in_every_process(self, patches: NDArray[np.uint8]) -> None:
        """Each worker makes one of its own, without arguments."""
        assert np.array_equal(type(self.descriptor)()(patches), self.descriptor(patches))

    def test_memory_layout_does_not_matter(self, patches: NDArray[np.uint8]) -> None:
        """Patches may be part of a larger array."""
        apart = np.empty((len(patches), self.patch_px, 2 * self.patch_px, 3), np.uint8)[:, :, ::2]
        apart[:] = patches
        assert np.array_equal(self.descriptor(apart), self.descriptor(patches))

    def test_patches_stay_as_they_are(self, patches: NDArray[np.uint8]) -> None:
        """They may be read-only, and are not changed."""
        before = patches.copy()
        patches.setflags(write=False)
        self.descriptor(patches)
        assert np.array_equal(patches, before)

    @pytest.mark.parametrize("name", ODD_PATCHES)
    def test_odd_patches_have_finite_vectors(self, name: str) -> None:
        """Black, white and grey ones, and noise: one vector that is not finite stops a run."""
        patch = cv2.resize(ODD_PATCHES[name], (self.patch_px,) * 2, interpolation=cv2.INTER_NEAREST)
        assert np.isfinite(self.descriptor(np.asarray(patch, np.uint8)[None]).astype(np.float16)).all()
