from __future__ import annotations

from pathlib import Path

import pytest

from wsicurate.errors import SlideTableError
from wsicurate.slides.table import read_slide_table


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "slides.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_known_columns_have_types_and_others_are_kept(tmp_path: Path) -> None:
    path = table(
        tmp_path, "slide,mpp,patient,slide_id,label,site,kind,grade\na.svs,0.25,p1,x,tumour,S,dx,3\nb.svs,,,,,,,\n"
    )
    first, second = read_slide_table(path)
    assert (first.slide, first.mpp, first.patient, first.slide_id) == ("a.svs", 0.25, "p1", "x")
    assert (first.label, first.site, first.kind, dict(first.extra)) == ("tumour", "S", "DX", {"grade": "3"})
    assert (second.mpp, second.patient, second.slide_id, second.kind, second.line) == (None, None, None, None, 3)


def test_tabs_a_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    (row,) = read_slide_table(table(tmp_path, "\ufeffslide\tmpp\n'a b'.svs\t0.5\n"))
    assert (row.slide, row.mpp) == ("'a b'.svs", 0.5)
    (row,) = read_slide_table(table(tmp_path, 'slide,label\n"a, b.svs","x ""y"""\n'))
    assert (row.slide, row.label) == ("a, b.svs", 'x "y"')


def test_a_table_as_a_german_excel_writes_it(tmp_path: Path) -> None:
    text = 'Slide;MPP;Slide ID;Label\r\nA.tif;0,499;;"T1; N0\r\nM0"\r\n;;;\r\n\r\nB.tif;0,25;b;P\x851\r\n'
    for content in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        first, second = read_slide_table(table(tmp_path, content))
        assert (first.slide, first.mpp, first.slide_id, first.label) == ("A.tif", 0.499, None, "T1; N0\r\nM0")
        assert (second.slide, second.mpp, second.slide_id, second.label) == ("B.tif", 0.25, "b", "P\x851")
    with pytest.raises(SlideTableError, match=r"line 2: mpp is '1.000,5'"):
        read_slide_table(table(tmp_path, "slide;mpp\nA;1.000,5\n"))


def test_the_real_table(sections: Path) -> None:
    rows = read_slide_table(sections / "sections.csv")
    assert [row.mpp for row in rows] == [0.6961, 0.6691, 0.6901, 0.6907]
    assert {row.patient for row in rows} == {"her2st-C"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,mpp\na.svs,0.5\n", r"slides.csv has no column 'slide'; its header is 'name,mpp'. Name the column"),
        ("", r"has no column 'slide'; its header is ''"),
        ("slide,mpp\na.svs,coarse\n", r"slides.csv, line 2: mpp is 'coarse'; give µm per pixel from 0.05 to 20"),
        ("slide,mpp\na.svs,264.58\n", r"line 2: mpp is '264.58'"),
        ("slide,mpp\na.svs,0.5\n,0.5\n", r"line 3: the column 'slide' is empty"),
        ("slide,mpp\na.svs,0.5\na.svs,0.25\n", r"lines 2 and 3: the slide 'a.svs' stands there twice"),
        ("slide,mpp\na.svs,0.5,x,y\n", r"line 2: more cells than the header has columns"),
        ("slide\n\xe4.svs\n".encode("latin-1"), r"is not UTF-8 text.*save it as CSV in UTF-8"),
    ],
)
def test_bad_tables_are_refused_by_line_value_and_mend(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(SlideTableError, match=message):
        read_slide_table(table(tmp_path, text))


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(SlideTableError, match=r"none.csv cannot be read: No such file"):
        read_slide_table(tmp_path / "none.csv")
