"""What a TIFF says of itself: resolution, objective, description."""

from __future__ import annotations

import re

from wsicurate.slides.base import SlideMetadata
from wsicurate.slides.tiff import directory as tags
from wsicurate.slides.tiff.directory import Directory

_UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_metadata(first: Directory, vendor: str) -> SlideMetadata:
    """What a level 0 says of the slide: its tags, and the fields of an Aperio's description.

    Raises:
        TiffError: if a tag contradicts itself.
    """
    properties: dict[str, str] = {}
    for name, tag in (("ImageDescription", 270), ("Make", 271), ("Model", 272), ("Software", 305), ("DateTime", 306)):
        text = first.text(tag)
        if text is not None:
            properties[f"tiff.{name}"] = text
    for name, tag in (("XResolution", tags.X_RESOLUTION), ("YResolution", tags.Y_RESOLUTION)):
        if (density := first.rational(tag)) is not None:
            properties[f"tiff.{name}"] = f"{density:.17g}"
    unit_names = {1: "none", 2: "inch", 3: "centimeter"}
    properties["tiff.ResolutionUnit"] = unit_names.get(first.integer(tags.RESOLUTION_UNIT, 2), "unknown")
    mpp: tuple[float, float] | None = None
    power: float | None = None
    if vendor == "aperio":
        for part in properties.get("tiff.ImageDescription", "").split("|")[1:]:
            name, separator, value = part.partition("=")
            if separator and name.strip():
                properties[f"aperio.{name.strip()}"] = value.strip()
        stated = _number(properties.get("aperio.MPP"))
        mpp = None if stated is None else (stated, stated)
        power = _number(properties.get("aperio.AppMag"))
    else:
        unit = _UM_PER_UNIT.get(first.integer(tags.RESOLUTION_UNIT, 2))
        per_unit = first.rational(tags.X_RESOLUTION), first.rational(tags.Y_RESOLUTION)
        if unit and per_unit[0] and per_unit[1]:
            mpp = unit / per_unit[0], unit / per_unit[1]
    icc = first.raw(tags.ICC_PROFILE) if first.count(tags.ICC_PROFILE) else None
    return SlideMetadata(mpp=mpp, objective_power=power, vendor=vendor, properties=properties, icc_profile=icc)


def _number(text: str | None) -> float | None:
    """A plain decimal number; with a comma as well, as some scanners write it."""
    if text is None or not _NUMBER.fullmatch(text.replace(",", ".")):
        return None
    return float(text.replace(",", "."))
