"""Does a curated subset hold more of rare kinds than chance, and do probes learn more from it? On real labels.

    python benchmarks/labels.py [--data ../shared/data] [--budget 0.1] [--choose stain-texture --evaluation-encoder
    filter-bank]
                                [--selector module:function] [--thin slides] [--geometry]

Long-tailed pools from three public sets of labelled H&E fields. Three classes make up 80, 15 and 5% of a pool; which is
the common and which the rare one takes all six orders, five draws each, so that none is picked for what it shows:

- tumour: `oral/OSCC`, osteosarcoma `Viable`, colorectal `TUM`;
- normal: `oral/Normal`, osteosarcoma `Non-Tumor`, colorectal `NORM` and `MUS`;
- necrosis: osteosarcoma `Non-Viable-Tumor`;
- the other colorectal classes are in the pool without a label.

Osteosarcoma fields (1,024 px) are cut into sixteen patches of 256 px. Byte-identical oral fields (12 pairs lie across
the two classes) are left out. A slide is an osteosarcoma block (`Case-3-A15`), a colorectal class, or 25 consecutive
numbers of an oral class and magnification: nobody says which slides the last two sets come from.

Nearly all these slides are of one class. So a class is made rare by leaving out slides of it whole (`--thin slides`).
With `--thin patches`, patches are left out of all of them: the slides of a rare class are small then, "the same number
from every slide" takes nearly all they have, and as good as knows the labels.

Recall is counted in the pool. Probes learn from selected patches and are tested on groups that they did not see: all
labelled patches of these, of the pool or not. Groups are cases (osteosarcoma cases, else slides), then sources (the
three sets; necrosis stands in one alone, so it cannot be asked about there).

Probes that do not discriminate may do so because no subset could: so a draw that knows the labels is measured as well.

The selector chooses with one descriptor, the other evaluates. `--selector` names a function
``(vectors, groups, budget, seed) -> bool (n,)``, with ``groups`` a dict of int32 codes ``site, patient, slide``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsicurate.curation.evaluation.comparison import Evaluation, Measured, MeasureOf, compare
from wsicurate.curation.evaluation.coverage import typical_distance
from wsicurate.curation.evaluation.label_measures import label_measures
from wsicurate.curation.evaluation.measures import measure
from wsicurate.curation.neighbours.blocks import Vectors

CLASSES = ("tumour", "normal", "necrosis")
SHARES = (0.80, 0.15, 0.05)
#: Which class has which share: one order after the other, from draw to draw.
ORDERS = tuple(itertools.permutations(range(len(CLASSES))))
DRAWS = range(len(ORDERS) * 5)
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
    thin: str


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
                case = slide = f"colorectal {name}"
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


def describe(fields: list[Field], names: tuple[str, str], thin: str) -> Fields:
    from wsicurate.embedding.descriptors.filter_bank import FilterBank
    from wsicurate.embedding.descriptors.stain_texture import StainTexture

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
        thin=thin,
    )


def draw_pool(fields: Fields, draw: int) -> NDArray[np.bool_]:
    """As many of each class as its share allows, and everything without a label."""
    order = ORDERS[draw % len(ORDERS)]
    labels, slides = fields.labels, fields.groups["slide"]
    share = {code: SHARES[place] for place, code in enumerate(order)}
    whole = min(int((labels == code).sum() / share[code]) for code in order)
    pool = labels < 0
    rng = np.random.default_rng([draw, 0x7A11])
    for code in range(len(CLASSES)):
        mixed = rng.permutation(np.flatnonzero(labels == code))
        if fields.thin == "slides":
            place = rng.permutation(int(slides.max()) + 1)
            mixed = mixed[np.argsort(place[slides[mixed]], kind="stable")]
        pool[mixed[: round(whole * share[code])]] = True
    return pool


# --- who chooses --------------------------------------------------------------------------------------------------


def balanced(vectors: Vectors, groups: Groups, budget: int, seed: int) -> NDArray[np.bool_]:
    """The library's own selection, as `curate` makes it by default: hierarchical clusters, caps, turns."""
    from wsicurate.curation.clustering import hierarchy
    from wsicurate.curation.selection import draw as selection

    tree = hierarchy.build_hierarchy(vectors, hierarchy.derive_counts(len(vectors)), seed=seed)
    clusters, _ = tree.assign(vectors)
    return selection.select(clusters, budget, groups=selection.Groups(**groups), seed=seed).selected


def baseline(name: str) -> Selector:
    from wsicurate.curation.selection import baselines
    from wsicurate.curation.selection import draw as selection

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


# --- the evaluation
# ----------------------------------------------------------------------------------------------------

Selections = dict[str, list[NDArray[np.bool_]]]
BASELINES = ("random over slides", "stratified by patient", "random")


def draw_all(fields: Fields, choose: str, selector: Selector, budget: float) -> Selections:
    """From every pool: what the selector draws (``subset``), and the baselines."""
    who = {"subset": selector} | {name: baseline(name) for name in BASELINES}
    selections: Selections = {name: [] for name in who}
    for draw in DRAWS:
        rows = np.flatnonzero(draw_pool(fields, draw))
        groups = {
            name: np.unique(codes[rows], return_inverse=True)[1].astype(np.int32)
            for name, codes in fields.groups.items()
        }
        for name, by in who.items():
            selected = np.zeros(len(fields.labels), dtype=bool)
            selected[rows[by(fields.vectors[choose][rows], groups, round(budget * len(rows)), draw)]] = True
            selections[name].append(selected)
    return selections


def measurer(fields: Fields, evaluation_encoder: str, held_out: str, *, geometry: bool) -> MeasureOf:
    """What the evaluation encoder measures of a selection of a draw."""
    seen = fields.vectors[evaluation_encoder]
    held = fields.groups["site" if held_out == "sources" else "patient"]
    nobody = np.full(len(held), -1)

    @lru_cache(maxsize=1)
    def of_pool(draw: int) -> tuple[NDArray[np.bool_], NDArray[np.int32], float]:
        from wsicurate.curation.clustering import kmeans

        pool = draw_pool(fields, draw)
        centroids = kmeans.spherical_kmeans(seen[pool], 50, seed=draw).centroids
        return pool, kmeans.assign(seen, centroids).cluster, typical_distance(seen, pool, seed=draw)

    def measure_of(selected: NDArray[np.bool_], draw: int) -> list[Measured]:
        pool = draw_pool(fields, draw)
        recall = label_measures(seen, selected, fields.labels, nobody, pool=pool, seed=draw)
        probes = label_measures(seen, selected, fields.labels, held, seed=draw)
        parts: list[Measured] = [Part(recall, probes=False), Part(probes, probes=True)]
        if geometry:
            pool, clusters, delta = of_pool(draw)
            parts.append(
                measure(
                    seen, selected, evaluation_clusters=clusters, pool=pool, seed=draw, delta=delta, **fields.groups
                )
            )
        return parts

    return measure_of


class Part:
    """The probes of a measurement, or all the rest of it."""

    def __init__(self, whole: Measured, *, probes: bool) -> None:
        self._numbers = {name: value for name, value in whole.numbers().items() if name.startswith("label_") == probes}
        reasons = whole.reasons.items()
        self.reasons = {
            name: reason for name, reason in reasons if name in self._numbers or (probes and name == "note")
        }

    def numbers(self) -> dict[str, float | None]:
        """As those of the whole."""
        return self._numbers


def show(evaluation: Evaluation) -> None:
    rows = [[row[0], row[1], *row[4:]] for row in evaluation.rows()]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in [*evaluation.summary(), *evaluation.notes]:
        print(line)


def show_most(fields: Fields, measure_of: MeasureOf, selections: Selections, budget: float) -> None:
    """What a draw reaches that knows the labels and takes the same number of each class: the most to hope for."""
    from wsicurate.curation.selection import draw as selection

    knows = []
    for draw in DRAWS:
        pool = draw_pool(fields, draw)
        drawn = selection.select(
            fields.labels[:, None],
            round(budget * np.count_nonzero(pool)),
            groups=selection.Groups(**fields.groups),
            eligible=pool & (fields.labels >= 0),
            seed=draw,
            share_cap=None,
        )
        knows.append(drawn.selected)
    print(
        "the same of a draw that knows the labels and takes as many of each class (nobody has it; the most to expect)"
    )
    over_slides = {BASELINES[0]: selections[BASELINES[0]]}
    evaluation = compare(measure_of, knows, over_slides, seeds=DRAWS)
    wanted = ("class_balanced_recall", "label_knn", "label_linear")
    for one in evaluation.comparisons:
        if one.measure in wanted and one.difference is not None and one.low is not None and one.high is not None:
            print(
                f"  {one.title}: {one.subset_mean:.3f}, {one.baseline} {one.baseline_mean:.3f}, difference "
                f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
            )


def show_orders(fields: Fields, selections: Selections) -> None:
    """Class-balanced recall and that of the rarest class, order by order."""
    print("\nclass-balanced recall / recall of the rarest class, means of five draws")
    print(f"{'80%, 15%, 5%':30s}" + "".join(f"{name:>24s}" for name in selections))
    for place, order in enumerate(ORDERS):
        cells = []
        for chosen in selections.values():
            recalls = []
            for draw in DRAWS[place :: len(ORDERS)]:
                pool = draw_pool(fields, draw)
                recalls.append([chosen[draw][pool & (fields.labels == code)].mean() for code in order])
            cells.append(f"{np.mean(recalls):.3f} / {np.mean(recalls, axis=0)[-1]:.3f}")
        print(f"{', '.join(CLASSES[code] for code in order):30s}" + "".join(f"{cell:>24s}" for cell in cells))


def show_why(fields: Fields, choose: str, evaluation_encoder: str) -> None:
    """What the probes reach with every patch to learn from, and how tight each class lies for the selection encoder.

    A rare class that is tight is few clusters: balance over clusters cannot know that it is wanted.
    """
    everything = np.ones(len(fields.labels), dtype=bool)
    for held_out, by in (("cases", "patient"), ("sources", "site")):
        most = label_measures(fields.vectors[evaluation_encoder], everything, fields.labels, fields.groups[by])
        print(
            f"\n{held_out} held out, all {len(everything)} patches to learn from: k-NN {most.label_knn:.3f}, "
            f"linear {most.label_linear:.3f}, guessing {most.label_chance:.3f}"
        )
    unit = fields.vectors[choose] / np.linalg.norm(fields.vectors[choose], axis=1, keepdims=True)
    print(f"\nmean cosine within a class and source ({choose}):")
    sources = ("colorectal", "oral", "osteosarcoma")
    for source in range(len(sources)):
        for code, name in enumerate(CLASSES):
            rows = unit[(fields.groups["site"] == source) & (fields.labels == code)]
            if len(rows) > 1:
                mean = (float((rows.sum(axis=0) ** 2).sum()) - len(rows)) / (len(rows) * (len(rows) - 1))
                print(f"  {sources[source]} {name}: {mean:.2f} ({len(rows)} patches)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--budget", type=float, default=0.1)
    parser.add_argument("--choose", default="stain-texture")
    parser.add_argument("--evaluation-encoder", default="filter-bank")
    parser.add_argument("--selector")
    parser.add_argument("--thin", choices=("slides", "patches"), default="slides")
    parser.add_argument("--geometry", action="store_true", help="the diagnostics as well")
    options = parser.parse_args()
    if options.choose == options.evaluation_encoder:
        parser.error(f"--evaluation-encoder is {options.evaluation_encoder}, the selection encoder; name another")
    began = time.perf_counter()
    fields = describe(read_fields(options.data / "patches"), (options.choose, options.evaluation_encoder), options.thin)
    print(f"{len(fields.labels)} patches described in {time.perf_counter() - began:.0f} s")
    selections = draw_all(fields, options.choose, selector_of(options.selector), options.budget)
    show_orders(fields, selections)
    for held_out in ("cases", "sources"):
        measure_of = measurer(
            fields, options.evaluation_encoder, held_out, geometry=options.geometry and held_out == "cases"
        )
        subset, others = selections["subset"], {k: v for k, v in selections.items() if k != "subset"}
        print(
            f"\nbudget {options.budget:.0%}, {options.choose} selects, {options.evaluation_encoder} evaluates, "
            f"{held_out} held out"
        )
        show(compare(measure_of, subset, others, seeds=DRAWS))
        show_most(fields, measure_of, selections, options.budget)
    show_why(fields, options.choose, options.evaluation_encoder)


if __name__ == "__main__":
    main()
