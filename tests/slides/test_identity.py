from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from wsicurate.errors import SlideChangedError, SlideNotFoundError
from wsicurate.slides.identity import check_unchanged, quick_hash, stamp


def test_the_hash_sees_sizes_ends_and_order_does_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    data = bytearray(rng.bytes(3_000_000))
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(data)
    data[-1] ^= 1
    second.write_bytes(data)
    assert quick_hash([first]) != quick_hash([second])
    assert quick_hash([first, second]) == quick_hash([second, first])
    second.write_bytes(first.read_bytes())
    assert quick_hash([first]) == quick_hash([second])
    second.write_bytes(data[:-1])
    assert quick_hash([first]) != quick_hash([second])


def test_small_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    empty = quick_hash([path])
    path.write_bytes(b"x")
    assert quick_hash([path]) != empty


def test_a_change_and_a_loss_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"before")
    before = stamp([path])
    check_unchanged([path], before)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SlideChangedError, match=r"a.svs changed while it was read \(it was 6 bytes\); wait until"):
        check_unchanged([path], before)
    path.unlink()
    with pytest.raises(SlideNotFoundError, match=r"a.svs is not there \(any more\); put it back and run again"):
        check_unchanged([path], before)
