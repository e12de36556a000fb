"""What a file is by its name and its first bytes: a slide, a slide of a format that is not read here, or neither."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Literal

from wsicurate.files import open_file
from wsicurate.slides.plugin_readers import plugin_suffixes

#: Endings of files that are taken for slides wherever they lie: those of the formats that OpenSlide reads, of TIFFs
#: under other names, and of what TIAToolbox reads besides.
SLIDE_SUFFIXES = frozenset(
    """
    .svs .tif .tiff .ndpi .vms .vmu .scn .mrxs .svslide .bif .czi .avs .dcm .btf .tf2 .tf8 .ptif .ptiff .jp2
    .qptiff
    """.split()  # noqa: SIM905 - a line each is a page
)

#: Endings of plain images, slides only where the slide table names them.
IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp"])

_CONVERT = "convert it to a pyramidal TIFF (bfconvert, QuPath, or the vendor's software)"

#: Slides that no reader here opens -> what they are and what helps.
UNREAD_SUFFIXES = {
    ".isyntax": f"a Philips iSyntax slide; {_CONVERT}",
    ".i2syntax": f"a Philips iSyntax slide; {_CONVERT}",
    ".vsi": f"an Olympus or Evident slide; {_CONVERT}",
    ".ets": f"data of an Olympus or Evident slide; {_CONVERT}",
    ".zvi": f"a Zeiss ZVI image; {_CONVERT}",
    ".kfb": f"a KFBio slide; {_CONVERT}",
    ".kfbf": f"a KFBio slide; {_CONVERT}",
    ".tmap": f"a UNIC slide; {_CONVERT}",
    ".mds": f"a Motic slide; {_CONVERT}",
    ".mdsx": f"a Motic slide; {_CONVERT}",
    ".sdpc": f"a Sqray slide; {_CONVERT}",
    ".dyqx": f"a Sqray slide; {_CONVERT}",
    ".vmic": f"a PreciPoint slide; {_CONVERT}",
    ".oir": f"an Olympus OIR image; {_CONVERT}",
    ".lif": f"a Leica LIF image; {_CONVERT}",
    ".lsm": f"a Zeiss LSM image; {_CONVERT}",
    ".nd2": f"a Nikon image; {_CONVERT}",
    ".ims": f"an Imaris image; {_CONVERT}",
    ".j2k": f"a JPEG 2000 codestream; {_CONVERT}",
    ".jpx": f"a JPEG 2000 image; {_CONVERT}",
    ".dzi": f"a Deep Zoom image; {_CONVERT}",
}

#: Endings of archives, and of what compresses one file.
_ARCHIVE_SUFFIXES = frozenset([".zip", ".tar", ".tgz", ".7z", ".rar"])
_COMPRESSED_SUFFIXES = frozenset([".gz", ".bz2", ".xz", ".zst"])

#: Endings that browsers and copying tools give a file until it is whole.
_PARTIAL_SUFFIXES = frozenset(
    [".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".aria2", ".tmp", ".!ut"]
)

#: Endings of what lies beside slides and is none; such files are not opened to see.
_OTHER_SUFFIXES = frozenset(
    """
    .txt .md .pdf .html .htm .log .rtf .doc .docx .ppt .pptx .xls .xlsx .ods .csv .tsv .json .jsonl .geojson
    .xml .yaml .yml .toml .ini .cfg .conf .db .sqlite .parquet .feather .pkl .pickle .npy .npz .h5 .hdf5 .h5ad
    .pt .pth .ckpt .onnx .safetensors .dat .bin .opt .annotations .ndpa .ndpis .afi .qpproj .qpdata .backup .bak
    .gif .svg .ico .heic .mp4 .avi .mov .py .pyc .ipynb .sh .bat .r .rmd .exe .dll .so .md5 .sha1 .sha256 .url
    .lnk .sum .lock .sr .gpg .sig
    """.split()  # noqa: SIM905 - a line each is a page
)

#: Files that operating systems leave in folders.
_LITTER = frozenset(["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin"])

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CZI = b"ZISRAWFILE"
_JP2 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_APPLE_DOUBLE = b"\0\x05\x16\x07"

#: Bytes that tell.
_HEAD_BYTES = 132

Look = Literal["slide", "image", "dicom", "unread", "archive", "partial", "litter", "tiff", "czi", "jp2", "other", ""]


def look_of(path: Path) -> Look:
    """What a file looks like, by its ending, or, where that says nothing, by its first bytes.

    ``slide`` (of ours or of a reader of another package) and ``image`` by their ending; ``dicom`` by either;
    ``unread``: a slide of a format that is not read here; ``tiff``, ``czi``, ``jp2``: a slide format under an ending of
    none; ``other``: an ending of what is no slide; empty: unknown. Nothing but a regular file is opened.
    """
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.startswith(("._", "~$")) or name in _LITTER:
        return "litter"
    if suffix == ".dcm":
        return "dicom"
    if suffix in SLIDE_SUFFIXES or name.endswith(plugin_suffixes()):
        return "slide"
    if is_plain_image(path):
        return "image"
    if suffix in UNREAD_SUFFIXES:
        return "unread"
    is_slide_inside = Path(path.stem).suffix.lower() in (*SLIDE_SUFFIXES, *UNREAD_SUFFIXES)
    if suffix in _ARCHIVE_SUFFIXES or (suffix in _COMPRESSED_SUFFIXES and is_slide_inside):
        return "archive"
    if suffix in _PARTIAL_SUFFIXES and is_slide_inside:
        return "partial"
    return "other" if suffix in _OTHER_SUFFIXES or suffix in _COMPRESSED_SUFFIXES else look_of_bytes(path)


def is_plain_image(path: Path) -> bool:
    """Whether a file is a plain image by its ending: one of ours that no reader of another package has."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.lower().endswith(plugin_suffixes())


def look_of_bytes(path: Path) -> Look:
    """What a file begins as: ``dicom``, ``tiff``, ``czi``, ``jp2``, ``unread``, ``litter``, or empty."""
    try:
        with open_file(path) as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    if head[128:] == b"DICM":
        return "dicom"
    if head.startswith(_TIFF):
        return "tiff"
    if head.startswith(_CZI):
        return "czi"
    if head.startswith(_JP2):
        return "jp2"
    if head.startswith(b'<DataObject ObjectType="DPUfsImport"'):
        return "unread"
    return "litter" if head.startswith(_APPLE_DOUBLE) else ""


def companions(file: Path) -> list[Path]:
    """The other files of a slide of several: MIRAX has a folder of its name, Hamamatsu's VMS and VMU name theirs."""
    suffix = file.suffix.lower()
    if suffix == ".mrxs":
        return sorted(path for path in file.with_suffix("").glob("*") if path.is_file())
    return _named_inside(file) if suffix in (".vms", ".vmu") else []


def _named_inside(file: Path) -> list[Path]:
    """The files beside ``file`` that it names; none where it cannot be read, so that opening it says so."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with open_file(file) as stream:
            parser.read_string(stream.read(2**20).decode("latin-1"))
    except (OSError, configparser.Error):
        return []
    names = {value.strip() for section in parser.sections() for value in parser[section].values()}
    beside = (file.with_name(name) for name in names if name and name == os.path.basename(name))  # noqa: PTH119
    return sorted(path for path in beside if path != file and path.is_file())


def data_folder(file: Path) -> str:
    """Name of the folder beside a slide that holds its data; empty where it has none."""
    suffix = file.suffix.lower()
    return file.stem if suffix == ".mrxs" else f"_{file.stem}_" if suffix == ".vsi" else ""
