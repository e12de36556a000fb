"""Where things lie in a store."""

from __future__ import annotations

from collections.abc import Iterable

#: Version of the store format that this code writes, and reads.
FORMAT = 1

ROOT = "zarr.json"
SLIDES = "slides"
RUNS = "runs"
CURATIONS = "curations"

#: Work in progress: leases, surveys and segments. Gone when a slide is finished.
WORK = ".wsicurate"

#: How the names of arrays end that a curation lays out to map them into memory; no run goes on from those of another.
SCRATCH = ".npy"

#: How the names of segments end.
SEGMENT = ".segment"

#: How the names of a slide's unfinished work end: segments, and what its survey found.
UNFINISHED = (SEGMENT, ".npz")


def slide_key(slide_id: str, mpp: float) -> str:
    """Name of a slide's group: ``slide_id@mpp``."""
    return f"{slide_id}@{mpp:g}"


def slide_path(key: str) -> str:
    """Path of a slide's group."""
    return f"{SLIDES}/{key}"


def mark_path(key: str) -> str:
    """Path of a slide's commit mark: without it, the slide does not exist."""
    return f"{SLIDES}/{key}/zarr.json"


def embedding_path(key: str, encoder: str) -> str:
    """Path of the array of a slide's vectors by one encoder."""
    return f"{SLIDES}/{key}/embeddings/{encoder}"


def work_path(key: str) -> str:
    """Path of a slide's work in progress."""
    return f"{WORK}/{key}"


def segment_path(key: str, fingerprint: str, number: int) -> str:
    """Path of one finished segment of a slide made with the settings of ``fingerprint``."""
    return f"{WORK}/{key}/{fingerprint[:16]}-{number:06d}{SEGMENT}"


def curation_work_path(name: str) -> str:
    """Path of a curation's work in progress."""
    return f"{WORK}/curate-{name}"


def case_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ in case alone, or None: one file name on macOS, Windows and many network drives.

    >>> case_twins(["a.svs", "b.svs", "A.svs"])
    ('A.svs', 'a.svs')
    """
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return other, name
    return None
