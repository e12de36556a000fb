"""The contract finds descriptors that break it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsicurate.errors import ConfigError
from wsicurate.testing.descriptor_contract import DescriptorContract
from wsicurate.testing.tissue_patches import tissue_patches


class Means:
    """A sound one: the mean of each colour in four strips."""

    name, version, dim = "means", 1, 12

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        quarter = patches.shape[1] // 4
        strips = [patches[:, quarter * i : quarter * (i + 1)].mean(axis=(1, 2), dtype=np.float64) for i in range(4)]
        return np.concatenate(strips, axis=1).astype(np.float32)


class TestMeans(DescriptorContract):
    descriptor = Means()
    patch_px = 64


class Nameless(Means):
    name = ""


class Wide(Means):
    dim = 13


class Double(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().__call__(patches).astype(np.float64)  # type: ignore[return-value]


class OfTheBatch(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = super().__call__(patches)
        return vectors - vectors.mean(axis=0) if len(vectors) else vectors


class Standardised(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = super().__call__(patches)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (vectors - vectors.mean(axis=1, keepdims=True)) / vectors.std(axis=1, keepdims=True)


class Large(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().__call__(patches) * 1e4


class Constant(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().__call__(patches) * 0 + 1


class Changing(Means):
    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        patches[:] = 255 - patches
        return super().__call__(patches)


class Seeded(Means):
    def __init__(self) -> None:
        self.offset = np.random.default_rng().uniform(0, 1)

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().__call__(patches) + np.float32(self.offset)


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (Wide, "test_it_gives_one_finite_float32_vector_for_each_patch", {}),
        (Double, "test_it_gives_one_finite_float32_vector_for_each_patch", {}),
        (Constant, "test_different_patches_have_different_vectors", {}),
        (OfTheBatch, "test_batches_do_not_matter_to_the_bit", {"size": 5}),
        (Large, "test_float16_holds_the_vectors", {}),
        (Changing, "test_patches_stay_as_they_are", {}),
        (Seeded, "test_it_is_the_same_in_every_process", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_broken_descriptors_are_found(broken: type[Means], test: str, arguments: dict[str, int]) -> None:
    contract = DescriptorContract()
    contract.descriptor = broken()
    with pytest.raises((AssertionError, ValueError)):
        getattr(contract, test)(tissue_patches(12, 64), **arguments)


def test_what_a_descriptor_lacks_is_named() -> None:
    contract = DescriptorContract()
    contract.descriptor = Nameless()
    with pytest.raises(ConfigError, match="the descriptor 'Nameless': its name"):
        contract.test_it_says_what_it_is()
    contract.descriptor, contract.patch_px = Standardised(), 64
    with pytest.raises(AssertionError):
        contract.test_odd_patches_have_finite_vectors("white")
