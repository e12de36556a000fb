from __future__ import annotations

import numpy as np
import pytest

from wsicurate.curation.filters.leakage import SlideNames, match_list, similar_to
from wsicurate.errors import CurationError, VectorError


def tcga(barcode: str, uuid: str = "9ECB0B8A") -> SlideNames:
    parts = barcode.split("-")
    return SlideNames(
        slide_id=f"brca%2F{barcode}.{uuid}.svs",
        name=f"{barcode}.{uuid}.svs",
        patient="-".join(parts[:3]),
        sample="-".join(parts[:4]),
        site=parts[1],
        barcode=barcode,
    )


SLIDES = [
    tcga("TCGA-A2-A1G0-01Z-00-DX1"),
    tcga("TCGA-A2-A1G0-11A-01-TS1"),
    tcga("TCGA-A2-B777-01A-02-BS2"),
    tcga("TCGA-A1-A1G0-01Z-00-DX1", uuid="00AA"),
    SlideNames(slide_id="mine/block 7.tiff", name="mine/block 7.tiff", patient="P7", site="Lyon"),
    SlideNames(slide_id="mine/5", name="section1.jpg", patient="P17"),
]


@pytest.mark.parametrize(
    ("line", "rows", "by"),
    [
        ("TCGA-A2-A1G0", [0, 1], "patient"),
        ("tcga-a2-a1g0", [0, 1], "patient"),
        ("TCGA-A2-A1G0-01Z", [0], "sample"),
        ("TCGA-A2-A1G0-01", [0], "barcode"),
        ("TCGA-A2-A1G0-11A-01", [1], "barcode"),
        ("TCGA-A2", [0, 1, 2], "barcode"),
        ("A2", [0, 1, 2], "site"),
        ("  lyon  # ours", [4], "site"),
        ("TCGA-A2-A1G0-01Z-00-DX1", [0], "barcode"),
        ("TCGA-A2-A1G0-01Z-00-DX1.9ECB0B8A.svs", [0], "slide_id"),
        ("TCGA-A2-A1G0-01Z-00-DX1.another-release.svs", [0], "barcode"),
        ("C:\\data\\TCGA-A2-B777-01A-02-BS2.9ECB0B8A.svs", [2], "slide_id"),
        ("brca/TCGA-A2-B777-01A-02-BS2.9ECB0B8A.svs", [2], "slide_id"),
        ("brca%2FTCGA-A2-B777-01A-02-BS2.9ECB0B8A.svs", [2], "slide_id"),
        ("mine/block 7.tiff", [4], "slide_id"),
        ("block 7", [4], "slide_id"),
        ("p7", [4], "patient"),
        ("section1", [5], "name"),
    ],
)
def test_a_line_names_slides(line: str, rows: list[int], by: str) -> None:
    match = match_list([line], SLIDES)
    assert np.flatnonzero(match.listed).tolist() == rows
    assert set(match.lines[0].matched_by) == {by} and not match.unmatched


@pytest.mark.parametrize(
    "line", ["TCGA", "TCGA-A2-A1G", "TCGA-A", "P", "section", "TCGA-A2-A1G0-01Z-00-DX", "svs", "mine", "TCGA-A2-A1G0-0"]
)
def test_parts_of_words_name_nothing(line: str) -> None:
    with pytest.raises(CurationError, match="none of the 1 lines"):
        match_list([line], SLIDES)


def test_lines_are_counted_and_the_first_one_is_the_reason() -> None:
    match = match_list(["\ufeff# evaluation set", "", "TCGA-A2-A1G0", "TCGA-ZZ-0000", "A2", "  "], SLIDES)
    assert [(line.number, line.text, line.slides) for line in match.lines] == [
        (3, "TCGA-A2-A1G0", (0, 1)),
        (4, "TCGA-ZZ-0000", ()),
        (5, "A2", (0, 1, 2)),
    ]
    assert [line.number for line in match.unmatched] == [4]
    assert match.line_of.tolist() == [0, 0, 2, -1, -1, -1]


def test_a_path_of_this_store_is_not_taken_for_its_namesake() -> None:
    twins = [SlideNames(slide_id=f"{folder}/s.svs", name="s.svs") for folder in ("a", "b")]
    assert match_list(["a/s.svs"], twins).listed.tolist() == [True, False]
    assert match_list(["elsewhere/s.svs"], twins).listed.tolist() == [True, True]


def test_bad_lists() -> None:
    with pytest.raises(CurationError, match="all lines are empty or comments"):
        match_list(["# only", " "], SLIDES)
    with pytest.raises(CurationError, match=r"none of the 4 lines .*'x', 'y', 'z', \.\.\."):
        match_list(["x", "y", "z", "w"], SLIDES)


def test_similarity_alone(rng: np.random.Generator) -> None:
    evaluation, values = rng.normal(size=(30, 8)), rng.normal(size=(100, 8))
    values[10], values[20] = 3 * evaluation[4], evaluation[7] + 0.01
    found = similar_to(evaluation, values, 0.9)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (values, evaluation)]
    similarity = unit[0] @ unit[1].T
    np.testing.assert_allclose(found.similarity, similarity.max(axis=1), atol=1e-6)
    np.testing.assert_array_equal(found.nearest, similarity.argmax(axis=1))
    np.testing.assert_array_equal(found.similar, similarity.max(axis=1) > 0.9)
    assert found.similar[[10, 20]].all() and found.nearest[10] == 4
    with pytest.raises(CurationError, match="evaluation set is empty"):
        similar_to(evaluation[:0], values, 0.9)
    with pytest.raises(CurationError, match="threshold is 45"):
        similar_to(evaluation, values, 45)
    with pytest.raises(VectorError, match="one encoder"):
        similar_to(evaluation[:, :4], values, 0.9)
