"""Stores made by hand in milliseconds: pixels, scores, patients and vectors as a test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsicurate.opening import open_store
from wsicurate.store.codecs import ZstdCodec
from wsicurate.store.commit import SlideContent, commit_slide
from wsicurate.store.embeddings import EmbeddingRecord, write_embedding
from wsicurate.store.layout import segment_path, slide_key
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.root import create_store
from wsicurate.store.segments import Segment, write_segment
from wsicurate.store.store import Store

PX = 96

#: Encoders of a made store: the one that chooses, and the one that evaluates.
SELECTION_ENCODER, EVALUATION_ENCODER = "selection_encoder", "evaluation_encoder"

Images = NDArray[np.uint8]


@dataclass
class Made:
    """A slide to be made: patches on a grid of ten columns.

    Attributes:
        pixels: uint8, (n, 96, 96, 3).
        vectors: (n, d), of the selection_encoder; those of the evaluation encoder are drawn at random.
        focus: score of each patch; 5 where left out. All other scores are those of good patches.
        tissue: likewise, 1.
    """

    pixels: Images
    vectors: NDArray[np.floating]
    patient: str | None = None
    site: str | None = None
    kind: str | None = None
    label: str | None = None
    mpp: float = 0.5
    focus: Sequence[float] | float = 5.0
    tissue: Sequence[float] | float = 1.0
    names: Sequence[str] | None = None
    reading: Mapping[str, object] = field(default_factory=dict)


def tissue(seed: int, count: int = 1) -> Images:
    """Patches with nuclei, each different from every other: uint8, (count, 96, 96, 3)."""
    random = np.random.default_rng(seed)
    patches = np.empty((count, PX, PX, 3), dtype=np.uint8)
    for patch in patches:
        patch[:] = (228, 150, 190)
        for _ in range(60):
            centre = tuple(int(value) for value in random.integers(0, PX, 2))
            axes = tuple(int(value) for value in random.integers(2, 6, 2))
            colour = tuple(int(value) for value in random.integers((60, 30, 90), (130, 80, 150)))
            cv2.ellipse(patch, centre, axes, float(random.integers(180)), 0, 360, colour, -1, cv2.LINE_AA)
    return patches


def again(patches: Images, seed: int = 0) -> Images:
    """The same patches from another scan: a little lighter, with noise."""
    noise = np.random.default_rng(seed).integers(-4, 5, patches.shape)
    return (patches.astype(np.int16) + 3 + noise).clip(0, 255).astype(np.uint8)


def directions(seed: int, count: int, dimensions: int = 16) -> NDArray[np.float64]:
    """Unit vectors at random: hardly any two are alike."""
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near(vectors: NDArray[np.floating], seed: int = 0, off: float = 0.05) -> NDArray[np.float64]:
    """Vectors beside others: a cosine of about 1 - off^2 / 2."""
    moved = vectors + off * directions(seed, len(vectors), vectors.shape[1])
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def make_store(path: Path, slides: Mapping[str, Made]) -> Store:
    """Make a store, or add slides to one; both encoders have embedded it."""
    local = LocalBytes(path)
    store_record = StoreRecord(patch_px=PX, codec="zstd", quality=None, version="0", tiling={})
    create_store(local, store_record)
    for slide_id, made in slides.items():
        key, count = slide_key(slide_id, made.mpp), len(made.pixels)
        cells = np.arange(count)
        encoded = [ZstdCodec().encode(patch) for patch in made.pixels]
        scores = np.zeros((count, 5), dtype=np.float32)
        scores[:, 0], scores[:, 1] = made.tissue, made.focus
        segment = Segment(
            rows=cells.astype(np.int32),
            scores=scores[:, 1:],
            lengths=np.array([len(each) for each in encoded], dtype=np.int64),
            dropped=np.empty(0, np.int32),
            dropped_reasons=(),
            messages={},
        )
        where = segment_path(key, "f" * 64, 0)
        write_segment(local, where, segment, encoded)
        reading = {
            "width": 10 * PX,
            "height": PX * (count // 10 + 1),
            "level": 0,
            "downsample": 1.0,
            "reduction": 1,
            "pitch": float(PX),
            "effective_mpp": made.mpp,
            "upsampled": False,
        }
        record = SlideRecord(
            slide_id=slide_id,
            name=f"made/{slide_id}",
            mpp=made.mpp,
            patch_px=PX,
            source={"path": f"/made/{slide_id}", "bytes": 1, "files": 1, "quick_hash": slide_id},
            reader="made",
            resolution={"mpp": made.mpp, "origin": "metadata", "objective_power": None, "warnings": []},
            reading={**reading, **made.reading},
            tcga=None,
            patient=made.patient,
            site=made.site,
            kind=made.kind,
            label=made.label,
            settings={},
            fingerprint="f" * 64,
            counts={"lattice": count, "below_min_tissue": 0},
            content_hash="",
        )
        content = SlideContent(
            xy=np.stack([cells % 10 * PX, cells // 10 * PX], axis=1).astype(np.int32),
            tissue=scores[:, 0],
            score_names=("focus", "pen", "dark", "blank"),
            unsampled_xy=np.empty((0, 2), np.int32),
            segments=[where],
            overview=np.full((20, 20, 3), 200, np.uint8),
            overview_downsample=(8.0, 8.0),
            mask=np.ones((20, 20), dtype=bool),
            mask_downsample=(8.0, 8.0),
            names=None if made.names is None else list(made.names),
        )
        record = commit_slide(local, key, record, content, store_record)
        vectors = {SELECTION_ENCODER: made.vectors, EVALUATION_ENCODER: directions(hash_of(slide_id), count)}
        for encoder, values in vectors.items():
            write_embedding(local, key, embedding_record(encoder, values.shape[1], record.content_hash), values)
    return open_store(path)


def embedding_record(encoder: str, dimensions: int, content_hash: str, **changed: str) -> EmbeddingRecord:
    """Attributes of a made embedding."""
    fields = {"weights_hash": encoder, "pooling": "", "licence": "", "terms": "", "fingerprint": "f", **changed}
    return EmbeddingRecord(
        encoder=encoder, dim=dimensions, preprocessing={}, mpp=None, content_hash=content_hash, settings={}, **fields
    )


def hash_of(text: str) -> int:
    """A number for a text, the same in every process."""
    return sum(number * ord(letter) for number, letter in enumerate(text, start=1))
