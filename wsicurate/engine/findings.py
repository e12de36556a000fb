"""What the survey of a slide finds, kept in the slide's work folder: too large to travel between processes, and dear.

A temporary file, never read by another version. Its name holds the slide's fingerprint and the reader, as those of
segments do: a run that was killed goes on from it, one with other settings does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsicurate._version import __version__
from wsicurate.engine.cache import Stages
from wsicurate.errors import CorruptStoreError, LeaseLostError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.commit import SlideContent
from wsicurate.store.layout import work_path

_STAGE = "survey"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Where the patches of a slide lie, and its pictures.

    Attributes:
        cells: int32, (p, 2): column and row of each planned patch, by which segments are cut.
        xy, tissue, unsampled_xy: as in `SlideContent`.
        overview, overview_downsample, mask, mask_downsample: as in `SlideContent`.
        facts: what else the survey found, as JSON.
    """

    cells: NDArray[np.int32]
    xy: NDArray[np.int32]
    tissue: NDArray[np.float32]
    unsampled_xy: NDArray[np.int32]
    overview: NDArray[np.uint8]
    overview_downsample: tuple[float, float]
    mask: NDArray[np.bool_]
    mask_downsample: tuple[float, float]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def content(self, segments: Sequence[str], score_names: Sequence[str]) -> SlideContent:
        """What is committed, with the keys of the segments and the names of their scores."""
        return SlideContent(
            xy=self.xy,
            tissue=self.tissue,
            score_names=score_names,
            unsampled_xy=self.unsampled_xy,
            segments=segments,
            overview=self.overview,
            overview_downsample=self.overview_downsample,
            mask=self.mask,
            mask_downsample=self.mask_downsample,
        )


@dataclass(frozen=True)
class FindingsPlace:
    """Where the findings of a slide lie.

    Attributes:
        store: the store, fenced by the lease on the slide.
        key: of the slide's group.
        fingerprint: `made_by` of the slide's record.
    """

    store: ByteStore
    key: str
    fingerprint: str

    @property
    def path(self) -> str:
        """Key of the file."""
        return self._stages.path(_STAGE, self._inputs)

    def write(self, findings: Findings) -> None:
        """Keep the findings.

        Raises:
            LeaseLostError: if another run took the slide over.
            StoreWriteError: if the store cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {
            "cells": findings.cells,
            "xy": findings.xy,
            "tissue": findings.tissue,
            "unsampled_xy": findings.unsampled_xy,
            "overview": findings.overview,
            "mask_bits": np.packbits(findings.mask),
        }
        facts = {
            "facts": dict(findings.facts),
            "overview_downsample": findings.overview_downsample,
            "mask_downsample": findings.mask_downsample,
            "mask_shape": findings.mask.shape,
        }
        self._stages.put(_STAGE, self._inputs, arrays, facts, outlasts_power=False)

    def read(self) -> Findings | None:
        """The findings; None if there are none, or they are damaged."""
        found = self._stages.get(_STAGE, self._inputs)
        if found is None:
            return None
        arrays, facts = found
        height, width = facts["mask_shape"]
        mask = np.unpackbits(arrays["mask_bits"], count=height * width).reshape(height, width).astype(bool)
        return Findings(
            cells=arrays["cells"],
            xy=arrays["xy"],
            tissue=arrays["tissue"],
            unsampled_xy=arrays["unsampled_xy"],
            overview=arrays["overview"],
            overview_downsample=_pair(facts["overview_downsample"]),
            mask=mask,
            mask_downsample=_pair(facts["mask_downsample"]),
            facts=facts["facts"],
        )

    def read_own(self) -> Findings:
        """The findings of this run's survey.

        Raises:
            LeaseLostError: if they are gone: another run took the slide over.
            CorruptStoreError: if they are damaged.
        """
        found = self.read()
        if found is None:
            raise self._lost()
        return found

    def read_places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """``cells`` and ``xy`` of this run's survey alone; raises as `read_own`."""
        found = self._stages.get(_STAGE, self._inputs, only=("cells", "xy"))
        if found is None:
            raise self._lost()
        return found[0]["cells"], found[0]["xy"]

    def _lost(self) -> LeaseLostError | CorruptStoreError:
        try:
            self.store.size(self.path)
        except KeyError:
            return LeaseLostError(f"the survey {self.path} is gone: another run works on this slide")
        return CorruptStoreError(f"the survey {self.path} is damaged")

    @property
    def _stages(self) -> Stages:
        return Stages(self.store, work_path(self.key))

    @property
    def _inputs(self) -> Mapping[str, str]:
        return {"made_by": self.fingerprint, "version": __version__}


def _pair(values: Sequence[float]) -> tuple[float, float]:
    x, y = values
    return float(x), float(y)
