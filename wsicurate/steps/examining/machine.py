"""Libraries, and what computes."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from wsicurate.cores import usable_cores
from wsicurate.steps.examining.finding import Finding

#: Modules that are compiled, and so break where their package is installed: their packages, by name.
_COMPILED = {
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "google_crc32c": "google-crc32c",
    "imagecodecs": "imagecodecs",
    "openslide": "openslide-python",
    "pyarrow": "pyarrow",
    "simplejpeg": "simplejpeg",
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "zstandard": "zstandard",
}


def libraries() -> Iterator[Finding]:
    """Installed versions against those that wsicurate declares, and whether the compiled ones load."""
    wrong = 0
    for line in metadata.requires("wsicurate") or ():
        required = Requirement(line)
        if required.marker is not None and not required.marker.evaluate({"extra": ""}):
            continue
        fix = f'run: pip install "{required}"'
        try:
            version = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            wrong += 1
            yield Finding(part="libraries", state="fault", what=f"{required.name} is not installed", fix=fix)
            continue
        if not required.specifier.contains(version, prereleases=True):
            wrong += 1
            what = f"{required.name} is {version}, and wsicurate takes {required.specifier}"
            yield Finding(part="libraries", state="fault", what=what, fix=fix)
    for module, package in _COMPILED.items():
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            wrong += 1
            what = f"{package} does not load: {type(error).__name__}: {error}"
            fix = f"run: pip install --force-reinstall {package}"
            yield Finding(part="libraries", state="fault", what=what, fix=fix)
    if not wrong:
        what = f"wsicurate {metadata.version('wsicurate')} on Python {platform.python_version()}, all libraries load"
        yield Finding(part="libraries", state="ok", what=what)


def device() -> Iterator[Finding]:
    """What networks would run on."""
    from wsicurate.embedding.networks.devices import gpus, torch_version

    found = gpus()
    for what in found:
        yield Finding(part="device", state="ok", what=what)
    if not found:
        yield Finding(
            part="device",
            state="warning",
            what=f"no GPU that torch {torch_version()} sees; {usable_cores()} cores, each some 25 patches/s by a ViT-S",
            fix="fine for the descriptors; for large encoders use a machine with a GPU and a torch made for it",
        )
