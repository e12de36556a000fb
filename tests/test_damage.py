"""Planted damage is found, and what `check` advises ends in the store as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import campaign


@pytest.mark.slow
def test_planted_damage_is_found_and_undone_as_advised(tmp_path: Path) -> None:
    planted, missed, unhelpful = campaign(tmp_path, 5, advise=True)
    assert sum(planted.values()) > 15
    assert missed == []
    assert unhelpful == []
