"""TCGA barcodes: what a file name of The Cancer Genome Atlas says.

``TCGA-A2-A1G0-01Z-00-DX1.9ECB0B8A-EF4E-45A9-82AC-EF36375DEF65.svs`` reads: project TCGA, tissue source site A2,
patient TCGA-A2-A1G0, sample 01Z (type 01, a primary tumour; vial Z), portion 00, slide DX1. Kinds: ``DX`` is a
diagnostic slide (FFPE); ``TS``, ``MS`` and ``BS`` are the top, middle and bottom frozen sections of a portion. Which
study (BRCA, HNSC, ...) a patient belongs to does not stand in the barcode.

Source: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Kinds of frozen sections.
FROZEN_KINDS = frozenset({"TS", "MS", "BS"})

_BARCODE = re.compile(
    r"""
    (?<![0-9A-Z])TCGA
    -(?P<site>[0-9A-Z]{2})
    -(?P<participant>[0-9A-Z]{4})
    (?:-(?P<sample_type>[0-9]{2})(?P<vial>[A-Z])
        (?:-(?P<portion>[0-9]{2})[A-Z]?
            (?:-(?P<kind>DX|TS|MS|BS)(?P<order>[0-9A-Z]{1,2}))?
        )?
    )?
    (?![0-9A-Z])
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Barcode:
    """The fields of a TCGA barcode; those that a shorter barcode lacks are None.

    Attributes:
        project: always ``TCGA``.
        site: tissue source site (TSS) code, two characters.
        patient: barcode down to the participant, ``TCGA-A2-A1G0``.
        sample: barcode down to sample type and vial, ``TCGA-A2-A1G0-01Z``.
        sample_type: two digits; 01-09 are tumours, 10-19 normals.
        portion: two digits.
        kind: ``DX``, ``TS``, ``MS`` or ``BS``.
        slide: kind and order, ``DX1``.
    """

    project: str
    site: str
    patient: str
    sample: str | None
    sample_type: str | None
    portion: str | None
    kind: str | None
    slide: str | None


def parse_barcode(name: str) -> Barcode | None:
    """Find the TCGA barcode in a file name.

    Args:
        name: a file name or any text that holds a barcode, upper or lower case.

    Returns:
        Its fields in upper case, or None if ``name`` holds no well-formed barcode: what only looks like one
        (``ADI-TCGA-ALPPQLSF_106``) is refused, not half understood.
    """
    match = _BARCODE.search(name)
    if match is None:
        return None
    field = {key: None if value is None else value.upper() for key, value in match.groupdict().items()}
    patient = f"TCGA-{field['site']}-{field['participant']}"
    sample_type = field["sample_type"]
    return Barcode(
        project="TCGA",
        site=str(field["site"]),
        patient=patient,
        sample=None if sample_type is None else f"{patient}-{sample_type}{field['vial']}",
        sample_type=sample_type,
        portion=field["portion"],
        kind=field["kind"],
        slide=None if field["kind"] is None else f"{field['kind']}{field['order']}",
    )
