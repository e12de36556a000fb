"""What workers do for `embed`: read patches and describe them. Plain functions of one picklable argument, no torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.embedding.encoders import Descriptor, load_descriptor
from wsicurate.errors import EncoderError
from wsicurate.opening import SlidePixels
from wsicurate.store.committed import read_slide_record
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.root import read_store_record
from wsicurate.store.slide_patches import Patches, SlidePatches


@dataclass(frozen=True)
class Block:
    """Vectors of some neighbouring patches of a slide.

    Attributes:
        start: row of the first.
        vectors: float32, (k, dim).
        is_varied: whether the patches differ from each other.
    """

    start: int
    vectors: NDArray[np.float32]
    is_varied: bool


def varied(patches: Patches) -> bool:
    """Whether not all patches are the same."""
    return any(not np.array_equal(patches[0], patch) for patch in patches[1:])


@dataclass(frozen=True)
class DescribeTask:
    """Describe some patches of a slide.

    Attributes:
        store: the store's folder.
        slides: folders to look for moved slides in.
        key: of the slide's group.
        content_hash: of its patches.
        start, stop: rows.
        place: the descriptor, as `load_descriptor` takes it.
    """

    store: Path
    slides: tuple[Path, ...]
    key: str
    content_hash: str
    start: int
    stop: int
    place: str


class _Kept(threading.local):
    """What a thread keeps open between its tasks: threads of one process read different slides at once."""

    slide: tuple[tuple[Path, str, str], SlidePatches] | None = None

    def __init__(self) -> None:
        self.pixels: dict[tuple[Path, ...], SlidePixels] = {}
        self.descriptors: dict[str, Descriptor] = {}


_kept = _Kept()


def describe(task: DescribeTask) -> Block:
    """Read and describe patches; the last slide stays open between the tasks of a thread.

    Raises:
        EncoderError: if the descriptor does not return what it says.
        SlideError, StoreError: if they cannot be read.
    """
    wanted = (task.store, task.key, task.content_hash)
    if _kept.slide is None or _kept.slide[0] != wanted:
        local = LocalBytes(task.store)
        record = read_slide_record(local, task.key)
        if record is None:
            raise KeyError(f"{task.key} is not in the store any more")
        source = _kept.pixels.setdefault(task.slides, SlidePixels(task.slides))
        store_record = read_store_record(local, str(task.store))
        _kept.slide = wanted, SlidePatches(local, task.key, record, store_record, source)
    if task.place not in _kept.descriptors:
        _kept.descriptors[task.place] = load_descriptor(task.place)
    descriptor = _kept.descriptors[task.place]
    patches = _kept.slide[1].read(np.arange(task.start, task.stop, dtype=np.intp))
    found = descriptor(patches)
    shape, wanted_shape = np.shape(found), (len(patches), descriptor.dim)
    if shape != wanted_shape:
        raise EncoderError(f"{descriptor.name} returns {shape} for {len(patches)} patches, not {wanted_shape}")
    return Block(task.start, np.asarray(found, dtype=np.float32), varied(patches))
