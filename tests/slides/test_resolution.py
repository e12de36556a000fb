from __future__ import annotations

import pytest

from wsicurate.errors import NoResolutionError
from wsicurate.slides.base import SlideMetadata
from wsicurate.slides.resolution import resolve


def metadata(mpp: tuple[float, float] | None = None, power: float | None = None) -> SlideMetadata:
    return SlideMetadata(mpp, power, "test", {})


def test_the_order_of_sources() -> None:
    full = metadata((0.25, 0.25), 20)
    found = resolve(full, table_mpp=0.4, default_mpp=0.9)
    assert (found.mpp, found.origin) == (0.4, "slide table")
    found = resolve(full, default_mpp=0.9)
    assert (found.mpp, found.origin) == (0.25, "metadata")
    found = resolve(metadata(None, 20), default_mpp=0.9)
    assert (found.mpp, found.origin) == (0.5, "objective power")
    found = resolve(metadata(), default_mpp=0.9)
    assert (found.mpp, found.origin) == (0.9, "default mpp")


def test_absurd_metadata_is_passed_over_with_a_warning() -> None:
    found = resolve(metadata((264.58, 264.58), 40))
    assert (found.mpp, found.origin) == (0.25, "objective power")
    assert found.warnings == ("the metadata's 264.58 µm/px is not believed (outside 0.05 to 20)",)
    found = resolve(metadata((0.25, 0.5), None), default_mpp=1.0)
    assert found.origin == "default mpp"
    assert "x and y differ" in found.warnings[0]


@pytest.mark.parametrize("absurd", [0.0, -0.25, float("nan"), float("inf"), 0.01, 21.0])
def test_no_number_outside_the_range_is_believed(absurd: float) -> None:
    assert resolve(metadata((absurd, absurd)), default_mpp=0.5).origin == "default mpp"


def test_power_and_mpp_that_disagree_are_a_warning_not_an_error() -> None:
    found = resolve(metadata((0.5, 0.5), 40))
    assert found.mpp == 0.5
    assert found.warnings == ("0.5 µm/px does not fit an objective of 40x (10 / 40 = 0.25 µm/px)",)
    assert resolve(metadata((0.2525, 0.2525), 40)).warnings == ()


def test_nothing_is_guessed() -> None:
    with pytest.raises(
        NoResolutionError, match=r"states neither a resolution nor an objective power. Give --default-mpp"
    ):
        resolve(metadata())
    with pytest.raises(
        NoResolutionError, match=r"264.583 µm/px is not believed .*; the objective power 0 is not believed"
    ):
        resolve(metadata((264.5833, 264.5833), 0))
