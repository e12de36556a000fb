"""Does a curated subset hold more of rare kinds than chance, and do probes learn more from it? On real labels.

    python benchmarks/labels.py [--data ../shared/data] [--budget 0.1] [--choose stain-texture --judge filter-bank]
                                [--selector module:function] [--geometry]

A long-tailed pool from three public sets of labelled H&E fields, drawn anew for each of five seeds:

- tumour, 80%: `oral/OSCC`, osteosarcoma `Viable`, colorectal `TUM`;
- normal, 15%: `oral/Normal`, osteosarcoma `Non-Tumor`, colorectal `NORM` and `MUS`;
- necrosis, 5%: osteosarcoma `Non-Viable-Tumor`;
- the other colorectal classes are in the pool without a label.

Osteosarcoma fields (1,024 px) are cut into sixteen patches of 256 px. Byte-identical oral fields (12 pairs lie across the two
classes) are left out. A slide is an osteosarcoma block (`Case-3-A15`), a colorectal patch, or 25 consecutive numbers of
an oral class and magnification, which says nothing of its cases. Recall is counted in the pool. Probes learn from selected patches
and are tested on groups that they did not see: all labelled patches of them, of the pool or not, with groups that are
cases (osteosarcoma cases, else slides), and then sources (the three sets; necrosis stands in one alone, so it cannot be
asked about).

The selector chooses with one descriptor, the other judges. `--selector` names a function
``(vectors, groups, budget, seed) -> bool (n,)``, with ``groups`` a dict of int32 codes ``site, patient, slide``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.blocks import Vectors
from wsicurate.curation.coverage import typical_distance
from wsicurate.curation.measures import label_measures, measure
from wsicurate.curation.proof import SEEDS, Measured, Proof, compare, require_other_judge

CLASSES = ("tumour", "normal", "necrosis")
SHARES = (0.80, 0.15, 0.05)
OF_NAME = {
    "OSCC": "tumour",
    "Viable": "tumour",
    "TUM": "tumour",
    "Normal": "normal",
    "Non-Tumor": "normal",
    "NORM": "normal",
    "MUS": "normal",
    "Non-Viable-Tumor": "necrosis",
}
LOT = 25

Groups = dict[str, NDArray[np.int32]]
Selector = Callable[[Vectors, Groups, int, int], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Field:
    """A labelled patch, and where it is from."""

    pixels: NDArray[np.uint8]
    label: str
    source: str
    case: str
    slide: str


@dataclass(frozen=True, kw_only=True)
class Fields:
    """All of them, as arrays; codes are of the sorted names."""

    vectors: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int32]
    groups: Groups


# --- the data -----------------------------------------------------------------------------------------------------


def read_fields(patches: Path) -> list[Field]:
    import cv2

    paths = sorted(patches.glob("**/*.jpg"))
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    often = Counter(digests.values())
    fields = []
    for path in paths:
        if often[digests[path]] > 1:
            continue
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        source = path.relative_to(patches).parts[0]
        if source == "oral":
            name = path.parent.name
            magnification, number = re.findall(r"(\d+x)_(\d+)", path.stem)[0]
            slide = f"oral {name} {magnification} {int(number) // LOT}"
            case = slide
        else:
            name, rest = path.stem.split("___")
            if source == "colorectal":
                case = slide = f"colorectal {rest}"
            else:
                case, block = re.match(r"((?:Case-)?P?\d+(?:-P5)?)-([A-Z]\d+)", rest).groups()  # type: ignore[union-attr]
                slide = f"{case}-{block}"
        label = OF_NAME.get(name, "")
        side = 256 if source == "osteosarcoma" else pixels.shape[0]
        for y in range(0, pixels.shape[0] - side + 1, side):
            for x in range(0, pixels.shape[1] - side + 1, side):
                piece = pixels[y : y + side, x : x + side]
                fields.append(Field(pixels=piece, label=label, source=source, case=case, slide=slide))
    return fields


def describe(fields: list[Field], names: tuple[str, str]) -> Fields:
    from wsicurate.embedding.filter_bank import FilterBank
    from wsicurate.embedding.stain_texture import StainTexture

    descriptors = {"stain-texture": StainTexture(), "filter-bank": FilterBank()}
    vectors = {
        name: np.concatenate([descriptors[name](np.ascontiguousarray(f.pixels[None])) for f in fields])
        for name in names
    }

    def codes(values: list[str]) -> NDArray[np.int32]:
        return np.unique(values, return_inverse=True)[1].astype(np.int32)

    return Fields(
        vectors=vectors,
        labels=np.array([CLASSES.index(f.label) if f.label else -1 for f in fields], dtype=np.int32),
        groups={
            "site": codes([f.source for f in fields]),
            "patient": codes([f.case for f in fields]),
            "slide": codes([f.slide for f in fields]),
        },
    )


def draw_pool(labels: NDArray[np.int32], seed: int) -> NDArray[np.bool_]:
    """As many of each class as the shares allow, at random, and everything without a label."""
    counts = np.bincount(labels[labels >= 0], minlength=len(CLASSES))
    whole = min(int(count / share) for count, share in zip(counts, SHARES, strict=True))
    pool = labels < 0
    rng = np.random.default_rng([seed, 0x7A11])
    for code, share in enumerate(SHARES):
        pool[rng.choice(np.flatnonzero(labels == code), round(whole * share), replace=False)] = True
    return pool


# --- who chooses --------------------------------------------------------------------------------------------------


def balanced(vectors: Vectors, groups: Groups, budget: int, seed: int) -> NDArray[np.bool_]:
    """The library's own selection, as `curate` makes it by default: hierarchical clusters, caps, turns."""
    from wsicurate.curation import hierarchy, selection

    tree = hierarchy.build_hierarchy(vectors, hierarchy.derive_counts(len(vectors)), seed=seed)
    clusters, _ = tree.assign(vectors)
    return selection.select(clusters, budget, groups=selection.Groups(**groups), seed=seed).selected


def baseline(name: str) -> Selector:
    from wsicurate.curation import baselines, selection

    sampler = {one.name: one for one in baselines.BASELINES}[name]

    def draw(vectors: Vectors, groups: Groups, budget: int, seed: int) -> NDArray[np.bool_]:
        return sampler.draw(budget, groups=selection.Groups(**groups), seed=seed).selected

    return draw


def selector_of(name: str | None) -> Selector:
    if name is None:
        return balanced
    module, function = name.split(":")
    found: Selector = getattr(importlib.import_module(module), function)
    return found


# --- the proof ----------------------------------------------------------------------------------------------------


def prove(
    fields: Fields, choose: str, judge: str, selector: Selector, budget: float, held_out: str, *, geometry: bool
) -> Proof:
    """Five pools; the selector and the baselines draw from each; the judge looks."""
    require_other_judge(choose, judge)
    n = len(fields.labels)
    pools = {seed: draw_pool(fields.labels, seed) for seed in SEEDS}
    seen = fields.vectors[judge]
    held = fields.groups["site" if held_out == "sources" else "patient"]
    clusters, deltas = {}, {}
    if geometry:
        from wsicurate.curation import kmeans

        for seed, pool in pools.items():
            centroids = kmeans.spherical_kmeans(seen[pool], 50, seed=seed).centroids
            clusters[seed] = kmeans.assign(seen, centroids).cluster
            deltas[seed] = typical_distance(seen, pool, seed=seed)

    def drawn(by: Selector) -> list[NDArray[np.bool_]]:
        selections = []
        for seed, pool in pools.items():
            rows = np.flatnonzero(pool)
            groups = {
                name: np.unique(codes[rows], return_inverse=True)[1].astype(np.int32)
                for name, codes in fields.groups.items()
            }
            picked = by(fields.vectors[choose][rows], groups, round(budget * len(rows)), seed)
            selected = np.zeros(n, dtype=bool)
            selected[rows[picked]] = True
            selections.append(selected)
        return selections

    def measure_of(selected: NDArray[np.bool_], seed: int) -> list[Measured]:
        of_pool = label_measures(seen, selected, fields.labels, np.full(n, -1), pool=pools[seed], seed=seed)
        of_all = label_measures(seen, selected, fields.labels, held, seed=seed)
        # Recall is of the pool; probes are tested on all patches of held-out groups.
        parts: list[Measured] = [Part(of_pool, probes=False), Part(of_all, probes=True)]
        if geometry:
            parts.append(
                measure(
                    seen,
                    selected,
                    judge_clusters=clusters[seed],
                    pool=pools[seed],
                    seed=seed,
                    delta=deltas[seed],
                    **fields.groups,
                )
            )
        return parts

    others = {name: drawn(baseline(name)) for name in ("random over slides", "stratified by patient", "random")}
    return compare(measure_of, drawn(selector), others)


class Part:
    """The probes of a measurement, or all the rest of it."""

    def __init__(self, whole: Measured, *, probes: bool) -> None:
        self._numbers = {name: value for name, value in whole.numbers().items() if name.startswith("label_") == probes}
        self.reasons = {
            name: reason
            for name, reason in whole.reasons.items()
            if name in self._numbers or (probes and name == "note")
        }

    def numbers(self) -> dict[str, float | None]:
        return self._numbers


def show(proof: Proof) -> None:
    rows = [[row[0], *row[1:2], *row[4:]] for row in proof.rows()]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in [*proof.summary(), *proof.notes]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--choose", default="stain-texture")
    parser.add_argument("--judge", default="filter-bank")
    parser.add_argument("--selector")
    parser.add_argument("--geometry", action="store_true", help="the diagnostics as well")
    options = parser.parse_args()
    began = time.perf_counter()
    fields = describe(read_fields(options.data / "patches"), (options.choose, options.judge))
    pool = draw_pool(fields.labels, SEEDS[0])
    counts = np.bincount(fields.labels[pool] + 1, minlength=4).tolist()
    print(
        f"{len(fields.labels)} patches described in {time.perf_counter() - began:.0f} s; a pool holds {int(pool.sum())}: "
        + ", ".join(f"{count} {name}" for name, count in zip(("without a label", *CLASSES), counts, strict=True))
    )
    for held_out in ("cases", "sources"):
        proof = prove(
            fields,
            options.choose,
            options.judge,
            selector_of(options.selector),
            options.budget,
            held_out,
            geometry=options.geometry and held_out == "cases",
        )
        print(f"\nbudget {options.budget:.0%}, {options.choose} chooses, {options.judge} judges, {held_out} held out")
        show(proof)


if __name__ == "__main__":
    main()
