"""What is imported: patch images in groups that make slides, and the slides that coordinates are on."""

from __future__ import annotations

import itertools
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsicurate.errors import PatchImportError, SlideError
from wsicurate.files import open_file
from wsicurate.formats.coordinates import Coordinates
from wsicurate.formats.packed import PackedPatches, at_raster_order
from wsicurate.formats.patch_folders import FoundPatch, FoundPatches
from wsicurate.pixels.image_files import IMAGE_FORMATS
from wsicurate.slides.discovery import find_slides
from wsicurate.slides.formats import IMAGE_SUFFIXES
from wsicurate.slides.identity import stamp
from wsicurate.slides.names import safe_name
from wsicurate.slides.opening import open_slide
from wsicurate.slides.source import SlideSource
from wsicurate.slides.table import SlideRow
from wsicurate.slides.tcga import Barcode, parse_barcode
from wsicurate.steps.importing.coordinates import slide_resolution
from wsicurate.steps.importing.image_source import ImageSource, PackedRows
from wsicurate.store.layout import slide_key
from wsicurate.tiling.geometry import TOLERANCE

#: Images without a slide of their own are kept together up to this many.
PART_IMAGES = 16_384

#: What images without a stated resolution are taken for; the record says ``unknown``.
ASSUMED_MPP = 0.5

#: Threads that look at the headers of images: the time is the file system's.
_HEADER_THREADS = 8


def one_size(found: FoundPatches, wanted: int | None) -> int:
    """The edge of the images, pixels; those without a readable header are left to be dropped on record.

    Raises:
        PatchImportError: if they are not square or not of one size and no size is wanted; or none is of that size.
    """
    first: tuple[str, tuple[int, int]] | None = None
    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        sizes = threads.map(_header_size, (found.root / patch.name for patch in found.patches), chunksize=64)
        for patch, size in zip(found.patches, sizes, strict=True):
            if size is None:
                continue
            if wanted is not None:
                if size == (wanted, wanted):
                    return wanted
                first = first or (patch.name, size)
                continue
            if size[0] != size[1]:
                raise PatchImportError(
                    f"{found.root / patch.name} has {size[0]}x{size[1]} pixels; patches are square: cut it, or give "
                    "--patch-px to take the images of that edge alone"
                )
            first = first or (patch.name, size)
            if size != first[1]:
                raise PatchImportError(
                    f"the images have several sizes: {found.root / first[0]} has {first[1][0]}x{first[1][1]} pixels, "
                    f"{found.root / patch.name} {size[0]}x{size[1]}; give --patch-px {first[1][0]} (or {size[0]}) to "
                    "take those of that edge alone, or import each size into a store of its own"
                )
    if first is None:
        raise PatchImportError(f"none of the {len(found.patches):,} images in {found.root} can be opened")
    if wanted is not None:
        raise PatchImportError(
            f"--patch-px is {wanted} and no image of {found.root} has that edge; {first[0]} has "
            f"{first[1][0]}x{first[1][1]} pixels"
        )
    return first[1][0]


def _header_size(path: Path) -> tuple[int, int] | None:
    """Width and height, or None where the header cannot be read."""
    from PIL import Image

    try:
        with open_file(path) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
            return image.size
    except Exception:  # Pillow raises many kinds on broken files; the worker that reads it says what is wrong
        return None


@dataclass(frozen=True)
class _Group:
    """What images have in common that make one slide of the store."""

    name: str
    is_slide: bool
    mpp: float
    origin: str


def image_sources(found: FoundPatches, mpp: float | None, patch_px: int) -> Iterator[ImageSource]:
    """Group the images into slides of the store."""
    root = Path(os.path.abspath(found.root))  # noqa: PTH100 - not resolve(): a link keeps the name that the user gave
    has_labels = any(patch.label is not None for patch in found.patches)
    groups: dict[_Group, list[FoundPatch]] = defaultdict(list)
    by_folder = all(patch.name.count("/") == 1 for patch in found.patches)
    for patch in found.patches:
        barcode = parse_barcode(patch.name)
        name = patch.slide or _barcode_name(barcode) or patch.patient
        of_slide = name is not None
        if name is None:
            name = patch.name.partition("/")[0] if by_folder else ""
        own = patch.mpp if patch.mpp is not None else mpp
        origin = "table" if patch.mpp is not None else "--mpp" if mpp is not None else "unknown"
        groups[_Group(name, of_slide, ASSUMED_MPP if own is None else own, origin)].append(patch)
    names: dict[str, str] = {}
    for group in sorted(groups, key=lambda group: (group.name, group.mpp, group.origin)):
        members = groups[group]
        parts = (
            [members]
            if group.is_slide
            else [members[first : first + PART_IMAGES] for first in range(0, len(members), PART_IMAGES)]
        )
        for number, part in enumerate(parts):
            name = "/".join(filter(None, (root.name, group.name, f"part-{number:04d}" if len(parts) > 1 else "")))
            slide_id = safe_name(name)
            key = slide_key(slide_id, group.mpp)
            if names.setdefault(key, name) != name:
                raise PatchImportError(f"{names[key]!r} and {name!r} would both be called {key!r}; rename one")
            yield _source(root, name, slide_id, group, part, patch_px, has_labels)


def _source(
    root: Path,
    name: str,
    slide_id: str,
    group: _Group,
    members: Sequence[FoundPatch],
    patch_px: int,
    has_labels: bool,
) -> ImageSource:
    barcode = parse_barcode(members[0].name)
    is_placed = all(patch.x is not None for patch in members)
    if is_placed:
        members = sorted(members, key=lambda patch: (patch.y, patch.x, patch.name))
        for one, other in itertools.pairwise(members):
            if (one.x, one.y) == (other.x, other.y):
                raise PatchImportError(
                    f"{root / one.name} and {root / other.name} both lie at x={one.x} y={one.y} of the slide "
                    f"{group.name or root.name!r}; name their slides, or correct one"
                )
        xy = np.array([(patch.x, patch.y) for patch in members], dtype=np.int32)
    else:
        columns = max(1, int(np.ceil(np.sqrt(len(members)))))
        index = np.arange(len(members))
        xy = np.stack([index % columns, index // columns], axis=1).astype(np.int32) * patch_px
    labels = [patch.label for patch in members] if has_labels else None
    same = {patch.label for patch in members}
    return ImageSource(
        slide_id=slide_id,
        name=name,
        root=root,
        names=[patch.name for patch in members],
        labels=labels,
        xy=xy,
        is_placed=is_placed,
        mpp=group.mpp,
        origin=group.origin,
        patient=_one("patient", group, members) or (barcode.patient if barcode and group.is_slide else None),
        site=_one("site", group, members) or (barcode.site if barcode and group.is_slide else None),
        kind=_one("kind", group, members) or (barcode.kind if barcode and group.is_slide else None),
        label=next(iter(same)) if len(same) == 1 else None,
        barcode=barcode if group.is_slide else None,
    )


def packed_sources(
    found: Sequence[PackedPatches], root: Path, mpp: float | None
) -> tuple[list[ImageSource], list[str]]:
    """Patches in HDF5 files as slides of the store, and what was assumed or left out, in sentences."""
    sources, notes = [], []
    for packed in found:
        coordinates = packed.coordinates
        if packed.is_placed:
            rows, corners, repeated = at_raster_order(packed)
            if repeated:
                notes.append(f"{repeated:,} patches of {packed.path} lie where others lie, and are left out")
        else:
            rows = np.arange(packed.count)
            columns = max(1, math.ceil(math.sqrt(packed.count)))
            corners = np.stack([rows % columns, rows // columns], axis=1) * coordinates.patch_px
        own = coordinates.mpp if mpp is None else mpp
        barcode = parse_barcode(coordinates.slide)
        name = f"{root.name}/{coordinates.slide}"
        sources.append(
            ImageSource(
                slide_id=safe_name(name),
                name=name,
                root=packed.path,
                names=[packed.names[row] for row in rows.tolist()],
                labels=None,
                xy=corners.astype(np.int32),
                is_placed=packed.is_placed,
                mpp=ASSUMED_MPP if own is None else own,
                origin="unknown" if own is None else "coordinates" if mpp is None else "--mpp",
                patient=barcode.patient if barcode else None,
                site=barcode.site if barcode else None,
                kind=barcode.kind if barcode else None,
                barcode=barcode,
                packed=PackedRows(packed.dataset, rows),
                made_by=coordinates.format,
                pitch=coordinates.source_px if packed.is_placed else None,
                level=coordinates.level,
                downsample=coordinates.downsample,
                extent=coordinates.extent,
            )
        )
    return sources, notes


def _one(word: str, group: _Group, members: Sequence[FoundPatch]) -> str | None:
    """What all images of a slide say.

    Raises:
        PatchImportError: if two say different things; the message names both.
    """
    by_value: dict[str, FoundPatch] = {}
    for patch in members:
        value = getattr(patch, word)
        if value is not None:
            by_value.setdefault(value, patch)
    if len(by_value) > 1:
        (one, first), (other, second) = list(by_value.items())[:2]
        raise PatchImportError(
            f"{first.name} and {second.name} are of one slide, {group.name!r}, and of two values of {word}, {one!r} "
            f"and {other!r}; correct one, or give them different slides"
        )
    return next(iter(by_value), None)


def _barcode_name(barcode: Barcode | None) -> str | None:
    """The barcode down to what it says."""
    if barcode is None:
        return None
    parts = (barcode.sample or barcode.patient, barcode.portion, barcode.slide)
    return "-".join(part for part in parts if part is not None)


def mpp_at(coordinates: Coordinates, patch_px: int) -> float | None:
    """What the file says of the resolution, at another size of the same windows."""
    return None if coordinates.mpp is None else coordinates.mpp * coordinates.patch_px / patch_px


def slides_of_names(folders: Sequence[Path], names: Sequence[str]) -> dict[str, SlideSource]:
    """The slide of each name, with or without its ending. Plain images count where they are called so.

    Raises:
        PatchImportError: if two slides are called so.
    """
    wanted = set(names)
    rows = [
        SlideRow(slide=file.relative_to(folder).as_posix(), line=0)
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and {file.name, file.stem} & wanted
    ]
    found, _ = find_slides(folders, rows)
    slides: dict[str, SlideSource] = {}
    for slide in found:
        last = slide.name.rpartition("/")[2]
        for name in {last, os.path.splitext(last)[0]} & wanted:  # noqa: PTH122 - a name, not a path
            other = slides.setdefault(name, slide)
            if other is not slide:
                raise PatchImportError(
                    f"{other.path} and {slide.path} are both called {name!r}; name one's folder in --slides"
                )
    return slides


def target_mpp(slide: SlideSource, coordinates: Coordinates, mpp: float | None) -> float:
    """The resolution in the slide's key: ``--mpp``, what the coordinates say, or a usual one that the patches have."""
    if mpp is not None:
        return mpp
    if coordinates.mpp is not None:
        return coordinates.mpp
    try:
        stamp(slide.files)
        with open_slide(slide.path, plain_images=slide.row is not None) as opened:
            own = float(slide_resolution(opened, coordinates, None)["mpp"])
    except SlideError:
        return ASSUMED_MPP  # the survey says what is wrong with it
    effective = own * coordinates.source_px / coordinates.patch_px
    usual = 2.0 ** round(math.log2(effective))
    return usual if abs(effective - usual) <= TOLERANCE * usual else float(f"{effective:.4g}")
