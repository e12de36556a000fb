"""Synthetic patches with structure at every scale, and a small encoder."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.embedding.small import small as small
from wsicurate.testing.tissue_patches import tissue_patches


@pytest.fixture(scope="package")
def patches() -> NDArray[np.uint8]:
    """Twelve different patches, uint8 (12, 256, 256, 3)."""
    return tissue_patches(12)
