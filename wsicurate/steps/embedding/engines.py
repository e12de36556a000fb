"""What turns blocks of patches into vectors for `embed`: a network fed by threads, or processes that describe."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsicurate.embedding.encoders import describe_identity, load_descriptor
from wsicurate.embedding.presets import Preset
from wsicurate.engine.workers import Crew, Done
from wsicurate.steps.embedding.tasks import Block, DescribeTask, describe, varied
from wsicurate.store.slide_patches import Patches, SlidePatches

if TYPE_CHECKING:
    from wsicurate.embedding.networks.inference import Inference, Pending

#: Patches per task of a descriptor.
DESCRIPTOR_ROWS = 256

#: Patches that one thread decodes at a time.
_DECODED_ROWS = 8

#: Batches that are being decoded or wait for the network.
_BATCHES_AHEAD = 3


class Engine(Protocol):
    """Takes blocks of rows and gives back vectors; `Done.result` is a `Block`."""

    @property
    def load(self) -> int:
        """Blocks submitted and not reported."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another block would start soon."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What the record says of the encoder."""
        ...

    def settings(self, block_rows: int) -> Mapping[str, Any]:
        """What the bytes depend on besides weights and patches."""
        ...

    def block_rows(self, wanted: int | None) -> int:
        """Patches per block."""
        ...

    def submit(self, slide: SlidePatches, start: int, stop: int, block_rows: int, tag: Any) -> None:
        """Queue the rows ``start`` to ``stop`` of a slide."""
        ...

    def finished(self, timeout_s: float) -> Iterator[Done]:
        """Wait up to ``timeout_s`` for blocks, and report those that are done."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Forget what is queued, and end."""
        ...


@dataclass
class _Batch:
    images: Patches
    parts: list[Future[bool]]
    start: int
    block_rows: int
    tag: Any
    pending: Pending | None = None
    error: BaseException | None = None
    is_varied: bool = field(default=False)


class NetworkEngine:
    """Threads decode and resize, this thread runs the network, in the order in which blocks were submitted.

    Args:
        inference: the network.
        threads: that decode.
    """

    def __init__(self, inference: Inference, threads: int) -> None:
        self.inference = inference
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="wsicurate decode")
        self._queue: deque[_Batch] = deque()
        self._flying: deque[_Batch] = deque()
        self._ahead = _BATCHES_AHEAD

    @property
    def load(self) -> int:
        """Blocks submitted and not reported."""
        return len(self._queue) + len(self._flying)

    @property
    def has_room(self) -> bool:
        """Whether another block should be decoded now."""
        return self.load < self._ahead

    def identity(self) -> Mapping[str, Any]:
        """What the record says of the encoder."""
        from wsicurate.embedding.networks.inference import identity

        return identity(self.inference.model)

    def settings(self, block_rows: int) -> Mapping[str, Any]:
        """Device, precision and batch size."""
        return self.inference.settings(block_rows)

    def block_rows(self, wanted: int | None) -> int:
        """Patches per batch."""
        return self.inference.find_batch_size(wanted)

    def submit(self, slide: SlidePatches, start: int, stop: int, block_rows: int, tag: Any) -> None:
        """Begin to decode a batch."""
        size = self.inference.model.input_px
        images = np.empty((stop - start, size, size, 3), dtype=np.uint8)
        step = _DECODED_ROWS if slide.images is not None else stop - start  # neighbours share a slide's tiles

        def decode(first: int, last: int) -> bool:
            patches = slide.read(np.arange(first, last, dtype=np.intp))
            for offset, patch in enumerate(patches):
                images[first - start + offset] = self.inference.fit(patch)
            return varied(images[first - start : last - start]) if last - first > 1 else False

        parts = [self._threads.submit(decode, first, min(first + step, stop)) for first in range(start, stop, step)]
        self._queue.append(_Batch(images, parts, start, block_rows, tag))

    def finished(self, timeout_s: float) -> Iterator[Done]:
        """Run the next batch through the network once it is decoded; report the one before it, or it."""
        if self._queue:
            batch = self._queue[0]
            if wait(batch.parts, timeout=timeout_s).not_done:
                return
            self._queue.popleft()
            self._start(batch)
            self._flying.append(batch)
        depth = 1 if self.inference.device == "cuda" and self._queue else 0
        while len(self._flying) > depth:
            yield self._finish(self._flying.popleft())

    def _start(self, batch: _Batch) -> None:
        batch.error = next((error for part in batch.parts if (error := part.exception()) is not None), None)
        if batch.error is not None:
            return
        batch.is_varied = any(part.result() for part in batch.parts) or varied(batch.images)
        try:
            batch.pending = self.inference.start(batch.images, batch.block_rows)
        except Exception as error:  # reported as the block's
            batch.error = error

    def _finish(self, batch: _Batch) -> Done:
        if batch.pending is None:
            return Done(batch.tag, None, batch.error)
        try:
            vectors = self.inference.finish(batch.pending)
        except Exception as error:  # reported as the block's
            return Done(batch.tag, None, error)
        return Done(batch.tag, Block(batch.start, vectors, batch.is_varied))

    def close(self, *, kill: bool = False) -> None:
        """Forget what is queued; wait for the threads."""
        self._queue.clear()
        self._flying.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)


class DescriptorEngine:
    """Processes that decode and describe, one task per block.

    Args:
        preset: the encoder.
        store: the store's folder.
        slides: folders to look for moved slides in.
        workers: processes.
        executor: where tasks run instead.
    """

    def __init__(
        self, preset: Preset, store: Path, slides: tuple[Path, ...], workers: int, executor: Executor | None
    ) -> None:
        self._preset = preset
        self._store = store
        self._slides = slides
        self._descriptor = load_descriptor(preset.place)
        self._crew = Crew(workers, executor)

    @property
    def load(self) -> int:
        """Blocks submitted and not reported."""
        return self._crew.load

    @property
    def has_room(self) -> bool:
        """Whether another block would start soon."""
        return self._crew.has_room

    def identity(self) -> Mapping[str, Any]:
        """What the record says of the descriptor."""
        return describe_identity(self._preset, self._descriptor)

    def settings(self, block_rows: int) -> Mapping[str, Any]:
        """Nothing but the descriptor: its vectors depend on nothing else."""
        return {"device": "cpu", "precision": "fp32"}

    def block_rows(self, wanted: int | None) -> int:
        """Patches per task; it leaves no trace in the vectors."""
        return DESCRIPTOR_ROWS

    def submit(self, slide: SlidePatches, start: int, stop: int, block_rows: int, tag: Any) -> None:
        """Queue a task."""
        task = DescribeTask(
            self._store, self._slides, slide.key, slide.record.content_hash, start, stop, self._preset.place
        )
        self._crew.submit(describe, task, tag)

    def finished(self, timeout_s: float) -> Iterator[Done]:
        """Report tasks that are done."""
        return self._crew.finished(timeout_s)

    def close(self, *, kill: bool = False) -> None:
        """End the workers."""
        self._crew.close(kill=kill)


def network_share(engine: Engine, seconds: float) -> float | None:
    """How much of the last ``seconds`` a network's forward pass ran, 0 to 1; None without one."""
    if not isinstance(engine, NetworkEngine):
        return None
    return min(1.0, engine.inference.forward_s / max(seconds, 1e-9))
