"""DICOM whole-slide images, decoded frame by frame: each frame by what its own codestream says of its colours.

OpenSlide obeys one tag per file. Files lie: Bio-Formats tags ordinary YCbCr JPEGs as RGB (libdicom 80), converters tag
JPEG 2000 as transformed where its codestream is not (openslide 772), or the other way round (wsidicomizer 158). Here a
frame's markers decide; where they prove nothing, the pixels of several frames may; else the tag does.

Headers are walked with nothing believed before it is compared with the file, and pixel data are never read to find a
frame. DICOM PS3.5 (encoding, offset tables), PS3.3 C.8.12 (whole-slide microscopy).
"""

from __future__ import annotations

from pathlib import Path

from wsicurate.errors import UnreadableSlideError
from wsicurate.slides.base import SlideMetadata
from wsicurate.slides.dicom.frames import EncapsulatedPage, RefusedError, codestream_of_frame
from wsicurate.slides.dicom.instances import read_series
from wsicurate.slides.dicom.levels import page_of
from wsicurate.slides.level_checks import check_levels, fitting_levels
from wsicurate.slides.tiles.pages import Page, levels_of
from wsicurate.slides.tiles.reader import TiledSlide
from wsicurate.slides.tiles.source import ByteSource, waiting_neighbours


class DicomSlide(TiledSlide):
    """The VOLUME images of one DICOM series: all files of a folder that share the SeriesInstanceUID of ``path``.

    Pixels are those of each frame's own decoding. Files that lie about their colours are read in true colours, and the
    metadata's warnings say so; levels that contradict themselves in other ways are refused. Labels, overviews and
    thumbnails decide nothing.

    Args:
        path: any file of the series.

    Raises:
        DeclinedError: if it is no such file, or in a transfer syntax that is not decoded here.
        NotBrightfieldError: if its pixels are not three channels of 8 bits.
        UnreadableSlideError: if a file cannot be read, or would not surely be read right: several frames at one place,
            frames off the grid, missing frames, colours that contradict each other.
    """

    reader = "dicom"

    def __init__(self, path: Path) -> None:
        instances, warnings = read_series(path)
        sizes = sorted({instance.size for instance in instances}, key=lambda size: (-size[0], -size[1]))
        levels = [[instance for instance in instances if instance.size == size] for size in sizes]
        sources: list[ByteSource] = []
        pages: list[Page] = []
        try:
            for number, members in enumerate(levels):
                page, said = page_of(members, len(sources), number)
                sources += [instance.source for instance in members]
                pages.append(page)
                warnings += said
        except RefusedError as error:
            raise UnreadableSlideError(f"{path} cannot be opened as a slide: {error}") from error
        kept, left_out = fitting_levels(levels_of(pages))
        finest = levels[0][0]
        metadata = SlideMetadata(
            mpp=finest.mpp,
            objective_power=finest.objective_power,
            vendor="dicom",
            properties=finest.properties,
            icc_profile=finest.icc_profile(),
            warnings=(*warnings, *left_out),
        )
        super().__init__(
            path,
            sources,
            [pages[index] for index in kept],
            metadata,
            distrust="it decides the colours of DICOM by the tag alone",
        )
        check_levels(self.levels, self.name)

    def _bytes_of(self, page: Page, index: int) -> bytes:
        """A frame's codestream; where it is encapsulated, its item's header is compared with what the table says."""
        offset, length = int(page.offsets[index]), int(page.lengths[index])
        source = self._sources[0 if page.files is None else int(page.files[index])]
        data = source.read(offset, length)
        return codestream_of_frame(data) if isinstance(page, EncapsulatedPage) else data


def openslide_differs(slide: DicomSlide, path: Path) -> str:
    """How OpenSlide's view of a series differs, as a sentence; empty where it does not, or does not open it."""
    from wsicurate.slides.openslide import OpenSlideSlide

    if waiting_neighbours(path.parent):  # OpenSlide opens every file of the folder, and would wait for these
        return ""
    try:
        reference = OpenSlideSlide(path)
    except UnreadableSlideError:
        return ""
    with reference:
        theirs, ours = ([(level.width, level.height) for level in each.levels] for each in (reference, slide))
        return "" if theirs == ours else f"OpenSlide finds levels of {theirs}, this reader of {ours}"
