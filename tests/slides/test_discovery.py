from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from wsicurate.errors import ConfigError, NothingToDoError, SlideNotFoundError, SlideTableError, UnreadableSlideError
from wsicurate.slides.dicom import series as dicom_series
from wsicurate.slides.discovery import PassedOver, find_slides, search_slides
from wsicurate.slides.identity import quick_hash, stamp
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


def test_same_named_inputs_collide_and_every_advice_works(tmp_path: Path) -> None:
    touch(tmp_path, "a/x/slides/1.svs", "a/y/slides/1.svs", "b/x/slides/1.svs")
    inputs = [tmp_path / "a" / "x" / "slides", tmp_path / "a" / "y" / "slides"]
    with pytest.raises(ConfigError, match=r"would both be called 'slides%2F1.svs'") as collision:
        find_slides(inputs)
    message = str(collision.value)
    for path in re.findall(r"\S*/1\.svs", message.split(" would")[0]):
        assert Path(path).is_file()
    above = re.search(r"name the folders (\S+) and (\S+) instead", message)
    assert above is not None
    slides, _ = find_slides([Path(folder) for folder in above.groups()])
    assert [slide.name for slide in slides] == ["x/slides/1.svs", "y/slides/1.svs"]
    written = re.search(r"a row whose slide is '(\S+)'$", message)
    assert written is not None
    slides, _ = find_slides(inputs, [row(written[1], slide_id="second")])
    assert [slide.slide_id for slide in slides] == ["second", "slides%2F1.svs"]

    with pytest.raises(SlideTableError, match=r"'1.svs' may be any of") as ambiguous:
        find_slides(inputs, [row("1.svs", slide_id="first")])
    named = re.search(r"any of (\S+), (\S+); write more of the path, as here", str(ambiguous.value))
    assert named is not None
    slides, _ = find_slides(inputs, [row(named[1], slide_id="one"), row(named[2], slide_id="two")])
    assert [slide.slide_id for slide in slides] == ["one", "two"]

    # Parents of one name: the advice goes further up.
    with pytest.raises(ConfigError, match=rf"name the folders {tmp_path}/a and {tmp_path}/b instead"):
        find_slides([tmp_path / "a" / "x" / "slides", tmp_path / "b" / "x" / "slides"])
    assert len(find_slides([tmp_path / "a", tmp_path / "b"])[0]) == 3
    # Two rows of one slide_id: other inputs would not help.
    with pytest.raises(ConfigError, match=r"would both be called 'z'; give one of them another slide_id in --slide-"):
        find_slides([tmp_path / "a"], [row("x/slides/1.svs", slide_id="z"), row("y/slides/1.svs", slide_id="z")])


def test_a_single_slide_of_a_table_takes_its_slide_id(tmp_path: Path) -> None:
    touch(tmp_path, "x/slides/1.svs")
    inputs = [tmp_path / "x" / "slides", tmp_path / "y" / "slides"]
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


@pytest.mark.parametrize(
    "written", ["x/1.svs", "cohort%2Fx%2F1.svs", "1.svs", "1", "x\\1.svs", "./x/1.svs", "cohort/x/1.svs"]
)
def test_rows_are_matched_by_path_id_name_and_stem(tmp_path: Path, written: str) -> None:
    touch(tmp_path / "cohort", "x/1.svs", "2.svs")
    slides, unmatched = find_slides([tmp_path / "cohort"], [row(written, patient="p"), row("2.svs")])
    assert [slide.patient for slide in slides] == [None, "p"]
    assert unmatched == []


def test_rows_are_matched_by_whole_paths_and_in_either_unicode_form(tmp_path: Path) -> None:
    decomposed = "mu\u0308ller.svs"  # as macOS and some network drives give names
    touch(tmp_path / "cohort", "x/1.svs", decomposed)
    rows = [row(str(tmp_path / "cohort/x/1.svs"), patient="p"), row("m\u00fcller.svs", patient="q")]
    slides, unmatched = find_slides([tmp_path / "cohort"], rows)
    assert [slide.patient for slide in slides] == ["q", "p"]
    assert slides[0].name == f"cohort/{decomposed}"
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
    with pytest.raises(NothingToDoError, match=rf"no slide in {tmp_path}; looked for .avs .bif .btf .czi .dcm"):
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


WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
ANNOTATIONS = "1.2.840.10008.5.1.4.1.1.91.1"


def write_dicom(
    path: Path,
    series: str,
    flavour: str = "VOLUME",
    size: tuple[int, int] = (1000, 800),
    *,
    sop_class: str = WHOLE_SLIDE,
    study: str = "1.2",
) -> Path:
    """A DICOM file without pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = sop_class
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID = study, series
    if sop_class == WHOLE_SLIDE:
        header.ImageType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]
        header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = size
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def test_one_series_is_one_slide_however_it_is_named(tmp_path: Path) -> None:
    sizes = [(1000, 800), (500, 400), (250, 200)]
    files = [write_dicom(tmp_path / "s" / f"level-{n}.dcm", "1.5", size=size) for n, size in enumerate(sizes)]
    (tmp_path / "link.dcm").symlink_to(files[1])
    (tmp_path / "linked").symlink_to(tmp_path / "s")
    wanted = ["s/1.5"]
    for inputs in (
        files,
        files[:1],
        files[2:],
        [tmp_path / "s"],
        [tmp_path / "s", files[1]],
        [files[1], tmp_path / "s", tmp_path / "s" / ".." / "s" / "level-0.dcm"],
    ):
        slides, _ = find_slides(inputs)
        assert [(slide.name, set(slide.files)) for slide in slides] == [(wanted[0], set(files))]
    assert len(find_slides([files[0], tmp_path / "linked"])[0]) == 1
    (slide,), _ = find_slides([tmp_path])  # neither link makes it another slide
    assert slide.name == f"{tmp_path.name}/linked"
    (tmp_path / "linked").unlink()
    (slide,), _ = find_slides([tmp_path])
    assert (slide.name, list(slide.files)) == (f"{tmp_path.name}/s", files)


def test_dicom_files_need_no_ending(tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.113", "x.dicom", "y.DCM"):
        write_dicom(tmp_path / "s" / name, "1.5", size=(100 * len(name), 80 * len(name)))
    (slide,), _ = find_slides([tmp_path])
    assert (slide.name, len(slide.files)) == (f"{tmp_path.name}/s", 4)
    (slide,), _ = find_slides([tmp_path / "s" / "IM000001"], [row("x.dicom", patient="p")])
    assert (slide.name, len(slide.files), slide.patient) == ("s/1.5", 4, "p")


def test_a_series_in_two_folders_is_one_slide_and_a_copy_of_it_another(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "b" / "0.dcm", "1.5")
    write_dicom(tmp_path / "in" / "a" / "1.dcm", "1.5", size=(500, 400))
    write_dicom(tmp_path / "in" / "a" / "label.dcm", "1.5", "LABEL", (300, 310))
    (slide,), _ = find_slides([tmp_path / "in"])
    assert (slide.name, [file.name for file in slide.files]) == ("in/1.5", ["0.dcm", "1.dcm", "label.dcm"])
    assert len(find_slides([tmp_path / "in" / "a", tmp_path / "in" / "b"])[0]) == 1
    (tmp_path / "in" / "backup").mkdir()
    for name in ("b/0.dcm", "a/1.dcm"):
        (tmp_path / "in" / "backup" / name[2:]).write_bytes((tmp_path / "in" / name).read_bytes())
    slides, _ = find_slides([tmp_path / "in"])
    assert sorted((slide.name, len(slide.files)) for slide in slides) == [("in/1.5", 3), ("in/backup", 2)]


def test_slides_that_share_a_series_by_mistake_stay_apart(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a" / "0.dcm", "1.5", size=(1000, 800))
    write_dicom(tmp_path / "b" / "0.dcm", "1.5", size=(1200, 700))  # no level of the other's shape
    write_dicom(tmp_path / "c" / "0.dcm", "1.5", size=(500, 400), study="1.3")
    assert len(find_slides([tmp_path])[0]) == 3


def test_what_lies_beside_a_dicom_pyramid_is_no_failed_slide(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s" / "z-level.dcm", "1.5")
    write_dicom(tmp_path / "s" / "a-label.dcm", "1.5", "LABEL", (30, 30))
    for number in (1, 2):
        write_dicom(tmp_path / "s" / f"ann{number}.dcm", "1.6", sop_class=ANNOTATIONS)
    write_dicom(tmp_path / "s" / "DICOMDIR", "1.7", sop_class="1.2.840.10008.1.3.10")
    write_dicom(tmp_path / "s" / "macro.dcm", "1.8", "OVERVIEW", (30, 30))
    write_dicom(tmp_path / "labels" / "label.dcm", "1.9", "LABEL", (30, 30))
    slides, _, passed = search_slides([tmp_path])
    assert [(slide.name, [file.name for file in slide.files]) for slide in slides] == [
        (f"{tmp_path.name}/s", ["z-level.dcm", "a-label.dcm"])
    ]
    assert {(item.name.split("/", 1)[1], item.reason, item.is_slide) for item in passed} == {
        ("labels/label.dcm", "no_volume", True),
        ("s/DICOMDIR", "dicom_object", False),
        ("s/ann1.dcm", "dicom_object", False),
        ("s/macro.dcm", "no_volume", False),
    }
    assert "annotations, which are no slides (2 files)" in {item.message for item in passed}
    with pytest.raises(NothingToDoError, match=r"labels/label.dcm: a DICOM series of LABEL alone"):
        search_slides([tmp_path / "labels"])


def passed_over(*inputs: Path) -> dict[str, PassedOver]:
    return {item.name.rpartition("/")[2]: item for item in search_slides(inputs).passed_over}


def test_what_looks_like_a_slide_and_is_passed_over_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "good.svs", *UNREAD, *INCOMPLETE, *IGNORED)
    (tmp_path / "tiff.xyz").write_bytes(b"II*\0" + bytes(200))
    (tmp_path / "zeiss").write_bytes(b"ZISRAWFILE" + bytes(200))
    (tmp_path / "philips.bin2").write_bytes(b'<DataObject ObjectType="DPUfsImport">' + bytes(200))
    touch(tmp_path / "ngff.ome.zarr", "0/0.0.0")
    (tmp_path / "ngff.ome.zarr" / ".zattrs").write_text('{"multiscales": [{}]}')
    touch(tmp_path / "new.ome.zarr", "0/c/0/0")
    (tmp_path / "new.ome.zarr" / "zarr.json").write_text('{"attributes": {"ome": {"multiscales": [{}]}}}')
    touch(tmp_path / "store.zarr", "x.svs")
    (tmp_path / "store.zarr" / "zarr.json").write_text('{"attributes": {"wsicurate": {}}}')
    touch(tmp_path, "olympus.vsi", "_olympus_/stack1/frame_t.ets")
    found = passed_over(tmp_path)
    slides, _ = find_slides([tmp_path])
    assert [slide.name.rpartition("/")[2] for slide in slides] == ["good.svs"]
    unread = {*UNREAD, "philips.bin2", "ngff.ome.zarr", "new.ome.zarr", "olympus.vsi"}
    assert {name for name, item in found.items() if item.is_slide} == unread
    assert {name for name, item in found.items() if not item.is_slide} == {*INCOMPLETE, "tiff.xyz", "zeiss"}
    assert all("convert" in found[name].message for name in unread)
    with pytest.raises(NothingToDoError, match=r"a.isyntax: it is a Philips iSyntax slide; convert it"):
        find_slides([tmp_path / "a.isyntax"])


UNREAD = ("a.isyntax", "b.KFB", "c.mds", "d.sdpc", "e.tmap", "f.zvi", "g.ets", "h.lif")
INCOMPLETE = ("a.zip", "b.svs.gz", "c.svs.part", "d.ndpi.crdownload", "e.tiff.tmp", "f.isyntax.partial")
IGNORED = ("Thumbs.db", "desktop.ini", ".DS_Store", "._good.svs", "notes.txt", "x.csv", "x.csv.gz", "y.tmp", "empty")


def test_every_ending_that_openslide_reads_is_found(tmp_path: Path) -> None:
    endings = "svs tif tiff ndpi vms vmu scn mrxs svslide bif czi avs CZI Tif NDPI btf"
    touch(tmp_path, *(f"{number}/a.{ending}" for number, ending in enumerate(endings.split())))
    assert len(find_slides([tmp_path])[0]) == 16


def test_files_that_the_user_names(tmp_path: Path) -> None:
    """As ``tile slides/*`` names them all."""
    touch(tmp_path, "good.svs", "strange.xyz", "notes.txt", "desktop.ini", "._good.svs", "b.zip")
    (tmp_path / "tiff.txt").write_bytes(b"II*\0" + bytes(200))
    slides, _, passed = search_slides(sorted(tmp_path.iterdir()))
    assert [slide.path.name for slide in slides] == ["good.svs", "strange.xyz", "tiff.txt"]
    assert {(item.name.rpartition("/")[2], item.reason) for item in passed} == {
        ("._good.svs", "not_a_slide"),
        ("b.zip", "archive"),
        ("desktop.ini", "not_a_slide"),
        ("notes.txt", "not_a_slide"),
    }


def test_the_many_files_of_one_slide_are_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.mrxs", "a/Data0000.dat", "a/Slidedat.ini", "a/preview.tif", "b(0,1).jpg", "b.opt", "b_map.jpg")
    (tmp_path / "b.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=b.jpg\nImageFile(0,1)=b(0,1).jpg\nMapFile=b_map.jpg\n"
        "OptimisationFile=b.opt\nMacroImage=../c.jpg\n"
    )
    mirax, hamamatsu = find_slides([tmp_path])[0]
    assert [file.name for file in mirax.files] == ["a.mrxs", "Data0000.dat", "Slidedat.ini", "preview.tif"]
    assert [file.name for file in hamamatsu.files] == ["b.vms", "b(0,1).jpg", "b.opt", "b_map.jpg"]


def test_what_is_no_file_stops_nobody(tmp_path: Path) -> None:
    folder = touch(tmp_path / "s", "good.svs")
    os.mkfifo(folder / "pipe.svs")
    os.mkfifo(folder / "pipe.dcm")
    os.mkfifo(folder / "pipe")
    (folder / "dangling.svs").symlink_to(tmp_path / "gone.svs")
    (folder / "dangling").symlink_to(tmp_path / "gone")
    (folder / "loop.svs").symlink_to(folder / "loop.svs")
    (folder / "loop.dcm").symlink_to(folder / "loop.dcm")
    (folder / "a").mkdir()
    (folder / "a" / "b").symlink_to(folder / "c")
    (folder / "c").symlink_to(folder / "a")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.svs"))
    slides, _ = find_slides([folder])
    names = ["dangling.svs", "good.svs", "loop.dcm", "loop.svs", "pipe.dcm", "pipe.svs", "socket.svs"]
    assert [slide.path.name for slide in slides] == names
    assert [slide.path.name for slide in find_slides([folder / name for name in names])[0]] == names
    for name, error, words in (
        ("pipe.svs", UnreadableSlideError, "it is a named pipe, not a file"),
        ("socket.svs", UnreadableSlideError, "it is a socket, not a file"),
        ("dangling.svs", SlideNotFoundError, r"is a link to .*gone.svs, which is not there"),
        ("loop.svs", SlideNotFoundError, "cannot be reached: [Tt]oo many levels"),
    ):
        for look in (stamp, quick_hash):
            with pytest.raises(error, match=words):
                look([folder / name])


def test_a_folder_that_cannot_be_read_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = touch(tmp_path / "s", "good.svs", "closed/1.svs")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    slides, _, passed = search_slides([folder])
    assert [slide.path.name for slide in slides] == ["good.svs"]
    (item,) = passed
    assert (item.name, item.reason, item.is_slide) == ("s/closed", "unreadable_folder", True)
    with pytest.raises(NothingToDoError, match=r"closed: the folder cannot be searched: Permission denied"):
        search_slides([folder / "closed"])


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_names_that_cannot_be_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="does not exist or cannot be reached"):
        find_slides([tmp_path / name])


def test_a_dicom_header_without_an_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_series, "_HEADER_BYTES", 4096)
    write_dicom(tmp_path / "good" / "0.dcm", "1.4")
    data = write_dicom(tmp_path / "bad" / "0.dcm", "1.5").read_bytes()
    place = data.index(b"\x08\x00\x08\x00")
    element = b"\x08\x00\x01\x00UL\x04\x00\0\0\0\0"
    (tmp_path / "bad" / "0.dcm").write_bytes(data[:place] + element * 1_000 + data[place:])
    assert dicom_series.read_dicom_file(tmp_path / "good" / "0.dcm").series == "1.4"
    assert dicom_series.read_dicom_file(tmp_path / "bad" / "0.dcm").series == ""
    assert len(find_slides([tmp_path])[0]) == 2
