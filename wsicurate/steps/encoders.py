"""`encoders`: which encoders are known by name, and what their licences say."""

from __future__ import annotations

from pathlib import Path

from wsicurate.embedding.plugin_encoders import plugin_presets
from wsicurate.embedding.presets import DEFAULT_ENCODER, Preset, all_presets
from wsicurate.validation import expanded, require_path

__all__ = ["DEFAULT_ENCODER", "Preset", "encoders"]


def encoders(presets: str | Path | None = None) -> list[Preset]:
    """The encoders that are known by name, those of other packages too, sorted.

    Any timm model, ``hf-hub:`` id or file can be named besides.

    Args:
        presets: a TOML file with more of them.

    Raises:
        ConfigError: if a file of encoders is wrong, or an encoder of another package.
    """
    found = all_presets(None if presets is None else expanded(require_path("--presets", presets)))
    found = plugin_presets() | found
    return sorted(found.values(), key=lambda preset: preset.name)
