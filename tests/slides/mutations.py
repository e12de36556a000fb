"""Damages slides on purpose, by seed, and tells what reading them comes to. Run as a program, it reads one after another.

    python -m tests.slides.mutations FOLDER SLIDE:SEED [SLIDE:SEED ...]

writes one JSON line for each. The parent limits time and notices crashes; memory is limited here.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

#: Data that the process may allocate, bytes. Libraries and their threads' stacks come out of it too.
DATA_LIMIT = 1 << 30

#: Regions that are compared, pixels a side.
REGION_PX = 512

#: Regions per level that are compared.
MAX_REGIONS = 24

#: What two decoders may make of the same codestream: mean and largest difference, of 255 levels.
NOISE_MEAN, NOISE_MAX = 1.0, 8

#: Seconds that OpenSlide has for a file that is refused here.
OPENSLIDE_SECONDS = 15

KINDS = ("flip one bit", "flip bits", "flip bits in the directories", "truncate", "swap tags", "lie about a size")

#: TIFF's tags, and DICOM's, whose numbers say how large, how many or what something is, or where.
SIZE_TAGS = (
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
    347,
    34675,
)
DICOM_SIZE_TAGS = (0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101)
DICOM_SIZE_TAGS += (0x00480006, 0x00480007, 0x00209311, 0x00020010, 0x7FE00001, 0x7FE00002, 0x52009229, 0x52009230)

LIES = (0, 1, 2, 6, 7, 255, 65535, 2**20, 2**24 + 1, 2**31 - 1, 2**32 - 1)


class Structure:
    """Where the fields of a file's directories stand.

    Attributes:
        entries: where each begins.
        tag: bytes of its tag.
        rest: bytes of what follows the tag and may be exchanged between two of them.
        sized: those that say a size.
        numbers: where, counted from the beginning, numbers stand that may lie; and their format.
    """

    def __init__(self, data: bytes) -> None:
        self.entries: list[int] = []
        self.sized: list[int] = []
        if data[:4] == b"II*\0":
            self.tag, self.rest, self.numbers = 2, 10, ((4, "<I"), (8, "<I"))
            places = self._tiff(data, 4, "<I", "<H", 12)
        elif data[:4] == b"II+\0":
            self.tag, self.rest, self.numbers = 2, 18, ((4, "<Q"), (12, "<Q"))
            places = self._tiff(data, 8, "<Q", "<Q", 20)
        else:
            self.tag, self.rest, self.numbers = 4, 4, ((6, "<H"), (8, "<H"))
            places = self._dicom(data)
        for place, tag in places:
            self.entries.append(place)
            if tag in (SIZE_TAGS if self.tag == 2 else DICOM_SIZE_TAGS):
                self.sized.append(place)

    @staticmethod
    def _tiff(data: bytes, first: int, link: str, number: str, step: int) -> Iterator[tuple[int, int]]:
        """NDPI's directories lie at 64-bit offsets, whose lower halves are enough below 4 GiB."""
        (position,) = struct.unpack_from(link, data, first)
        while position and position + 8 <= len(data):
            (count,) = struct.unpack_from(number, data, position)
            begin = position + struct.calcsize(number)
            for place in range(begin, begin + step * count, step):
                yield place, struct.unpack_from("<H", data, place)[0]
            (position,) = struct.unpack_from(link, data, begin + step * count)

    @staticmethod
    def _dicom(data: bytes) -> Iterator[tuple[int, int]]:
        position = 132 if data[128:132] == b"DICM" else len(data)
        while position + 12 <= len(data):
            group, element, form, length = struct.unpack_from("<HH2sH", data, position)
            yield position, group << 16 | element
            head = 8
            if form in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OV", b"UC", b"OF", b"OD", b"OL", b"SV", b"UR", b"UV"):
                (length,), head = struct.unpack_from("<I", data, position + 8), 12
            if group << 16 | element >= 0x7FE00010:
                return
            position += head + (0 if length == 0xFFFFFFFF else length)


def mutate(data: bytes, seed: int) -> tuple[bytes, str]:
    """Damage a file's bytes.

    Args:
        data: the file.
        seed: of the damage; its remainder by six chooses the kind.

    Returns:
        The damaged bytes, and the kind of damage.
    """
    rng = np.random.default_rng([seed, len(data)])
    kind = KINDS[seed % len(KINDS)]
    changed = bytearray(data)
    found = Structure(data)
    entries = found.entries
    if kind == "truncate":
        return bytes(changed[: int(rng.integers(1, len(data)))]), kind
    if kind == "swap tags" and len(entries) > 1:
        first, second = (entries[int(index)] for index in rng.choice(len(entries), 2, replace=False))
        part = slice(0, found.tag) if rng.random() < 0.5 else slice(found.tag, found.tag + found.rest)
        one, other = (slice(place + part.start, place + part.stop) for place in (first, second))
        changed[one], changed[other] = changed[other], changed[one]
        return bytes(changed), kind
    if kind == "lie about a size" and entries:
        places = found.sized or entries
        place = places[int(rng.integers(len(places)))]
        lie = int(rng.choice(LIES))
        at, form = found.numbers[int(rng.integers(2))]
        struct.pack_into(form, changed, place + at, lie % 2 ** (8 * struct.calcsize(form)))
        return bytes(changed), kind
    if kind == "flip bits in the directories" and entries:
        for _ in range(int(rng.integers(1, 6))):
            place = entries[int(rng.integers(len(entries)))] + int(rng.integers(found.tag + found.rest + 4))
            changed[min(place, len(changed) - 1)] ^= 1 << int(rng.integers(8))
        return bytes(changed), kind
    for _ in range(1 if kind == "flip one bit" else int(rng.integers(2, 64))):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed), kind


#: Width and height of a level, by which it is known, and x, y, width, height of a region of it.
Box = tuple[tuple[int, int], int, int, int, int]
Read = Callable[[tuple[int, int], int, int, int, int], np.ndarray]


def read_damaged(file: Path, sound: Path) -> tuple[str, str]:
    """Read a damaged slide as `tile` would, comparing with whoever else reads it, and with the sound slide.

    Returns:
        ``error at opening``, ``error in regions`` (all others are somebody's pixels), ``equal``; or what must never be:
        ``invented pixels``; ``refused what OpenSlide reads right``; ``unnamed error``; and a sentence.
    """
    from wsicurate.errors import SlideError
    from wsicurate.slides.opening import open_slide
    from wsicurate.slides.overview import read_overview

    with open_slide(sound) as original:
        boxes = boxes_of(original.levels)
        try:
            slide = open_slide(file)
        except SlideError as error:
            if file.name not in str(error):
                return "unnamed error", str(error)
            if openslide_reads_right(file, original, boxes, needs_all=True):
                return "refused what OpenSlide reads right", str(error)
            return "error at opening", str(error)
        with slide:
            broken: list[Box] = []
            message = ""
            for box in boxes_of(slide.levels):
                try:
                    pixels = of_slide(slide)(*box)
                except SlideError as error:
                    message = str(error)
                    broken.append(box)
                    if file.name not in message:
                        return "unnamed error", message
                    continue
                if slide.reader != "openslide" and not is_somebodys(pixels, box, file, original):
                    return (
                        "invented pixels",
                        f"of level {box[0]}, {box[1:]}, which neither others nor the sound slide have",
                    )
            read_overview(slide, 0.5)
        same = set(boxes)
        if broken and openslide_reads_right(file, original, [box for box in broken if box in same], needs_all=False):
            return "refused what OpenSlide reads right", message
    return ("error in regions", message) if broken else ("equal", "")


def boxes_of(levels: Any) -> list[Box]:
    """The regions that are compared."""
    return [
        ((level.width, level.height), *region)
        for level in levels
        for region in regions(level.width, level.height, level.downsample)
    ]


def is_somebodys(pixels: np.ndarray, box: Box, file: Path, original: Any) -> bool:
    """Whether a region is what OpenSlide, tifffile or pydicom make of the file, or what the sound slide has there."""
    if is_alike(pixels, of_slide(original), box):
        return True
    return any(in_a_child(partial(is_alike, pixels, read, box)) for read in (of_openslide(file), of_library(file)))


def is_alike(pixels: np.ndarray, read: Read, box: Box) -> bool:
    try:
        other = read(*box)
    except Exception:  # each library has its own
        return False
    if other.shape != pixels.shape:
        return False
    difference = np.abs(pixels.astype(int) - other)
    return float(difference.mean()) <= NOISE_MEAN and int(difference.max()) <= NOISE_MAX


def of_slide(slide: Any) -> Read:
    """What an open slide has in the level of a size."""

    def read(size: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
        level = [(level.width, level.height) for level in slide.levels].index(size)
        return slide.read(level, x, y, width, height)

    return read


def of_openslide(file: Path) -> Read:
    """What OpenSlide reads of a file."""

    def read(*box: Any) -> np.ndarray:
        from wsicurate.slides.openslide import OpenSlideSlide

        with OpenSlideSlide(file) as slide:
            return of_slide(slide)(*box)

    return read


def of_library(file: Path) -> Read:
    """What tifffile or pydicom, with the plain decoders, read of a file."""

    def tiff(size: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
        import tifffile

        with tifffile.TiffFile(file) as opened:
            page = next(page for page in opened.pages if page.is_tiled and (page.imagewidth, page.imagelength) == size)
            return np.asarray(page.asarray()[y : y + height, x : x + width, :3])

    def dicom(size: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
        import imagecodecs
        import simplejpeg
        from pydicom import dcmread
        from pydicom.encaps import generate_frames

        for path in file.parent.glob("*.dcm"):
            header = dcmread(path)
            if (header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows) != size:
                continue
            across = -(-header.TotalPixelMatrixColumns // header.Columns)
            down = -(-header.TotalPixelMatrixRows // header.Rows)
            whole = np.zeros((down * header.Rows, across * header.Columns, 3), np.uint8)
            frames = generate_frames(header.PixelData, number_of_frames=int(header.NumberOfFrames))
            for index, frame in enumerate(frames):
                row, column = index // across * header.Rows, index % across * header.Columns
                if row < y + height and row + header.Rows > y and column < x + width and column + header.Columns > x:
                    decode = imagecodecs.jpeg2k_decode if frame[:2] == b"\xff\x4f" else simplejpeg.decode_jpeg
                    whole[row : row + header.Rows, column : column + header.Columns] = decode(frame)
            return whole[y : y + height, x : x + width]
        raise ValueError(f"there is no level of {size}")

    return dicom if file.suffix == ".dcm" else tiff


def openslide_reads_right(file: Path, original: Any, boxes: list[Box], *, needs_all: bool) -> bool:
    """Whether OpenSlide reads what is refused here, and as the sound slide has it.

    Args:
        file: the damaged slide.
        original: the sound one, open.
        boxes: regions.
        needs_all: whether all of them must be right, or one is enough.
    """
    read = of_openslide(file)

    def evaluation_encoder() -> bool:
        alike = (is_alike(of_slide(original)(*box), read, box) for box in boxes)
        return bool(boxes) and (all(alike) if needs_all else any(alike))

    return in_a_child(evaluation_encoder)


def in_a_child(question: Callable[[], bool]) -> bool:
    """Ask a question in a process of its own; one that crashes, or keeps silent for too long, says no."""
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            answer = 0 if question() else 1
        finally:
            os._exit(answer)
    deadline = time.monotonic() + OPENSLIDE_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def regions(width: int, height: int, downsample: float) -> list[tuple[int, int, int, int]]:
    """Regions to compare: spread over a level, or its corner where OpenSlide would interpolate elsewhere."""
    if downsample != int(downsample):
        return [(0, 0, min(width, 2048), min(height, 2048))]
    columns = [(x, min(REGION_PX, width - x)) for x in range(0, width, REGION_PX)]
    rows = [(y, min(REGION_PX, height - y)) for y in range(0, height, REGION_PX)]
    count = len(columns) * len(rows)
    picks = np.unique(np.linspace(0, count - 1, min(count, MAX_REGIONS)).astype(int)).tolist()
    places = [(columns[pick % len(columns)], rows[pick // len(columns)]) for pick in picks]
    return [(x, y, wide, tall) for (x, wide), (y, tall) in places]


def prepare(folder: Path, slide: Path, seed: int) -> tuple[Path, str]:
    """Write a damaged copy of a slide; of a DICOM series, one file is damaged. Returns the file to open."""
    data, kind = mutate(slide.read_bytes(), seed)
    place = Path(tempfile.mkdtemp(dir=folder))
    if slide.suffix == ".dcm":
        for other in slide.parent.glob("*.dcm"):
            if other != slide:
                shutil.copy(other, place / other.name)
    (place / slide.name).write_bytes(data)
    return place / slide.name, kind


def peak_bytes() -> int:
    """The most memory that this program had; getrusage would tell of the process that started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(folder: str, *names: str) -> None:
    """See the module's docstring."""
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in names:
        slide, _, seed = name.rpartition(":")
        file, kind = prepare(Path(folder), Path(slide), int(seed))
        print(json.dumps({"name": name, "kind": kind, "began": True}), flush=True)
        began = time.monotonic()
        try:
            outcome, message = read_damaged(file, Path(slide))
        except Exception as error:
            outcome, message = "unnamed error", f"{type(error).__name__}: {error}"
        peak = peak_bytes()
        line = {"outcome": outcome, "message": message, "seconds": time.monotonic() - began, "peak_bytes": peak}
        print(json.dumps({"name": name, "kind": kind, **line}), flush=True)
        shutil.rmtree(file.parent)


if __name__ == "__main__":
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    main(*sys.argv[1:])
