"""Cohorts of synthetic slides: patients, sites and file names as in TCGA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.ground_truth import GroundTruth
from wsicurate.synthetic.slide import write_slide


@dataclass(frozen=True)
class CohortSlide:
    """A slide of a synthetic cohort: its file, its ground truth, and what its barcode says."""

    path: Path
    truth: GroundTruth
    patient: str
    site: str


def cohort_names(
    slides: int, patients: int, sites: int, seed: int, *, frozen: Sequence[int] = ()
) -> Iterator[tuple[str, str, int]]:
    """TCGA-like names of a cohort: (name without ending, patient, number of the site).

    Slides go round the patients, patients round the sites. The slides numbered in ``frozen`` are named as frozen
    sections.
    """
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    for number in range(slides):
        person = number % patients
        site = person % sites
        code = hashlib.sha256(f"{seed}/{person}".encode()).hexdigest().upper()
        patient = f"TCGA-Z{letters[site % len(letters)]}-{code[:4]}"
        order = number // patients + 1
        part = f"01A-01-TS{order}" if number in frozen else f"01Z-00-DX{order}"
        digits = hashlib.sha256(f"{seed}/{number}/uuid".encode()).hexdigest().upper()
        uuid = "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]])
        yield f"{patient}-{part}.{uuid}", patient, site


def write_cohort(
    folder: str | Path,
    slides: Sequence[SyntheticSlide],
    *,
    patients: int = 3,
    sites: int = 2,
    seed: int = 0,
    frozen: Sequence[int] = (),
) -> list[CohortSlide]:
    """Write a cohort of slides with TCGA-like names over several patients and sites.

    Args:
        folder: where; made if it is not there.
        slides: what each is like; its ``site_seed`` is set to its site.
        patients: number of patients.
        sites: number of sites.
        seed: of the names.
        frozen: numbers of the slides that are named as frozen sections.

    Returns:
        The slides written, in order.
    """
    folder = Path(folder)
    written = []
    names = cohort_names(len(slides), patients, sites, seed, frozen=frozen)
    for slide, (name, patient, site) in zip(slides, names, strict=True):
        path = folder / f"{name}.svs"
        truth = write_slide(path, replace(slide, site_seed=1000 * seed + site))
        written.append(CohortSlide(path, truth, patient, patient[5:7]))
    return written
