from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsicurate.slides import kept_open
from wsicurate.slides.discovery import find_slides
from wsicurate.slides.identity import FileStamp, stamp


def test_a_slide_stays_open_until_another_is_asked_for(
    paint: Callable[..., tuple[Path, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = paint(width=512, height=512)
    (source,) = find_slides([path])[0]
    monkeypatch.setattr(kept_open, "_kept", kept_open._Kept())
    now = stamp(source.files)
    slide = kept_open.opened(source, now)
    assert kept_open.opened(source, now) is slide
    changed = FileStamp(**{**vars(now), "sizes": tuple(size + 1 for size in now.sizes)})
    again = kept_open.opened(source, changed)
    assert again is not slide
    again.close()
