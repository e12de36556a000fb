from __future__ import annotations

from pathlib import Path

import pytest

from wsicurate.curation.clustering import devices
from wsicurate.curation.clustering.devices import resolve_device


def test_what_is_named_is_taken() -> None:
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert resolve_device(name) == name


def test_auto_asks_torch_only_where_there_is_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsicurate.curation.clustering import gpu

    asked: list[bool] = []

    def has_cuda(answer: bool) -> bool:
        asked.append(answer)
        return answer

    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path / "nvidiactl")
    monkeypatch.setattr(gpu, "has_cuda", lambda: has_cuda(True))
    assert resolve_device("auto") == "cpu"
    assert asked == []
    (tmp_path / "nvidiactl").touch()
    assert resolve_device("auto") == "cuda"
    monkeypatch.setattr(gpu, "has_cuda", lambda: has_cuda(False))
    assert resolve_device("auto") == "cpu"
