from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsicurate.config import TileConfig
from wsicurate.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mpp": 0}, r"--mpp is 0; give µm per pixel from 0.05 to 20"),
        ({"mpp": float("nan")}, r"--mpp is nan"),
        ({"patch_px": 4}, r"--patch-px is 4; give a whole number of pixels from 8 to 4096"),
        ({"patch_px": 256.0}, r"--patch-px is 256.0"),
        ({"min_tissue": 1.5}, r"--min-tissue is 1.5; give a share from 0 to 1"),
        ({"codec": "png"}, r"--codec is 'png'; choose one of jpeg, zstd, none"),
        ({"quality": 0}, r"--quality is 0"),
        ({"workers": 0}, r"--workers is 0"),
        ({"workers": True}, r"--workers is True"),
        ({"default_mpp": 264.58}, r"--default-mpp is 264.58"),
        ({"max_patches_per_slide": 0}, r"--max-patches-per-slide is 0"),
        ({"seed": -1}, r"--seed is -1"),
        ({"kinds": ("", "DX")}, r"--kinds is empty"),
        ({"slide_timeout": 0}, r"--slide-timeout is 0; give seconds above 0, at most 1e9"),
        ({"slide_timeout": 1e308}, r"--slide-timeout is 1e\+308; give seconds above 0, at most 1e9"),
        ({"slide_timeout": float("inf")}, r"--slide-timeout is inf; give seconds above 0, at most 1e9"),
    ],
)
def test_bad_settings_are_refused_by_name_value_and_mend(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TileConfig(**options)


def test_kinds_are_read_as_people_write_them() -> None:
    assert TileConfig(kinds=("dx", " ts ")).kinds == ("DX", "TS")
    assert TileConfig(kinds="dx,ts").kinds == ("DX", "TS")


def test_a_slide_table_may_be_named_in_words() -> None:
    assert TileConfig(slide_table="a.csv").slide_table == Path("a.csv")


def test_the_seed_counts_only_where_a_sample_is_drawn() -> None:
    assert TileConfig(seed=1).store_settings() == TileConfig(seed=2).store_settings()
    sampled = TileConfig(seed=1, max_patches_per_slide=9).store_settings()
    assert sampled != TileConfig(seed=2, max_patches_per_slide=9).store_settings()
