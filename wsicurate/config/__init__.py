"""The settings of each step: frozen, keyword-only, checked by their types when they are made (see `validation`).

Field names are the command's option names; units stand in the names (``mpp`` is µm per pixel).
"""

from wsicurate.config.curate import SAMPLERS, CurateConfig
from wsicurate.config.embed import EmbedConfig
from wsicurate.config.export import ExportConfig
from wsicurate.config.fields import MPP_RANGE, check_mpp, is_plausible_mpp
from wsicurate.config.imports import ImportConfig
from wsicurate.config.materialise import MaterialiseConfig
from wsicurate.config.report import ReportConfig
from wsicurate.config.tile import TileConfig

__all__ = [
    "MPP_RANGE",
    "SAMPLERS",
    "CurateConfig",
    "EmbedConfig",
    "ExportConfig",
    "ImportConfig",
    "MaterialiseConfig",
    "ReportConfig",
    "TileConfig",
    "check_mpp",
    "is_plausible_mpp",
]
