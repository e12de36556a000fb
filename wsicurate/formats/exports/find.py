"""The formats by name; each module is imported when it is asked for."""

from __future__ import annotations

import importlib

from wsicurate.config.export import ExportFormat
from wsicurate.formats.exports.base import Format

_CLASSES: dict[ExportFormat, str] = {
    "webdataset": "webdataset:WebDataset",
    "huggingface": "huggingface:HuggingFace",
    "litdata": "litdata:LitData",
    "dinov2": "dinov2:DinoV2",
    "folder": "folder:ImageFolders",
    "trident": "hdf5:Trident",
    "clam": "hdf5:Clam",
    "anndata": "anndata:AnnDataFiles",
    "spatialdata": "spatialdata:SpatialDataStores",
    "geojson": "geojson:GeoJson",
    "csv": "csv:CsvTable",
}


def find_format(name: ExportFormat) -> type[Format]:
    """The class of a format."""
    module, _, attribute = _CLASSES[name].partition(":")
    found: type[Format] = getattr(importlib.import_module(f"wsicurate.formats.exports.{module}"), attribute)
    return found
