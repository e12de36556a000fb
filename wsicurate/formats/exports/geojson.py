"""GeoJSON of patches, which QuPath opens on the slide: File > Import objects, or drag and drop."""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

from wsicurate.formats.exports.base import Batch, Format, Piece, Written
from wsicurate.formats.exports.classes import class_texts, coarsest_cluster


class GeoJson(Format):
    """``<slide>.geojson``: a FeatureCollection of squares in level-0 pixels, which QuPath calls tiles.

    The class of a tile is its value in the column of ``--by``; by default its coarsest cluster, or its label where
    there are no clusters. Numbers of the manifest are its measurements.
    """

    by = "slide"
    takes_by = True
    needs_places = True
    one_file_a_slide = True
    owned = r"[^/]+\.geojson"
    opened_by = "QuPath: drop {folder}/<slide>.geojson on the slide"

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        (batch,) = piece.batches
        return Written(files=[(f"{self.slide_names[batch.key]}.geojson", self._parts(batch))])

    def _parts(self, batch: Batch) -> Iterator[bytes]:
        by = self.config.by or coarsest_cluster(self.columns) or "label"
        prefix = "" if by == "label" else f"{by} "
        edge = round(batch.slide.record.reading["pitch"])
        rows = zip(batch.records(), class_texts(batch.table, by), batch.xy().tolist(), strict=True)
        yield b'{"type":"FeatureCollection","features":[\n'
        for number, (record, text, (x, y)) in enumerate(rows):
            feature = _feature(batch.key, record, x, y, edge)
            if text is not None:
                name = f"{prefix}{text}"
                feature["properties"]["classification"] = {"name": name, "color": colour_of(name)}
            text = json.dumps(feature, ensure_ascii=False, separators=(",", ":"))
            yield (",\n" if number else "").encode() + text.encode()
        yield b"\n]}\n"


def _feature(key: str, record: dict[str, Any], x: int, y: int, edge: int) -> dict[str, Any]:
    """A tile; its id is made of its slide and its corner, so that it is the same each time."""
    corners = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
    name = f"{key}_{record['row']:06d}"
    measured = {
        column: value
        for column, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
    return {
        "type": "Feature",
        "id": str(uuid.UUID(bytes=hashlib.blake2b(f"{name} {x} {y}".encode(), digest_size=16).digest(), version=4)),
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"objectType": "tile", "name": name, "measurements": measured},
    }


def colour_of(name: str) -> list[int]:
    """Red, green and blue of a class, from 0 to 255: of its name alone, so that slides agree."""
    state = hashlib.blake2b(name.encode(), digest_size=2).digest()
    hue = int.from_bytes(state, "big") / 65536
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.9)]
