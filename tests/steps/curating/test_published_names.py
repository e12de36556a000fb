"""Which slide of a store a name in a file of published clusters means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wsicurate.errors import CurationError
from wsicurate.steps.curating.published_names import SlideNames

BARCODE = "TCGA-22-1017-01Z-00-DX1"
OLD, NEW = (f"{BARCODE}.{part}-A261-42D3-B394-F3E0E2FF7DDA" for part in ("9562FE79", "0562FE79"))


def names(*files: str) -> SlideNames:
    records: Any = [SimpleNamespace(slide_id=file, name=file, source={"path": f"/data/{file}"}) for file in files]
    return SlideNames(records)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (f"luad/{OLD}.svs", OLD),
        (f"luad/{OLD}.svs", f"{OLD}.svs"),
        (f"luad/{OLD}.SVS", f"elsewhere\\{OLD.lower()}.Svs"),
        (f"luad/{OLD}.svs", BARCODE),
        (f"{BARCODE}.svs", OLD),
        ("GTEX-1117F-0126.svs", "GTEX-1117F-0126"),
        ("a.b.c.tiff", "A.B.C"),
    ],
)
def test_names_that_are_understood(file: str, name: str) -> None:
    assert names("x.svs", file).find(name) == file


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (f"{OLD}.svs", NEW),  # another scan of the same slide
        (f"{OLD}.svs", "TCGA-22-1017"),
        (f"{OLD}.svs", f"{BARCODE}0"),
        ("GTEX-1117F-0126.svs", "GTEX-1117F-012"),
        ("a.b.svs", "a"),
        ("a.svs", ""),
    ],
)
def test_names_that_are_others(file: str, name: str) -> None:
    assert names(file).find(name) is None


def test_folders_tell_two_of_a_name_apart() -> None:
    known = names("a/x.svs", "b/x.svs")
    assert known.find("B/x.svs") == "b/x.svs"
    with pytest.raises(CurationError, match=r"calls a slide 'x.svs', and the store has several of that name, a/x.svs"):
        known.find("x.svs")
