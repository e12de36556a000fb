"""Resolutions that stand in a slide's descriptions: OME-XML, ImageJ, and the texts that scanners write.

Readers pass on the resolution of the formats that they know. A file of one vendor often carries the text of another,
or of software that rewrote it. Pure functions of text: what is stated, not whether it is to be believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from wsicurate.errors import in_words
from wsicurate.tables import parse_number

#: Longest text that is looked at, characters; OME-XML that lists every plane of a plate is longer.
MAX_TEXT = 2**22

#: µm in a unit, by its name in lower case; `None` for units that are not physical.
_UM = {
    **dict.fromkeys(
        ("µm", "μm", "um", "micron", "microns", "micrometer", "micrometers", "micrometre", "\\u00b5m"), 1.0
    ),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), 25_400.0),
    **dict.fromkeys(("å", "angstrom"), 1e-4),
    "pm": 1e-6,
    **dict.fromkeys(("pt", "point"), 25_400 / 72),
}

_MPP_KEYS = frozenset(["mpp", "micronsperpixel", "umperpixel", "pixelsize", "resolution", "scanres"])
_POWER_KEYS = frozenset(["appmag", "objectivepower", "objectivemagnification", "nominalmagnification", "magnification"])
#: Where a DICOM series states it besides its pixel spacing.
VOLUME = "the imaged volume"

_PART = re.compile(r"[|;\r\n\t]+")
_VALUE = re.compile(
    r'["\']?\s*x?([+-]?[0-9]{0,12}[.,]?[0-9]{1,20}(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s"\'\])]{0,20})', re.IGNORECASE
)
_ATTRIBUTE = re.compile(r'\b(ScanRes|Magnification)\s{0,4}=\s{0,4}"([^"<>]{1,40})"')
_SPACING = re.compile(
    r'DICOM_PIXEL_SPACING"[^<>]{0,200}>\s*(?:&quot;|")([0-9.eE+-]{1,30})(?:&quot;|")\s+(?:&quot;|")([0-9.eE+-]{1,30})'
)


@dataclass(frozen=True)
class Stated:
    """What one part of a file says.

    Attributes:
        where: which part, in words: ``the OME-XML``.
        mpp: µm per level-0 pixel (x, y), or None.
        power: objective power, or None.
        remark: why it says no more, in words; empty where it does, or says nothing.
    """

    where: str
    mpp: tuple[float, float] | None = None
    power: float | None = None
    remark: str = ""


def stated_in(properties: Mapping[str, str], size: tuple[int, int] | None = None) -> list[Stated]:
    """All that a slide's properties say of its resolution besides what its reader understood.

    Args:
        properties: the reader's, named as OpenSlide names them: ``tiff.ImageDescription``, ``tiff.XResolution``, ...
        size: width and height of level 0, pixels: OME-XML describes label and overview as well.
    """
    found: list[Stated | None] = []
    texts = dict.fromkeys(properties.get(key, "") for key in ("tiff.ImageDescription", "openslide.comment"))
    for text in texts:
        text = text[:MAX_TEXT].lstrip("\ufeff \r\n\t")
        if (text.startswith("<") and "<OME" in text[:4096]) or "<Pixels" in text[:65_536]:
            found.append(_in_ome(text, size))
        elif text.startswith("ImageJ"):
            found.append(_in_imagej(text, properties))
        elif text.startswith("<"):
            found += [_in_philips(text), _in_pairs(_ATTRIBUTE.findall(text), "the description")]
        elif text:
            found.append(_in_pairs(_pairs(text), "the description"))
    named = ((key.rpartition(".")[2], value) for key, value in properties.items() if _is_of_vendor(key))
    found += [_in_pairs(named, "the vendor's metadata"), _in_dicom(properties), _in_tags(properties)]
    return [stated for stated in found if stated is not None]


def _is_of_vendor(key: str) -> bool:
    return not key.startswith(("openslide.", "tiff.", "dicom."))


def _in_ome(text: str, size: tuple[int, int] | None) -> Stated | None:
    """What OME-XML says of the image that the pyramid is; the first where sizes do not tell."""
    where = "the OME-XML"
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return Stated(where, remark=f"{where} has a document type, which no OME-XML has")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        return Stated(where, remark=f"{where} cannot be read ({in_words(error)})")
    images = [element for element in root.iter() if _tag(element) == "Image"]
    pixels = [(image, part) for image in images for part in image if _tag(part) == "Pixels"]
    if not pixels:
        return Stated(where, remark=f"{where} describes no pixels")
    own = [pair for pair in pixels if size is not None and _size(pair[1]) == size]
    image, chosen = (own or pixels)[0]
    if size is not None and not own and _size(chosen) is not None:
        width, height = _size(chosen) or (0, 0)
        return Stated(
            where, remark=f"{where} describes {width}x{height} pixels, and not the slide's {size[0]}x{size[1]}"
        )
    power = _ome_power(root, image)
    sides = []
    for axis in ("X", "Y"):
        value, unit = chosen.get(f"PhysicalSize{axis}"), chosen.get(f"PhysicalSize{axis}Unit", "µm")
        if value is None:
            return Stated(where, power=power, remark=f"{where} gives no PhysicalSize{axis}")
        side, um = parse_number(value), _UM.get(unit.strip().lower())
        if side is None or um is None:
            return Stated(where, power=power, remark=f"{where} gives a PhysicalSize{axis} of {value!r} {unit!r}")
        sides.append(side * um)
    return Stated(where, (sides[0], sides[1]), power)


def _ome_power(root: ElementTree.Element, image: ElementTree.Element) -> float | None:
    """Magnification of the objective that an image names, or of the only one."""
    objectives = [element for element in root.iter() if _tag(element) == "Objective"]
    wanted = {element.get("ID") for element in image if _tag(element) == "ObjectiveSettings"}
    named = [element for element in objectives if element.get("ID") in wanted] or objectives
    powers = {parse_number(element.get("NominalMagnification", "")) for element in named} - {None}
    return powers.pop() if len(powers) == 1 else None


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _size(pixels: ElementTree.Element) -> tuple[int, int] | None:
    sides = [parse_number(pixels.get(name, "")) for name in ("SizeX", "SizeY")]
    return None if None in sides else (int(sides[0] or 0), int(sides[1] or 0))


def _in_imagej(text: str, properties: Mapping[str, str]) -> Stated:
    """ImageJ names a unit, and the tags hold pixels per unit; ``spacing`` is that of planes."""
    where = "ImageJ's description"
    facts = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    unit = facts.get("unit", facts.get("xunit", "")).strip()
    per_unit = [parse_number(properties.get(f"tiff.{axis}Resolution", "")) for axis in "XY"]
    um = _UM.get(unit.lower())
    if um is None or not per_unit[0] or not per_unit[1]:
        return Stated(where, remark=f"{where} gives the unit {unit!r} and {_shown(per_unit)} pixels per unit")
    return Stated(where, (um / per_unit[0], um / per_unit[1]))


def _in_philips(text: str) -> Stated | None:
    """The finest of the pixel spacings, mm, that Philips states of all images of a slide; y stands first."""
    found = [(parse_number(x), parse_number(y)) for y, x in _SPACING.findall(text)]
    spacings = [(x * 1e3, y * 1e3) for x, y in found if x and y]
    return Stated("the Philips description", min(spacings)) if spacings else None


def _in_dicom(properties: Mapping[str, str]) -> Stated | None:
    """Width and height of the imaged volume, mm, over its pixels."""
    sides = []
    for extent, pixels in (("Width", "Columns"), ("Height", "Rows")):
        size = parse_number(properties.get(f"dicom.ImagedVolume{extent}", ""))
        count = parse_number(properties.get(f"dicom.TotalPixelMatrix{pixels}", ""))
        if not size or not count:
            return None
        sides.append(size * 1e3 / count)
    return Stated(VOLUME, (sides[0], sides[1]))


def mpp_of_tags(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """µm per pixel (x, y) of the resolution tags of a TIFF, or None where they are not there or have no unit."""
    per_unit = [parse_number(properties.get(f"tiff.{axis}Resolution", "")) for axis in "XY"]
    um = {"inch": 25_400.0, "centimeter": 10_000.0}.get(properties.get("tiff.ResolutionUnit", ""))
    return None if um is None or not per_unit[0] or not per_unit[1] else (um / per_unit[0], um / per_unit[1])


def _in_tags(properties: Mapping[str, str]) -> Stated | None:
    """Resolution tags without a unit say nothing, unless ImageJ wrote them."""
    per_unit = [parse_number(properties.get(f"tiff.{axis}Resolution", "")) for axis in "XY"]
    if mpp_of_tags(properties) is not None or not per_unit[0] or not per_unit[1] or per_unit == [1.0, 1.0]:
        return None
    return Stated("the resolution tags", remark=f"the resolution tags give {_shown(per_unit)} pixels and no unit")


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """``name = value`` and ``name: value``, one to a line or between bars, as scanners write them."""
    for part in _PART.split(text):
        name, separator, value = part.partition("=") if "=" in part else part.partition(":")
        if separator and len(name) <= 64:
            yield name, value


def _in_pairs(pairs: Iterator[tuple[str, str]] | list[tuple[str, str]], where: str) -> Stated | None:
    """µm per pixel and objective power among named values, under the names that vendors give them."""
    sides: dict[str, float] = {}
    powers: set[float] = set()
    remarks: list[str] = []
    for name, text in pairs:
        key = re.sub(r"[^a-z]", "", re.sub(r"\(.*?\)", "", name.lower()))
        axis = key[-1] if key[:-1] in _MPP_KEYS and key[-1:] in "xy" else ""
        is_mpp = bool(axis) or key in _MPP_KEYS
        if not is_mpp and key not in _POWER_KEYS:
            continue
        value = _VALUE.match(text.strip())
        number = None if value is None else parse_number(value[1])
        unit = "" if value is None else value[2].strip().lower()
        if is_mpp and number is not None:
            um = _UM.get(unit.partition("/")[0], None if unit else 1.0)
            number = None if um is None else number * um
        elif unit and not unit.startswith("x"):
            number = None
        if number is None or number <= 0:
            remarks += [f"{where} gives {name.strip()} as {text.strip()[:40]!r}"] if is_mpp else []
        elif is_mpp:
            for side in axis or "xy":
                sides.setdefault(side, number)
        else:
            powers.add(number)
    power = powers.pop() if len(powers) == 1 else None
    mpp = (sides["x"], sides["y"]) if len(sides) == 2 else None
    remark = "; ".join(remarks[:3]) if mpp is None else ""
    return Stated(where, mpp, power, remark) if mpp or power or remark else None


def _shown(values: list[float | None]) -> str:
    return " x ".join("no" if value is None else f"{value:g}" for value in values)
