"""The manifest of a curation as a table: what was decided about each patch, beside what the store says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.ledger import Ledger
from wsicurate.decisions import DECISIONS
from wsicurate.steps.curating.inputs import Inputs

if TYPE_CHECKING:
    import pyarrow as pa


def manifest_table(inputs: Inputs, ledger: Ledger, clusters: NDArray[np.int32]) -> pa.Table:
    """The manifest, one row per patch.

    Args:
        inputs: of the curation.
        ledger: with a decision about every patch.
        clusters: int32, (n, L), finest first.

    Raises:
        ValueError: if something is undecided.
    """
    import pyarrow as pa

    pool = inputs.pool
    table = pool.table
    for level in range(clusters.shape[1]):
        table = table.append_column(f"cluster_{level + 1}", pa.array(clusters[:, level]))
    copy_of = ledger.copy_of
    is_copy = copy_of >= 0
    slide = pool.slide[np.where(is_copy, copy_of, 0)]
    row = np.where(is_copy, copy_of, 0) - pool.starts[slide]
    slides = list(inputs.store.slides.values())
    slide_ids = pa.array([each.slide_id for each in slides], pa.string())
    mpps = np.array([each.mpp for each in slides], dtype=np.float64)
    table = table.append_column("copy_of_mpp", pa.array(mpps[slide], mask=~is_copy))
    table = table.append_column(
        "copy_of_slide", pa.DictionaryArray.from_arrays(pa.array(slide, mask=~is_copy), slide_ids)
    )
    table = table.append_column("copy_of_row", pa.array(row.astype(np.int32), mask=~is_copy))
    codes = ledger.decisions()
    words = pa.array(DECISIONS, pa.string())
    table = table.append_column("decision", pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), words))
    reasons, sentences = ledger.reasons()
    table = table.append_column(
        "reason", pa.DictionaryArray.from_arrays(pa.array(reasons), pa.array(sentences, pa.string()))
    )
    return table.append_column("selected", pa.array(ledger.is_("selected")))
