"""The slides of a store that a curation can use, and why it cannot use the others."""

from __future__ import annotations

from collections.abc import Mapping

from wsicurate.config import CurateConfig
from wsicurate.errors import CorruptStoreError, EmbeddingMissingError, ManifestError, SlideError
from wsicurate.steps.curating.pool import DAMAGE, sound_vectors, undecodable
from wsicurate.store.manifest import Curation, read_curation
from wsicurate.store.slide_patches import SlidePatches
from wsicurate.store.store import Store


def sound_part(
    store: Store, config: CurateConfig, damaged: Mapping[str, str] | None, *, with_vectors: bool = True
) -> tuple[Store, Mapping[str, str]]:
    """The store without the slides that do not read back, and why each of these does not.

    Attributes are read of every slide; vectors and patches only of those that an earlier curation of this name had to
    leave out. The vectors of the others are read when they are laid out.

    Args:
        store: open.
        config: settings.
        damaged: slides that are known not to read back: why, by key.
        with_vectors: whether slides must have vectors of the selection encoder.

    Raises:
        CorruptStoreError: if not one slide is left.
        EmbeddingMissingError: if a slide that reads back was not embedded, and must be.
    """
    left_out = {**store.damaged, **(damaged or {})}
    found = None if config.overwrite else _earlier(store, config.name)
    suspects = found.run.get("left_out", {}) if found is not None else {}
    missing = []
    for key, slide in store.slides.items():
        if key in left_out:
            continue
        try:
            if not with_vectors or config.encoder in slide.encoders:
                _ = slide.embedding_record(config.encoder) if with_vectors else None, slide.labels, slide.names
                if not len(slide) == len(slide.xy) == len(slide.quality):
                    raise CorruptStoreError(
                        f"{len(slide.xy)} places and {len(slide.quality)} scores for {len(slide)} patches; tile again"
                    )
                if key in suspects:
                    if with_vectors:
                        sound_vectors(store, key, config.encoder)
                    if reason := undecodable(slide):
                        raise CorruptStoreError(reason)
            else:
                missing.append(key)
        except DAMAGE as error:
            left_out[key] = str(error)
    for key in missing:
        reason = "" if len(missing) + len(left_out) == len(store.slides) else _why_not_embedded(store.slides[key])
        if not reason:
            there = ", ".join(store.encoders) or "none"
            raise EmbeddingMissingError(
                f"{len(missing)} of {len(store.slides)} slides of {store.path}, such as {key}, have no embedding by "
                f"{config.encoder!r} (of all slides: {there}); run: wsicurate embed {store.path} --encoder "
                f"{config.encoder}, or curate with --embed-missing"
            )
        left_out[key] = reason
    sound = store.without(left_out)
    if not sound.slides and left_out:
        key, reason = next(iter(left_out.items()))
        raise CorruptStoreError(
            f"{store.path}: none of its {len(left_out)} slides can be used, such as {key}: {reason}"
        )
    return sound, dict(sorted(left_out.items()))


def _earlier(store: Store, name: str) -> Curation | None:
    """The finished curation of this name; None where there is none, or its record is damaged."""
    try:
        return read_curation(store.bytes, name, str(store.path))
    except ManifestError:
        return None


def _why_not_embedded(slide: SlidePatches) -> str:
    """Why a slide has no vectors, if that is because its patches do not read back; else empty."""
    try:
        return undecodable(slide)
    except SlideError:  # of a store that keeps coordinates alone: what is damaged or gone is not in the store
        return ""
