from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsicurate.errors import PatchImportError, SlideTableError
from wsicurate.tables import parse_number, parse_whole_number, read_lines, read_table

COLUMNS = ("slide", "mpp", "patient", "slide_id", "label")


def cells(path: Path, content: str | bytes) -> list[dict[str, str]]:
    """The filled cells of each row of a slide table."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(path, what="the table", columns=COLUMNS, required=("slide",), error=SlideTableError)
    return [{column: cell for column, cell in row.cells.items() if cell} for row in table.rows]


ONE = [{"slide": "A.tif", "mpp": "0,499"}]


@pytest.mark.parametrize(
    "content",
    [
        "slide;mpp\r\nA.tif;0,499\r\n",
        "slide\tmpp\nA.tif\t0,499\n",
        'slide,mpp\nA.tif,"0,499"\n',
        '"slide","mpp"\n"A.tif","0,499"',
        "slide;mpp\rA.tif;0,499\r",
        "sep=;\r\nslide;mpp\r\nA.tif;0,499\r\n",
        '"sep=\t"\nslide\tmpp\nA.tif\t0,499\n',
        "\ufeffslide;mpp\nA.tif;0,499\n",
        "\n \n\r\nslide;mpp\n\n;\nA.tif;0,499\n\n",
        " SLIDE ;mpp;;;\nA.tif ; 0,499;;;;;\n;;;;\n",
        ";slide;mpp\n0;A.tif;0,499\n",
        "slide;mpp;patient\nA.tif;0,499\n",
        "slide;mpp\nA.tif;0,499\n".encode("utf-16"),
        "slide;mpp\nA.tif;0,499\n".encode("utf-16-le"),
        "slide;mpp\nA.tif;0,499\n".encode("utf-16-be"),
        "slide;mpp\nA.tif;0,499\n".encode("utf-32"),
    ],
)
def test_one_table_as_many_programs_write_it(tmp_path: Path, content: str | bytes) -> None:
    assert cells(tmp_path / "t.csv", content) == ONE


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ('"a;b",slide,mpp', "x,S,1"),
        ('"a,b,c";slide;mpp', "x;S;1"),
        ('"a\tb\tc\td",slide,mpp', "x,S,1"),
        ('"two\nlines; really",slide,mpp', "x,S,1"),
        ("slide,mpp,a;b;c;d", "S,1,x"),
    ],
)
def test_another_separator_in_the_header_misleads_nobody(tmp_path: Path, header: str, row: str) -> None:
    (found,) = cells(tmp_path / "t.csv", f"{header}\n{row}\n")
    assert (found["slide"], found["mpp"]) == ("S", "1")


@pytest.mark.parametrize(
    "label",
    ["a\x85b", "a\u2028b", "a\x0bb\x0cc", "a\x1cb\x1db\x1eb", "tumour, grade\n2", "a\r\nb", "\xa0a", "x" * 100_000],
)
def test_cells_keep_what_only_python_takes_for_line_ends(tmp_path: Path, label: str) -> None:
    found = cells(tmp_path / "t.csv", f'slide,label\nA,"{label}"\nB,b\n')
    assert found == [{"slide": "A", "label": label}, {"slide": "B", "label": "b"}]


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('sep=,\n\nslide,label\nA,"a\nb"\nB,c\n\nC,d\n')
    table = read_table(tmp_path / "t.csv", what="the table", columns=COLUMNS)
    assert [row.line for row in table.rows] == [4, 6, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"t.csv has no column 'slide'; its header is ''"),
        ("name;mpp\nA;1\n", r"no column 'slide'; its header is 'name;mpp'. Name the column 'slide'"),
        ("slide,mpp\nA.tif,0,499\n", r"t.csv, line 2: more cells than the header has columns \('A.tif,0,499'\)"),
        ("Slide,slide\nA,B\n", r"line 1: the header names the column 'slide' twice"),
        ("slide,grade,grade\nA,1,2\n", r"the column 'grade' twice"),
        ('slide,label\nA,a\nB,"open\nC,c\n', r"t.csv, line 3: unexpected end of data; close the quotes"),
        ('slide,label\nA,"a"b\n', r"line 2: ',' expected after"),
        ("slide,label\nA," + "x" * 140_000, r"line 2: field larger than field limit"),
        ("slide\nA\nB\0C\n", r"line 3 holds a NUL"),
        (
            "slide\nM\xfcller.svs\n".encode("cp1252"),
            r"is not UTF-8 text: line 2 holds the byte 0xfc.*Windows-1252; save it as",
        ),
        (b"\xff\xfes\0l\0i", r"is not UTF-16 text"),
        (b"PK\x03\x04" + bytes(99), "is an Excel workbook or another zip file; save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "Excel workbook of the old kind"),
        (b"\x1f\x8b\x08" + bytes(99), "a gzip file"),
        (bytes(range(255, 0, -7)) * 9, "t.csv"),
    ],
)
def test_what_cannot_be_read_for_certain_is_refused_in_one_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(SlideTableError, match=message) as refusal:
        cells(tmp_path / "t.csv", content)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 600


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in (
        ("pipe", "it is a named pipe, not a file"),
        ("loop", "[Tt]oo many levels of symbolic links"),
        ("", "it is a folder, not a file"),
        ("gone", "No such file"),
        ("n" * 300, "File name too long"),
        ("a\0b", "null (byte|character)"),
    ):
        with pytest.raises(PatchImportError, match=f"the list .* cannot be read: .*{words}"):
            read_lines(tmp_path / name, what="the list", error=PatchImportError)


def test_a_list_as_excel_writes_it(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes('\ufeffP1;;\r\n"P ""2"""\r\n\r\nP\x853 \r\n'.encode())
    assert read_lines(tmp_path / "l.txt", what="the list") == ["P1", 'P "2"', "", "P\x853", ""]


@pytest.mark.parametrize(
    ("text", "value", "whole"),
    [
        ("0.499", 0.499, None),
        ("0,499", 0.499, None),
        (" 4.99e-1 ", 0.499, None),
        ("12", 12.0, 12),
        ("12.0", 12.0, 12),
        ("1024.000", 1024.0, 1024),
        ("-3", -3.0, -3),
        ("1,000", 1.0, None),
        ("1.000", 1.0, None),
        ("0.000", 0.0, 0),
        *(
            (text, None, None)
            for text in (
                "1.234,5",
                "1,234.5",
                "1 000",
                "1_000",
                "nan",
                "inf",
                "1e400",
                "\u0660.\u0665",
                "",
                "x",
                "0.5 um",
            )
        ),
    ],
)
def test_numbers_as_people_write_them(text: str, value: float | None, whole: int | None) -> None:
    assert parse_number(text) == value
    assert parse_whole_number(text) == whole
