from __future__ import annotations

import re

import pytest

from wsicurate.errors import NoResolutionError
from wsicurate.slides.base import SlideMetadata
from wsicurate.slides.resolution import resolve


def metadata(
    mpp: tuple[float, float] | None = None, power: float | None = None, vendor: str = "test", **properties: str
) -> SlideMetadata:
    return SlideMetadata(mpp, power, vendor, {key.replace("_", ".", 1): text for key, text in properties.items()})


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
        NoResolutionError, match=r"have neither a resolution nor an objective power. Give --default-mpp"
    ):
        resolve(metadata())
    with pytest.raises(
        NoResolutionError, match=r"264.583 µm/px is not believed .*; the objective power 0 is not believed"
    ):
        resolve(metadata((264.5833, 264.5833), 0))


OME = '<OME><Image><Pixels SizeX="9" SizeY="9" PhysicalSizeX="{0}" PhysicalSizeY="{0}"/></Image></OME>'


def test_what_stands_in_descriptions_is_metadata() -> None:
    found = resolve(metadata(tiff_ImageDescription="Scanner\n|MPP = 0.499|AppMag = 20"), default_mpp=0.9)
    assert (found.mpp, found.origin, found.objective_power, found.warnings) == (0.499, "metadata", 20, ())
    found = resolve(metadata(tiff_ImageDescription="Scanner\n|AppMag = 20"), default_mpp=0.9)
    assert (found.mpp, found.origin) == (0.5, "objective power")
    found = resolve(metadata((0.25, 0.25), tiff_ImageDescription="|MPP = 0.5"))  # the vendor's reader knows better
    assert (found.mpp, found.warnings) == (0.25, ())


def test_a_description_goes_before_resolution_tags_that_contradict_it() -> None:
    found = resolve(metadata((10.58, 10.58), vendor="generic-tiff", tiff_ImageDescription=OME.format(0.25)))
    assert (found.mpp, found.origin) == (0.25, "metadata")
    assert found.warnings == ("the OME-XML gives 0.25 µm/px, and the metadata 10.58; the OME-XML is believed",)
    found = resolve(metadata((0.2501, 0.2501), vendor="generic-tiff", tiff_ImageDescription=OME.format(0.25)))
    assert (found.mpp, found.warnings) == (0.2501, ())
    found = resolve(metadata((352.8, 352.8), vendor="generic-tiff", tiff_ImageDescription=OME.format(0.25)))
    assert (found.mpp, found.origin) == (0.25, "metadata")
    assert "352.8 µm/px is not believed" in found.warnings[0]
    found = resolve(metadata((0.25, 0.25), vendor="generic-tiff", tiff_ImageDescription=OME.format(250)))
    assert (found.mpp, found.origin) == (0.25, "metadata")
    assert "the OME-XML's 250 µm/px is not believed" in found.warnings[0]


def test_ten_times_too_small_is_not_believed() -> None:
    small = (0.05034, 0.05034)
    found = resolve(metadata(small, 20), target_mpp=0.5)
    assert (found.mpp, found.origin) == (0.5, "objective power")
    assert (
        "0.05034 µm/px is not believed (it looks ten times too small, a mistake of units, and 20x gives 0.5)"
        in (found.warnings[0])
    )
    with pytest.raises(NoResolutionError, match=r"0.05034 µm/px is not believed \(no objective gives it: it looks ten"):
        resolve(metadata(small), target_mpp=0.5)
    found = resolve(metadata(small), target_mpp=0.5, default_mpp=0.5)
    assert (found.mpp, found.origin) == (0.5, "default mpp")
    found = resolve(metadata(small), table_mpp=0.5034, target_mpp=0.5)
    assert (found.mpp, found.origin) == (0.5034, "slide table")


def test_fine_resolutions_are_believed_where_nothing_speaks_against_them() -> None:
    found = resolve(metadata((0.0503, 0.0503)), target_mpp=0.0625)  # for those who mean it
    assert (found.mpp, found.origin) == (0.0503, "metadata")
    assert found.warnings == (
        "0.0503 µm/px is unusual, and the file states no objective power; 0.503 would be usual: a mistake of units?",
    )
    assert resolve(metadata((0.11, 0.11), 100), target_mpp=2.0).warnings == ()
    assert resolve(metadata((0.12, 0.12)), target_mpp=1.0).warnings == ()
    assert resolve(metadata((0.25, 0.25), 4), target_mpp=8.0).mpp == 0.25  # here the objective is odd


@pytest.mark.parametrize(
    ("mpp", "power", "words"),
    [
        (5.0, 20, "ten times too large, a mistake of units?"),
        (1.27, 20, "2.54 times too large"),
        (0.197, 20, "2.54 times too small"),
        (12.7, 20, "25.4 times too large"),
        (1.0, 20, r"= 0.5 µm/px\)$"),
    ],
)
def test_mistakes_of_units_are_suspected_by_name(mpp: float, power: float, words: str) -> None:
    (warning,) = resolve(metadata((mpp, mpp), power)).warnings
    assert re.search(words, warning)


def test_a_slide_that_could_not_lie_on_glass() -> None:
    with pytest.raises(NoResolutionError, match=r"5 µm/px is not believed \(it would make the slide 50 cm long"):
        resolve(metadata((5.0, 5.0)), size=(100_000, 50_000))


def test_a_dicom_series_that_contradicts_itself() -> None:
    extent = {"dicom_ImagedVolumeWidth": "10", "dicom_ImagedVolumeHeight": "10"}
    pixels = {"dicom_TotalPixelMatrixColumns": "20000", "dicom_TotalPixelMatrixRows": "20000"}
    found = resolve(metadata((0.25, 0.25), vendor="dicom", **extent, **pixels))
    assert found.mpp == 0.25
    assert found.warnings == ("the metadata gives 0.25 µm/px, and the imaged volume 0.5; the metadata is believed",)
    found = resolve(metadata((250.0, 250.0), vendor="dicom", **extent, **pixels))
    assert (found.mpp, found.origin) == (0.5, "metadata")


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"tiff_ResolutionUnit": "none", "tiff_XResolution": "2", "tiff_YResolution": "2"}, "2 x 2 pixels and no unit"),
        ({"tiff_ImageDescription": "|MPP = unknown|"}, "the description gives MPP as 'unknown'"),
        ({"tiff_ImageDescription": OME.format("x")}, "the OME-XML gives a PhysicalSizeX of 'x'"),
    ],
)
def test_states_neither_is_said_only_where_it_is_true(properties: dict[str, str], words: str) -> None:
    with pytest.raises(NoResolutionError, match=words) as refusal:
        resolve(metadata(**properties))
    assert "have neither" not in str(refusal.value)
