"""Planted damage is found, and what `check` advises ends in the store as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import campaign


@pytest.mark.parametrize("every", [173, pytest.param(5, marks=pytest.mark.slow)])
def test_planted_damage_is_found_and_undone_as_advised(tmp_path: Path, every: int) -> None:
    planted, missed, unhelpful = campaign(tmp_path, every, advise=True)
    assert sum(planted.values()) > 15
    assert missed == []
    assert unhelpful == []
