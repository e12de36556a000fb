"""wsicurate: whole-slide images in; a curated set of tissue patches for self-supervised pretraining out.

The notebook API. Everything here is loaded when it is first used, so importing the package costs nothing.
"""

from __future__ import annotations

from wsicurate._version import __version__

TYPE_CHECKING = False  # as of typing, which takes longer to import than all the rest of this file
if TYPE_CHECKING:
    from typing import Any

    from wsicurate import plots
    from wsicurate.config import EmbedConfig, ExportConfig, ImportConfig, MaterialiseConfig, ReportConfig, TileConfig
    from wsicurate.embedding.encoders import load_encoder
    from wsicurate.embedding.networks.attention import attention_maps
    from wsicurate.embedding.networks.token_colours import pca_rgb
    from wsicurate.errors import SlideError, StoreError, WsicurateError
    from wsicurate.opening import open_store
    from wsicurate.slides.base import Slide
    from wsicurate.slides.opening import open_slide
    from wsicurate.slides.tcga import Barcode, parse_barcode
    from wsicurate.steps.check import check
    from wsicurate.steps.curate import CurateReport, curate
    from wsicurate.steps.demo import demo
    from wsicurate.steps.embed import EmbedReport, embed
    from wsicurate.steps.encoders import encoders
    from wsicurate.steps.export import ExportReport, export
    from wsicurate.steps.imports import ImportReport, import_patches
    from wsicurate.steps.info import info
    from wsicurate.steps.materialise import MaterialiseReport, materialise
    from wsicurate.steps.report import PageReport, write_report
    from wsicurate.steps.run import RunReport, run
    from wsicurate.steps.tile import TileReport, tile
    from wsicurate.store.manifest import Curation
    from wsicurate.store.slide_patches import SlidePatches
    from wsicurate.store.store import Store
    from wsicurate.synthetic.cohort import write_cohort
    from wsicurate.synthetic.description import SyntheticSlide
    from wsicurate.synthetic.ground_truth import GroundTruth
    from wsicurate.synthetic.slide import write_slide

#: Where each name lives; ``plots`` is a module.
_HOMES = {
    "Barcode": "slides.tcga",
    "CurateConfig": "config",
    "CurateReport": "steps.curate",
    "Curation": "store.manifest",
    "EmbedConfig": "config",
    "EmbedReport": "steps.embed",
    "ExportConfig": "config",
    "ExportReport": "steps.export",
    "GroundTruth": "synthetic.ground_truth",
    "ImportConfig": "config",
    "ImportReport": "steps.imports",
    "MaterialiseConfig": "config",
    "MaterialiseReport": "steps.materialise",
    "PageReport": "steps.report",
    "ReportConfig": "config",
    "RunReport": "steps.run",
    "Slide": "slides.base",
    "SlideError": "errors",
    "SlidePatches": "store.slide_patches",
    "Store": "store.store",
    "StoreError": "errors",
    "SyntheticSlide": "synthetic.description",
    "TileConfig": "config",
    "TileReport": "steps.tile",
    "WsicurateError": "errors",
    "attention_maps": "embedding.networks.attention",
    "check": "steps.check",
    "curate": "steps.curate",
    "demo": "steps.demo",
    "embed": "steps.embed",
    "encoders": "steps.encoders",
    "export": "steps.export",
    "import_patches": "steps.imports",
    "info": "steps.info",
    "load_encoder": "embedding.encoders",
    "materialise": "steps.materialise",
    "open_slide": "slides.opening",
    "open_store": "opening",
    "parse_barcode": "slides.tcga",
    "pca_rgb": "embedding.networks.token_colours",
    "plots": "plots",
    "run": "steps.run",
    "tile": "steps.tile",
    "write_cohort": "synthetic.cohort",
    "write_report": "steps.report",
    "write_slide": "synthetic.slide",
}

__all__ = [
    "Barcode",
    "CurateConfig",
    "CurateReport",
    "Curation",
    "EmbedConfig",
    "EmbedReport",
    "ExportConfig",
    "ExportReport",
    "GroundTruth",
    "ImportConfig",
    "ImportReport",
    "MaterialiseConfig",
    "MaterialiseReport",
    "PageReport",
    "ReportConfig",
    "RunReport",
    "Slide",
    "SlideError",
    "SlidePatches",
    "Store",
    "StoreError",
    "SyntheticSlide",
    "TileConfig",
    "TileReport",
    "WsicurateError",
    "__version__",
    "attention_maps",
    "check",
    "curate",
    "demo",
    "embed",
    "encoders",
    "export",
    "import_patches",
    "info",
    "load_encoder",
    "materialise",
    "open_slide",
    "open_store",
    "parse_barcode",
    "pca_rgb",
    "plots",
    "run",
    "tile",
    "write_cohort",
    "write_report",
    "write_slide",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsicurate' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"wsicurate.{_HOMES[name]}")
    value = module if _HOMES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
