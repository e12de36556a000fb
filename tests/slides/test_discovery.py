from __future__ import annotations

from pathlib import Path

import pytest

from wsicurate.errors import ConfigError, NothingToDoError, SlideTableError
from wsicurate.slides.discovery import find_slides
from wsicurate.slides.table import SlideRow


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def row(slide: str, **cells: str) -> SlideRow:
    return SlideRow(slide=slide, line=2, **cells)


def test_a_folder_is_searched_to_any_depth_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path / "cohort", "b.svs", "x/a.ndpi", "x/y/c.TIFF", "notes.txt", ".hidden/d.svs", "._e.svs", "photo.jpg")
    slides, unmatched = find_slides([tmp_path / "cohort"])
    assert [slide.name for slide in slides] == ["cohort/b.svs", "cohort/x/a.ndpi", "cohort/x/y/c.TIFF"]
    assert [slide.slide_id for slide in slides] == ["cohort%2Fb.svs", "cohort%2Fx%2Fa.ndpi", "cohort%2Fx%2Fy%2Fc.TIFF"]
    assert unmatched == []


def test_same_named_slides_in_two_folders_of_one_input_are_two(tmp_path: Path) -> None:
    touch(tmp_path / "cohort", "a/1.svs", "b/1.svs")
    slides, _ = find_slides([tmp_path / "cohort"])
    assert len({slide.slide_id for slide in slides}) == 2


def test_same_named_inputs_collide_and_the_table_mends_it(tmp_path: Path) -> None:
    touch(tmp_path, "x/slides/1.svs", "y/slides/1.svs")
    inputs = [tmp_path / "x" / "slides", tmp_path / "y" / "slides"]
    with pytest.raises(ConfigError, match=r"would both be called 'slides%2F1.svs'.*another slide_id in --slide-table"):
        find_slides(inputs)
    with pytest.raises(SlideTableError, match=r"'1.svs' may be any of"):
        find_slides(inputs, [row("1.svs", slide_id="first")])
    touch(tmp_path, "y/slides/2.svs")
    slides, _ = find_slides([inputs[0], inputs[1] / "2.svs"], [row("2.svs", slide_id="a slide/2")])
    assert [slide.slide_id for slide in slides] == ["a%20slide%2F2", "slides%2F1.svs"]


def test_an_overlapping_input_counts_once(tmp_path: Path) -> None:
    touch(tmp_path / "cohort", "x/1.svs")
    (tmp_path / "cohort" / "link.svs").symlink_to(tmp_path / "cohort" / "x" / "1.svs")
    (tmp_path / "cohort" / "loop").symlink_to(tmp_path / "cohort")
    slides, _ = find_slides([tmp_path / "cohort", tmp_path / "cohort" / "x"])
    assert len(slides) == 1


def test_names_that_break_shells_and_urls(tmp_path: Path) -> None:
    names = [
        "a b.svs",
        "it's.svs",
        'quo"te.svs',
        "50%.svs",
        "%2F.svs",
        "..svs.svs",
        "组织切片.svs",
        "ünï/ø.svs",
        "new\nline.svs",
    ]
    touch(tmp_path / "odd names", *names)
    slides, _ = find_slides([tmp_path / "odd names"])
    assert sorted(slide.name for slide in slides) == sorted(f"odd names/{name}" for name in names)
    assert len({slide.slide_id for slide in slides}) == len(names)


def test_a_single_file_takes_its_folder_s_name(tmp_path: Path) -> None:
    touch(tmp_path / "cohort", "1.svs")
    (slide,), _ = find_slides([tmp_path / "cohort" / "1.svs"])
    assert slide.name == "cohort/1.svs"


def test_plain_images_are_slides_only_where_the_table_names_them(tmp_path: Path) -> None:
    touch(tmp_path / "s", "a.jpg", "b.jpg", "c.svs")
    slides, _ = find_slides([tmp_path / "s"], [row("a")])
    assert [(slide.name, slide.is_image) for slide in slides] == [("s/a.jpg", True), ("s/c.svs", False)]
    with pytest.raises(NothingToDoError, match=r"1 plain images need a --slide-table"):
        find_slides([tmp_path / "s" / "b.jpg"])


@pytest.mark.parametrize("written", ["x/1.svs", "cohort%2Fx%2F1.svs", "1.svs", "1", "x\\1.svs"])
def test_rows_are_matched_by_path_id_name_and_stem(tmp_path: Path, written: str) -> None:
    touch(tmp_path / "cohort", "x/1.svs", "2.svs")
    slides, unmatched = find_slides([tmp_path / "cohort"], [row(written, patient="p"), row("2.svs")])
    assert [slide.patient for slide in slides] == [None, "p"]
    assert unmatched == []


def test_rows_that_match_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "cohort", "1.svs", "2.svs")
    _, unmatched = find_slides([tmp_path / "cohort"], [row("1.svs"), row("9.svs")])
    assert [left.slide for left in unmatched] == ["9.svs"]
    with pytest.raises(
        SlideTableError, match=r"none of the 1 rows of t.csv matches a slide: it says '9.svs', .*'cohort/1"
    ):
        find_slides([tmp_path / "cohort"], [row("9.svs")], table=Path("t.csv"))
    with pytest.raises(SlideTableError, match=r"'1.svs' and '1' are both cohort/1.svs; keep one"):
        find_slides([tmp_path / "cohort"], [row("1.svs"), row("1")])


def test_table_before_barcode(tmp_path: Path) -> None:
    touch(tmp_path / "c", "TCGA-A2-A1G0-01Z-00-DX1.svs", "TCGA-A2-A1G1-01Z-00-DX1.svs")
    slides, _ = find_slides([tmp_path / "c"], [row("TCGA-A2-A1G1-01Z-00-DX1.svs", patient="p", site="q", kind="TS")])
    assert [(slide.patient, slide.site, slide.kind) for slide in slides] == [
        ("TCGA-A2-A1G0", "A2", "DX"),
        ("p", "q", "TS"),
    ]


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match=rf"no slide in {tmp_path}; looked for .bif .dcm"):
        find_slides([tmp_path])
    with pytest.raises(ConfigError, match=r"nowhere does not exist"):
        find_slides([tmp_path / "nowhere"])


def test_the_files_of_a_dicom_series_are_one_slide(shared: Path) -> None:
    slides, _ = find_slides([shared / "slides"])
    (dicom,) = [slide for slide in slides if slide.files[0].suffix == ".dcm"]
    assert dicom.name == "slides/CMU-1-Small-Region.dicom"
    assert len(dicom.files) == 12
    assert len(slides) == 6


def test_two_series_in_one_folder_are_two_slides(shared: Path, tmp_path: Path) -> None:
    import pydicom

    for uid in ("1.2.3", "1.2.4"):
        for number in (9, 10):
            header = pydicom.dcmread(shared / "slides" / "CMU-1-Small-Region.dicom" / f"level-{number}-frames-0-1.dcm")
            header.SeriesInstanceUID = uid
            header.save_as(tmp_path / f"{uid}-{number}.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    slides, _ = find_slides([tmp_path])
    assert [(slide.name.rpartition("/")[2], len(slide.files)) for slide in slides] == [
        ("1.2.3", 2),
        ("1.2.4", 2),
        ("broken.dcm", 1),
    ]
