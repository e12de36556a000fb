"""The fixed constants that turn a descriptor's raw features into vectors that cosine compares well.

Raw features have all sorts of ranges, repeat each other, and differ in how far they change when the same tissue is
turned, zoomed, recompressed or stained a little more. A linear map measured once on real patches removes all three:
centre and scale each feature, whiten by the variation *within* copies of one patch (and, with a small weight, by that
between laboratories), and keep the directions in which different patches differ most (Fisher's discriminant with every
source patch a class of its own, as Mikolajczyk and Matas, ICCV 2007, learn it for local features;
`benchmarks/descriptors.py --calibrate` is the code). No tissue label enters it. The constants are part of a
descriptor's version and never change with the data at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

#: Standardised features beyond this count as this: blank or odd patches do not drown in one feature.
CLIP = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Centre, spread and directions.

    Attributes:
        centre: mean of each raw feature over real patches, (features,).
        spread: standard deviation likewise, (features,), positive.
        directions: (features, dim).
    """

    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    directions: NDArray[np.float64]

    def project(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """One patch's raw features -> its vector.

        Sums by numpy, not by BLAS: the same bits whatever the number of threads.

        Args:
            features: finite, (features,).

        Returns:
            float32, (dim,), of length 1.
        """
        standard = np.clip((features - self.centre) / self.spread, -CLIP, CLIP)
        vector = (standard[:, None] * self.directions).sum(axis=0)
        length = float(np.sqrt((vector * vector).sum()))
        if length < 1e-9:  # exactly the mean patch: no direction is right, and zero is none
            vector[0], length = 1.0, 1.0
        return np.asarray(vector / length, dtype=np.float32)


@cache
def load_calibration(name: str, version: int) -> Calibration:
    """The constants of a descriptor, as they came with the package.

    Args:
        name: the descriptor's name.
        version: its version.
    """
    with (
        files("wsicurate.embedding.descriptors").joinpath(f"{name}-{version}.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return Calibration(
            centre=arrays["centre"].astype(np.float64),
            spread=arrays["spread"].astype(np.float64),
            directions=arrays["directions"].astype(np.float64),
        )
