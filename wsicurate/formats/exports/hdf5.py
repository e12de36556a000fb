"""Coordinates and vectors as TRIDENT and CLAM lay them out: one HDF5 file a slide, for slide classifiers.

Vectors are float32, (n, d), corners int64, (n, 2), in level-0 pixels, both in the order of the store's rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate.formats.exports.base import Batch, File, Format, Piece, Written


class Trident(Format):
    """``20x_256px_0px_overlap/patches/<slide>_patches.h5``, and ``features_<encoder>/<slide>.h5`` with ``--encoder``.

    The data sets are ``coords`` and ``features``, the attributes those of TRIDENT 0.2. ``20x`` is 10 divided by the
    resolution of the patches in µm per pixel.
    """

    by = "slide"
    takes_vectors = True
    needs_places = True
    one_file_a_slide = True
    owned = r"[\d.e+-]+x_\d+px_0px_overlap/(patches/[^/]+_patches|features_[^/]+/[^/]+)\.h5"
    opened_by = "TRIDENT with --job_dir {folder}"

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=self._files(piece))

    def _files(self, piece: Piece) -> Iterator[File]:
        (batch,) = piece.batches
        record, name = batch.slide.record, self.slide_names[batch.key]
        magnification, source = _number(10 / record.mpp), _number(10 / record.resolution["mpp"])
        folder = f"{magnification}x_{record.patch_px}px_0px_overlap"
        facts = {
            "patch_size": record.patch_px,
            "patch_size_level0": round(record.reading["pitch"]),
            "level0_magnification": source,
            "target_magnification": magnification,
            "overlap": 0,
            "name": name,
            "savetodir": folder,
            "level0_width": record.reading["width"],
            "level0_height": record.reading["height"],
        }
        xy = batch.xy().astype(np.int64)
        yield f"{folder}/patches/{name}_patches.h5", [_hdf5({"coords": xy}, {"coords": facts})]
        encoder = self.config.encoder
        if encoder is not None:
            about = {"name": name, "savetodir": f"{folder}/features_{encoder}", "encoder": encoder}
            yield (
                f"{folder}/features_{encoder}/{name}.h5",
                [_hdf5({"features": _vectors(batch, encoder), "coords": xy}, {"features": about, "coords": facts})],
            )


class Clam(Format):
    """``patches/<slide>.h5`` (``coords``), and with ``--encoder`` ``h5_files/<slide>.h5`` and ``pt_files/<slide>.pt``.

    ``patch_level`` and ``patch_size`` say which window of the slide a patch is, in pixels of that level; where it was
    reduced to `patch_px`, the window is larger than the patch.
    """

    by = "slide"
    takes_vectors = True
    needs_places = True
    one_file_a_slide = True
    owned = r"(patches|h5_files)/[^/]+\.h5|pt_files/[^/]+\.pt"
    opened_by = "CLAM with --data_root_dir {folder}, or create it from {folder}/patches with extract_features_fp.py"

    def write(self, piece: Piece) -> Written:
        """See `Format.write`."""
        return Written(files=self._files(piece))

    def _files(self, piece: Piece) -> Iterator[File]:
        (batch,) = piece.batches
        record, name = batch.slide.record, self.slide_names[batch.key]
        reading = record.reading
        downsample = float(reading["downsample"])
        level_size = [max(1, round(reading[edge] / downsample)) for edge in ("width", "height")]
        facts = {
            "patch_size": round(reading["pitch"] / downsample),
            "patch_level": reading["level"],
            "downsample": np.array([downsample, downsample]),
            "downsampled_level_dim": np.array(level_size),
            "level_dim": np.array(level_size),
            "name": name,
            "save_path": "patches",
        }
        xy = batch.xy().astype(np.int64)
        yield f"patches/{name}.h5", [_hdf5({"coords": xy}, {"coords": facts})]
        if self.config.encoder is not None:
            import torch

            vectors = _vectors(batch, self.config.encoder)
            yield f"h5_files/{name}.h5", [_hdf5({"features": vectors, "coords": xy}, {"coords": facts})]
            sink = io.BytesIO()
            torch.save(torch.from_numpy(vectors), sink)
            yield f"pt_files/{name}.pt", [sink.getvalue()]


def _vectors(batch: Batch, encoder: str) -> NDArray[np.float32]:
    return batch.vectors(encoder).astype(np.float32)


def _number(value: float) -> float | int:
    """A magnification to six digits; whole ones as whole numbers, which is what the others write.

    >>> _number(10 / 0.2525), _number(20.0)
    (39.604, 20)
    """
    value = float(f"{value:.6g}")
    return int(value) if value == int(value) else value


def _hdf5(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A file of arrays and their attributes; the same bytes from the same values."""
    import h5py

    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        for name, values in arrays.items():
            dataset = file.create_dataset(name, data=values)
            for key, value in attributes.get(name, {}).items():
                dataset.attrs[key] = value
    return sink.getvalue()
