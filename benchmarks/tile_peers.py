"""One peer of `tile.py`, in a process, and perhaps an environment, of its own.

    python tile_peers.py PEER SLIDE WINDOWS.npz OUTPUT

reads the windows, resizes them to 256 x 256, encodes and writes them through zarr-python where the peer writes at all,
and prints ``{"patches": ..., "seconds": ..., "processor_seconds": ...}``. Imports and opening are not timed, which
favours the peer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

PATCH_PX = 256
SHARD = 1024

cv2.setNumThreads(1)


def write_through_zarr(output: str, count: int, patches: Callable[[int], np.ndarray]) -> None:
    """Whole shards at a time, which is how zarr-python writes fastest."""
    import zarr

    from wsicurate.store.zarr_codec import JpegCodec

    array = zarr.create_array(
        output,
        shape=(count, PATCH_PX, PATCH_PX, 3),
        chunks=(1, PATCH_PX, PATCH_PX, 3),
        shards=(SHARD, PATCH_PX, PATCH_PX, 3),
        dtype="uint8",
        serializer=JpegCodec(quality=90),
        compressors=[zarr.codecs.Crc32cCodec()],  # type: ignore[attr-defined]
    )
    for start in range(0, count, SHARD):
        stop = min(start + SHARD, count)
        array[start:stop] = np.stack([patches(index) for index in range(start, stop)])


def report(patches: int, began: float, used: float) -> None:
    """Print what was done, and how long it took by the clock and of processors."""
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    print(json.dumps({"patches": patches, "seconds": seconds, "processor_seconds": processor}))


def main(peer: str, slide: str, windows: str, output: str) -> None:
    with np.load(windows) as stored:
        xy, size, mpp, mask = stored["xy"], int(stored["size"]), float(stored["mpp"]), stored["mask"]
    if peer == "openslide":
        import openslide

        handle = openslide.OpenSlide(slide)

        def read(index: int) -> np.ndarray:
            x, y = (int(value) for value in xy[index])
            return np.asarray(handle.read_region((x, y), 0, (size, size)))[:, :, :3]
    elif peer == "cucim":
        from cucim import CuImage

        image = CuImage(slide)

        def read(index: int) -> np.ndarray:
            x, y = (int(value) for value in xy[index])
            return np.asarray(image.read_region((x, y), (size, size), 0, num_workers=1))
    elif peer == "tiatoolbox":
        from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
        from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader

        extractor = SlidingWindowPatchExtractor(
            OpenSlideWSIReader(Path(slide), mpp=(mpp, mpp)),
            patch_size=(PATCH_PX, PATCH_PX),
            input_mask=mask,
            resolution=0.5,
            units="mpp",
            min_mask_ratio=0.25,
        )
        began, used, done = time.perf_counter(), time.process_time(), 0
        for patch in extractor:
            done += patch.shape == (PATCH_PX, PATCH_PX, 3)
            if done == len(xy):
                break
        report(done, began, used)
        return
    else:
        raise SystemExit(f"no such peer: {peer}")

    def patch(index: int) -> np.ndarray:  # type: ignore[no-redef]
        pixels = np.ascontiguousarray(read(index))
        return cv2.resize(pixels, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA) if size != PATCH_PX else pixels

    began, used = time.perf_counter(), time.process_time()
    write_through_zarr(output, len(xy), patch)
    report(len(xy), began, used)


if __name__ == "__main__":
    main(*sys.argv[1:])
