"""Readers and codecs, tried on a synthetic slide."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsicurate.slides.opening import open_slide
from wsicurate.steps.examining.finding import Finding
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

#: Largest mean difference of pixels after JPEG at quality 90, grey levels.
_JPEG_DIFFERS = 8.0


def readers() -> Iterator[Finding]:
    """Our reader and OpenSlide read a JPEG and a JPEG 2000 slide, and see the same."""
    with tempfile.TemporaryDirectory(prefix="wsicurate-doctor-") as folder:
        for compression in ("jpeg", "jpeg2000"):
            path = Path(folder) / f"{compression}.svs"
            write_slide(path, SyntheticSlide(width=1_024, height=1_024, seed=1, compression=compression))
            found = {}
            for reader in ("tiff", "openslide"):
                with open_slide(path, reader=reader) as slide:
                    found[reader] = slide.read(0, 256, 256, 256, 256)
            differs = float(np.abs(found["tiff"].astype(int) - found["openslide"]).mean())
            state = "ok" if differs < 1 else "fault"
            words = "see the same" if differs < 1 else f"differ by {differs:.1f} grey levels"
            what = f"{compression}: the direct reader and OpenSlide {words}"
            fix = "" if differs < 1 else "run: pip install --force-reinstall openslide-bin imagecodecs simplejpeg"
            yield Finding(part="readers", state=state, what=what, fix=fix)  # type: ignore[arg-type]
    if importlib.util.find_spec("tiatoolbox") is None:
        what = "without TIAToolbox, slides that OpenSlide refuses (JP2, NGFF) are not read"
        fix = 'if you have such: pip install "wsicurate[tiatoolbox]", in an environment of its own'
        yield Finding(part="readers", state="ok", what=what, fix=fix)


def codecs() -> Iterator[Finding]:
    """Patches come back from JPEG nearly, from Zstandard exactly."""
    import zstandard

    from wsicurate.pixels.jpeg import decode_jpeg, encode_jpeg

    smooth = np.add.outer(np.arange(256), np.arange(256)) // 2
    patch = np.repeat(smooth[..., None], 3, axis=2).astype(np.uint8)
    differs = float(np.abs(decode_jpeg(encode_jpeg(patch, 90)).astype(int) - patch).mean())
    packed = zstandard.ZstdCompressor().compress(patch.tobytes())
    is_same = zstandard.ZstdDecompressor().decompress(packed) == patch.tobytes()
    if differs < _JPEG_DIFFERS and is_same:
        yield Finding(part="codecs", state="ok", what="JPEG and Zstandard give back what was stored")
    else:
        what = (
            f"JPEG differs by {differs:.1f} grey levels, Zstandard {'is the same' if is_same else 'gives other bytes'}"
        )
        yield Finding(
            part="codecs", state="fault", what=what, fix="run: pip install --force-reinstall simplejpeg zstandard"
        )
