from __future__ import annotations

import csv
from pathlib import Path

import pytest

from wsicurate.slides.tcga import parse_barcode


def test_a_diagnostic_slide() -> None:
    barcode = parse_barcode("TCGA-A2-A1G0-01Z-00-DX1.9ECB0B8A-EF4E-45A9-82AC-EF36375DEF65.svs")
    assert barcode is not None
    assert (barcode.project, barcode.site, barcode.patient) == ("TCGA", "A2", "TCGA-A2-A1G0")
    assert (barcode.sample, barcode.sample_type, barcode.portion) == ("TCGA-A2-A1G0-01Z", "01", "00")
    assert (barcode.kind, barcode.slide) == ("DX", "DX1")


@pytest.mark.parametrize(
    ("name", "kind", "slide"),
    [
        ("TCGA-CR-7395-01A-01-TS1.svs", "TS", "TS1"),
        ("TCGA-02-0001-01C-01-BS1.f94b9687-a5b8.svs", "BS", "BS1"),
        ("TCGA-AB-1234-11A-02-MSB.svs", "MS", "MSB"),
        ("tcga-ab-1234-01z-00-dxa", "DX", "DXA"),
        ("renamed_TCGA-AB-1234-01Z-00-DX12 (2).svs", "DX", "DX12"),
    ],
)
def test_kinds(name: str, kind: str, slide: str) -> None:
    barcode = parse_barcode(name)
    assert barcode is not None
    assert (barcode.kind, barcode.slide) == (kind, slide)


def test_shorter_barcodes_give_what_they_hold() -> None:
    patient = parse_barcode("TCGA-A2-A1G0")
    assert patient is not None
    assert (patient.patient, patient.sample, patient.kind) == ("TCGA-A2-A1G0", None, None)
    sample = parse_barcode("TCGA-A2-A1G0-01A_patch_7.png")
    assert sample is not None
    assert (sample.sample, sample.portion, sample.slide) == ("TCGA-A2-A1G0-01A", None, None)


@pytest.mark.parametrize(
    "name",
    [
        "ADI___ADI-TCGA-ALPPQLSF_106.jpg",
        "TCGA-ALPPQLSF",
        "TCGA-A2-A1G",
        "TCGA-A2-A1G01",
        "TCGA_A2_A1G0",
        "XTCGA-A2-A1G0",
        "GTEX-1117F-0126",
        "",
    ],
)
def test_what_only_looks_like_a_barcode_is_refused(name: str) -> None:
    assert parse_barcode(name) is None


def test_every_slide_of_a_real_list(shared: Path) -> None:
    with (shared / "tables" / "tiles_per_slide.csv").open() as file:
        names = [row["slide_id"] for row in csv.DictReader(file)]
    parsed = {name: parse_barcode(name) for name in names}
    assert len(names) == 37_096
    assert all((parsed[name] is not None) == name.startswith("TCGA") for name in names)
    assert all(barcode.kind == "DX" for barcode in parsed.values() if barcode is not None)
    assert all(name.startswith(barcode.patient) for name, barcode in parsed.items() if barcode is not None)


def test_the_colorectal_patches_are_not_tcga_slides(shared: Path) -> None:
    names = [path.name for path in (shared / "patches" / "colorectal").iterdir()]
    assert len(names) == 70
    assert all(parse_barcode(name) is None for name in names)
