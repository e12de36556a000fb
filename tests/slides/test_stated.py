from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsicurate.slides.opening import open_slide
from wsicurate.slides.resolution import resolve
from wsicurate.slides.stated import Stated, stated_in

SIZE = (1024, 768)


def ome(
    *images: str, head: str = "", namespace: str = ' xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>{head}<OME{namespace}>{"".join(images)}</OME>'


def image(size: tuple[int, int] = SIZE, *, settings: str = "", **attributes: str) -> str:
    words = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f'<Image ID="Image:0">{settings}<Pixels SizeX="{size[0]}" SizeY="{size[1]}" {words}/></Image>'


def only(text: str, size: tuple[int, int] | None = SIZE, **tags: str) -> Stated:
    properties = {"tiff.ImageDescription": text, "openslide.comment": text}
    properties |= {f"tiff.{name}": value for name, value in tags.items()}
    return next(part for part in stated_in(properties, size) if part.where != "the resolution tags")


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("0.499", None),
        ("0.499", "µm"),
        ("0.499", "\u03bcm"),  # Greek mu, where the standard has the micro sign
        ("0.499", "micron"),
        ("499.0", "nm"),
        ("4.99E-4", "mm"),
        ("0.0000499", "cm"),
        ("4.99e-07", "m"),
        ("0.0000196457", "in"),
        ("4990", "Å"),
    ],
)
def test_ome_xml_in_every_unit(value: str, unit: str | None) -> None:
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    found = only(ome(image(PhysicalSizeX=value, PhysicalSizeY=value, **units)))
    assert found.mpp == pytest.approx((0.499, 0.499), rel=1e-5)


def test_ome_xml_of_label_and_overview_does_not_count() -> None:
    label = image((300, 400), PhysicalSizeX="30", PhysicalSizeY="30")
    slide = image(PhysicalSizeX="0.25", PhysicalSizeY="0.26")
    for text in (ome(label, slide), ome(slide, label), ome(slide, label, namespace="")):
        assert only(text).mpp == (0.25, 0.26)
    assert only(ome(slide, label), None).mpp == (0.25, 0.26)  # of an unknown size, the first
    assert only(ome(label)).remark == "the OME-XML describes 300x400 pixels, and not the slide's 1024x768"


def test_ome_xml_names_an_objective() -> None:
    lenses = "".join(f'<Objective ID="O:{n}" NominalMagnification="{m}"/>' for n, m in enumerate((5, 20)))
    settings = '<ObjectiveSettings ID="O:1"/>'
    assert only(ome(lenses, image(settings=settings, PhysicalSizeX="0.5", PhysicalSizeY="0.5"))).power == 20
    assert only(ome(lenses, image(PhysicalSizeX="0.5", PhysicalSizeY="0.5"))).power is None
    assert only(ome(lenses[: len(lenses) // 2], image())) == Stated(
        "the OME-XML", power=5, remark="the OME-XML gives no PhysicalSizeX"
    )


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        (ome(image(PhysicalSizeX="1", PhysicalSizeY="1", PhysicalSizeXUnit="pixel")), "a PhysicalSizeX of '1' 'pixel'"),
        (ome(image(PhysicalSizeX="1", PhysicalSizeXUnit="reference frame")), "of '1' 'reference frame'"),
        (ome(image(PhysicalSizeX="0.5")), "gives no PhysicalSizeY"),
        (ome(image(PhysicalSizeX="nan", PhysicalSizeY="1")), "a PhysicalSizeX of 'nan'"),
        (ome(), "describes no pixels"),
        (ome(image())[:-9], "cannot be read"),
        (ome(image(), head='<!DOCTYPE x [<!ENTITY a "b">]>'), "has a document type"),
        ("<OME>" + "<a>" * 100_000, "cannot be read"),
    ],
)
def test_ome_xml_that_says_nothing(text: str, remark: str) -> None:
    found = only(text)
    assert found.mpp is None
    assert remark in found.remark


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"),
    [
        ("micron", "2.004", 0.499),
        ("\\u00B5m", "2", 0.5),
        ("um", "4", 0.25),
        ("cm", "20040", 0.499),
        ("inch", "50800", 0.5),
    ],
)
def test_imagej(unit: str, per_unit: str, mpp: float) -> None:
    text = f"ImageJ=1.53t\nimages=3\nunit={unit}\nspacing=7.5\nloop=false\n"
    assert only(text, XResolution=per_unit, YResolution=per_unit).mpp == pytest.approx((mpp, mpp), rel=1e-4)


@pytest.mark.parametrize(("unit", "per_unit"), [("pixel", "1"), ("", "2"), ("micron", "0"), ("micron", "")])
def test_imagej_without_a_scale(unit: str, per_unit: str) -> None:
    found = only(f"ImageJ=1.53t\nunit={unit}\nspacing=0.5\n", XResolution=per_unit, YResolution=per_unit)
    assert found.mpp is None
    assert "ImageJ's description gives the unit" in found.remark


@pytest.mark.parametrize(
    ("text", "mpp", "power"),
    [
        ("Some Scanner v1\r\n1024x768 (256x256) JPEG|AppMag = 20|MPP = 0.499|Date = 01/02/03", 0.499, 20),
        ("x|MPP=0,499|AppMag=20x", 0.499, 20),
        ("mpp: 0.25\nObjective Power: 40", 0.25, 40),
        ("Resolution = 0.25 um/px;Magnification = 40X", 0.25, 40),
        ("Pixel Size = 250 nm", 0.25, None),
        ("MicronsPerPixel=0.2325\nNominalMagnification=40", 0.2325, 40),
        ('<iScan Mode="x" Magnification="20" ScanRes="0.465"/>', 0.465, 20),
        ("MPP_X = 0.25\nMPP_Y = 0.25", 0.25, None),
        ("Objective Power=10;Background Color=ffffff;White Balance=0", None, 10),
        ("Time = 09:59:15|Left = 25.69|OriginalWidth = 46000|AppMag = 20", None, 20),
    ],
)
def test_texts_of_scanners(text: str, mpp: float | None, power: float | None) -> None:
    found = only(text)
    assert found.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))
    assert found.power == power


@pytest.mark.parametrize(
    "text", ["MPP = unknown", "MPP =", "Resolution = 300 dpi", "MPP = 0", "MPP = nan", "mpp = 1.2.3.4"]
)
def test_texts_that_name_it_and_do_not_say_it(text: str) -> None:
    found = only(text)
    assert found.mpp is None
    assert "the description gives" in found.remark


def test_philips_and_dicom_and_vendor_metadata() -> None:
    philips = "".join(
        f'<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028">"{y}" "{x}"</Attribute>'
        for y, x in (("0.000454", "0.000453"), ("0.000227", "0.000226"))
    )
    assert only(f'<DataObject ObjectType="DPUfsImport">{philips}').mpp == pytest.approx((0.226, 0.227))
    volume = {"ImagedVolumeWidth": "1.10778", "ImagedVolumeHeight": "1.4805"}
    pixels = {"TotalPixelMatrixColumns": "2220", "TotalPixelMatrixRows": "2967"}
    (found,) = stated_in({f"dicom.{name}": value for name, value in (volume | pixels).items()})
    assert found.mpp == pytest.approx((0.499, 0.499), rel=1e-4)
    (found,) = stated_in({"trestle.Objective Power": "10", "trestle.OverlapsXY": "1", "aperio.MPP": "0,5"})
    assert (found.mpp, found.power) == ((0.5, 0.5), 10)
    assert stated_in({"openslide.mpp-x": "1", "tiff.MPP": "1", "x": "y"}) == []


def test_tags_without_a_unit() -> None:
    def remark(unit: str, x: str, y: str) -> list[str]:
        tags = {"tiff.ResolutionUnit": unit, "tiff.XResolution": x, "tiff.YResolution": y}
        return [part.remark for part in stated_in(tags)]

    assert remark("none", "20040", "20040") == ["the resolution tags give 20040 x 20040 pixels and no unit"]
    assert remark("none", "1", "1") == []
    assert remark("centimeter", "20040", "20040") == []


@pytest.mark.parametrize(
    "text",
    [
        "MPP = " + "1" * 300_000,
        "|" * 300_000,
        "MPP" + " " * 300_000 + "= 1",
        "(" * 300_000,
        "MPP = 1," * 50_000,
        "<" + 'ScanRes="' * 50_000,
        "<" + 'DICOM_PIXEL_SPACING"' * 20_000,
        "ImageJ=" + "=" * 300_000,
        "\0" * 300_000,
    ],
)
def test_hostile_texts_cost_nothing(text: str) -> None:
    began = time.monotonic()
    stated_in({"tiff.ImageDescription": text}, SIZE)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("is_tiled", [True, False])
@pytest.mark.parametrize(
    ("description", "tags", "mpp"),
    [
        ("ImageJ=1.53t\nunit=micron\n", {"resolution": (2, 2), "resolutionunit": "NONE"}, 0.5),
        ("Scanner|MPP = 0.499|AppMag = 20", {}, 0.499),
        (None, {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        (ome(image((512, 512), PhysicalSizeX="0.25", PhysicalSizeY="0.25")).encode(), {"resolution": (72, 72)}, 0.25),
    ],
)
def test_every_reader_passes_on_what_a_tiff_states(
    tmp_path: Path, is_tiled: bool, description: str | None, tags: dict[str, Any], mpp: float
) -> None:
    path = tmp_path / "slide.tif"
    options = {"tile": (256, 256)} if is_tiled else {}
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, description=description, **options, **tags)
    with open_slide(path) as slide:
        found = resolve(slide.metadata, size=(512, 512))
    assert (found.mpp, found.origin) == (pytest.approx(mpp), "metadata")
