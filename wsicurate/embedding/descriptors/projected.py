"""What the weightless descriptors share: raw features of each patch, projected by fixed constants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.descriptors.features import check_patches
from wsicurate.embedding.descriptors.projection import load_calibration


@dataclass(frozen=True, kw_only=True)
class ProjectedDescriptor(ABC):
    """A descriptor: call it with patches. It holds nothing and can be shared between threads.

    The vector of a patch does not depend on the batch that it came in, nor on the number of threads. Any change of its
    numbers is a new ``version``. Patches of 1,024 px and more are first reduced by a whole number to 512 px or a little
    more.
    """

    name: str = field(init=False)
    version: int = field(default=1, init=False)
    dim: int = field(default=96, init=False)

    @abstractmethod
    def features(self, patch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Raw features of one patch, uint8, (h, w, 3), RGB: float64, (features,)."""

    def __call__(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Describe patches.

        Args:
            patches: uint8, (b, h, w, 3), RGB, sides of at least 32 px.

        Returns:
            float32, (b, dim), each of length 1, for comparison by cosine; float16 holds them well.

        Raises:
            ValueError: if ``patches`` is of another shape or type.
        """
        check_patches(patches)
        calibration = load_calibration(self.name, self.version)
        vectors = np.empty((len(patches), self.dim), dtype=np.float32)
        for row, patch in enumerate(patches):
            vectors[row] = calibration.project(self.features(patch))
        return vectors
