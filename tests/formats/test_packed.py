"""Patches in HDF5: laid out as CLAM's create_patches.py and hestcore's to_h5 lay them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from wsicurate.errors import PatchImportError
from wsicurate.formats.coordinates import read_coordinates
from wsicurate.formats.packed import find_packed, open_pixels, read_packed
from wsicurate.formats.vectors import read_vectors

PX = 32


def patches(count: int, px: int = PX, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(-30, 30, (count, px // 8, px // 8, 3))
    return (np.kron(blocks, np.ones((1, 8, 8, 1))) + np.array([200, 120, 170])).clip(0, 255).astype(np.uint8)


def write_clam(
    path: Path, xy: Any, *, level: int = 0, downsample: float = 1.0, custom: int = 1, size: int = 4096, **more: Any
) -> np.ndarray:
    """As initialize_hdf5_bag and savePatchIter_bag_hdf5 do: one patch after the other; ``xy`` as they are stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = patches(len(xy))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("imgs", data=images, maxshape=(None, PX, PX, 3), chunks=(1, PX, PX, 3))
        side = round(size / downsample)
        data.attrs["patch_level"] = level
        data.attrs["wsi_name"] = path.stem
        data.attrs["downsample"] = (downsample, downsample)
        data.attrs["level_dim"] = (side, side)
        data.attrs["downsampled_level_dim"] = (side // custom, side // custom)
        for name, value in more.items():
            data.attrs[name] = value
        if xy is not None:
            file.create_dataset("coords", data=np.array(xy, dtype=np.int32), maxshape=(None, 2), chunks=(1, 2))
    return images


def write_hest(path: Path, xy: Any, *, with_images: bool = True, with_facts: bool = True) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = patches(len(xy), seed=1)
    facts = {"patch_size_src": 77, "patch_size_target": PX, "downsample": 2.4, "pixel_size": 0.2, "name": "S1"}
    with h5py.File(path, "w") as file:
        data = [file.create_dataset("coords", data=np.array(xy, dtype=np.int64), maxshape=(None, 2), chunks=(1, 2))]
        if with_images:
            data.append(file.create_dataset("img", data=images, maxshape=(None, PX, PX, 3), chunks=(1, PX, PX, 3)))
        for dataset in data if with_facts else ():
            dataset.attrs.update(facts)
        names = np.array([[f"AAC-{n}"] for n in range(len(xy))], dtype=object)
        file.create_dataset("barcode", data=names, dtype=h5py.string_dtype())
    return images


def test_clam_at_level_0(tmp_path: Path) -> None:
    images = write_clam(tmp_path / "S.h5", [(0, 0), (64, 32)])
    packed = read_packed(tmp_path / "S.h5")
    found = packed.coordinates
    assert (found.format, found.slide, found.source_px, found.patch_px, found.level) == ("CLAM", "S", PX, PX, 0)
    assert (found.extent, packed.is_placed, packed.names) == ((4096, 4096), True, ["S.h5/000000", "S.h5/000001"])
    assert found.xy.tolist() == [[0, 0], [64, 32]]
    with open_pixels(packed.path, packed.dataset) as read:
        assert np.array_equal(read(1), images[1])


@pytest.mark.parametrize(("downsample", "custom"), [(4.0, 1), (4.0006, 1), (4.0, 2), (1.0, 2)])
def test_clam_s_corners_are_pixels_of_the_level(tmp_path: Path, downsample: float, custom: int) -> None:
    write_clam(tmp_path / "S.h5", [(0, 0), (100, 40)], level=1, downsample=downsample, custom=custom)
    found = read_packed(tmp_path / "S.h5").coordinates
    scale = int(downsample) * custom
    assert found.xy.tolist() == [[0, 0], [100 * scale, 40 * scale]]
    assert found.source_px == PX * scale
    assert (found.level, found.downsample) == (1, downsample)
    assert found.extent is not None and abs(found.extent[0] - 4096) <= 4
    assert np.array_equal(read_coordinates(tmp_path / "S.h5").xy, found.xy)  # the same with --slides


def test_corners_beyond_the_level_are_level_0_pixels(tmp_path: Path) -> None:
    write_clam(tmp_path / "S.h5", [(0, 0), (2048, 128)], level=1, downsample=4.0)
    assert read_packed(tmp_path / "S.h5").coordinates.xy.tolist() == [[0, 0], [2048, 128]]


def test_hest(tmp_path: Path) -> None:
    write_hest(tmp_path / "TENX1.h5", [(5, 9), (300, 40)])
    packed = read_packed(tmp_path / "TENX1.h5")
    found = packed.coordinates
    assert (found.format, found.slide, found.source_px, found.patch_px) == ("HEST", "S1", 77, PX)
    assert found.mpp == pytest.approx(0.48)
    assert packed.names == ["TENX1.h5/AAC-0", "TENX1.h5/AAC-1"]
    write_hest(tmp_path / "c" / "TENX1.h5", [(5, 9)], with_images=False)
    assert read_coordinates(tmp_path / "c" / "TENX1.h5").source_px == 77
    write_hest(tmp_path / "o" / "TENX2.h5", [(5, 9)], with_facts=False)  # as HEST-1k was first published
    bare = read_packed(tmp_path / "o" / "TENX2.h5").coordinates
    assert (bare.slide, bare.source_px, bare.mpp, bare.xy.tolist()) == ("TENX2", PX, None, [[5, 9]])


def test_patches_without_coordinates(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "S.h5", "w") as file:
        file["imgs"] = patches(3)
    packed = read_packed(tmp_path / "S.h5")
    assert (packed.is_placed, packed.count, len(packed.names)) == (False, 3, 3)


def stamp(path: Path, **facts: Any) -> Path:
    """As stamp/preprocessing/__init__.py writes it."""
    with h5py.File(path, "w") as file:
        file["coords"] = np.array([[0, 0], [256, 512]], dtype=np.float32)
        file["feats"] = np.ones((2, 4), dtype=np.float16)
        file.attrs.update({"stamp_version": "2.3.0", "extractor": "uni", "unit": "um", "tile_size_px": 224} | facts)
    return path


@pytest.mark.parametrize("fact", ["tile_size_um", "tile_size"])
def test_stamp(tmp_path: Path, fact: str) -> None:
    found = read_coordinates(stamp(tmp_path / "S.h5", **{fact: 256.0}))
    assert (found.format, found.slide, found.patch_px, found.has_vectors) == ("STAMP", "S", 224, True)
    assert found.mpp == pytest.approx(256 / 224)
    here = found.on_slide(0.5)
    assert (here.source_px, here.xy.tolist()) == (512, [[0, 0], [512, 1024]])
    vectors = read_vectors(tmp_path / "S.h5")
    assert vectors.xy is None
    corners = vectors.corners(0.5)
    assert corners is not None and corners.tolist() == [[0, 0], [512, 1024]]
    with pytest.raises(PatchImportError, match="beyond any slide"):
        found.on_slide(1e-9)


def test_stamp_that_does_not_say_its_tiles(tmp_path: Path) -> None:
    with pytest.raises(PatchImportError, match="does not say how large its tiles are.*STAMP 2.1"):
        read_coordinates(stamp(tmp_path / "S.h5"))


def other_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["imgs"] = patches(2)
        file["coords"] = np.zeros((2, 2), dtype=np.int64)
        file["features"] = np.ones((2, 4), dtype=np.float32)
    return path


def external_link(file: Any, name: str, outside: Path) -> None:
    file[name] = h5py.ExternalLink(outside, name)


def soft_link_through_another_file(file: Any, name: str, outside: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(outside, "/")
    file[name] = h5py.SoftLink(f"/elsewhere/{name}")


def virtual(file: Any, name: str, outside: Path) -> None:
    with h5py.File(outside, "r") as there:
        shape, dtype = there[name].shape, there[name].dtype
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    layout[:] = h5py.VirtualSource(outside, name, shape=shape)
    file.create_virtual_dataset(name, layout)


def raw_data_outside(file: Any, name: str, outside: Path) -> None:
    (outside.parent / "raw").write_bytes(bytes(100_000))
    file.create_dataset(name, (2, 2), dtype="i8", external=[(str(outside.parent / "raw"), 0, 100_000)])


def endless(file: Any, name: str, outside: Path) -> None:
    file.create_dataset(name, (10**10, 2), dtype="i8", chunks=(1024, 2))


def of_objects(file: Any, name: str, outside: Path) -> None:
    file.create_dataset(name, (2, 2), dtype=h5py.string_dtype())


def of_lists(file: Any, name: str, outside: Path) -> None:
    file.create_dataset(name, (2,), dtype=h5py.vlen_dtype(np.int64))


def of_fields(file: Any, name: str, outside: Path) -> None:
    file.create_dataset(name, (2,), dtype=np.dtype([("x", "i4"), ("y", "i4")]))


def empty(file: Any, name: str, outside: Path) -> None:
    file[name] = h5py.Empty("i8")


def group(file: Any, name: str, outside: Path) -> None:
    file.create_group(name)


def dangling(file: Any, name: str, outside: Path) -> None:
    file[name] = h5py.SoftLink("/nowhere")


def huge_chunks(file: Any, name: str, outside: Path) -> None:
    file.create_dataset(name, (2, 2), maxshape=(None, 2), dtype="i8", chunks=(2**26, 2), compression="gzip")


@pytest.mark.parametrize("name", ["coords", "imgs", "features"])
@pytest.mark.parametrize(
    "make",
    [
        external_link,
        soft_link_through_another_file,
        virtual,
        raw_data_outside,
        endless,
        of_objects,
        of_lists,
        of_fields,
        empty,
        group,
        dangling,
        huge_chunks,
    ],
)
def test_hostile_hdf5_is_refused_in_one_line(tmp_path: Path, name: str, make: Callable[[Any, str, Path], None]) -> None:
    outside = other_file(tmp_path / "outside.h5")
    path = tmp_path / "S.h5"
    with h5py.File(path, "w") as file:
        for other in {"coords", "imgs", "features"} - {name}:
            with h5py.File(outside, "r") as there:
                file[other] = there[other][()]
        file["imgs" if name != "imgs" else "coords"].attrs.update({"patch_level": 0, "patch_size": PX})
        make(file, name, outside)
    reads = {
        "coords": (read_packed, read_coordinates, read_vectors),
        "imgs": (read_packed,),
        "features": (read_vectors,),
    }
    for read in reads[name]:
        with pytest.raises(PatchImportError) as refusal:
            read(path)
        message = str(refusal.value)
        assert str(path) in message and "\n" not in message and len(message) < 500


def test_files_that_contradict_themselves(tmp_path: Path) -> None:
    def change(name: str, **datasets: Any) -> Path:
        path = tmp_path / name
        write_clam(path, [(0, 0), (64, 0)])
        with h5py.File(path, "a") as file:
            for dataset, data in datasets.items():
                attributes = dict(file[dataset].attrs)
                del file[dataset]
                file[dataset] = data
                file[dataset].attrs.update(attributes)
        return path

    for datasets, words in (
        ({"coords": np.zeros((3, 2), dtype=np.int32)}, "2 patches and 3 coordinates; they must match"),
        ({"coords": np.full((2, 2), np.nan)}, "some of its coordinates are no numbers"),
        ({"coords": np.full((2, 2), 2.0**40)}, "beyond any slide"),
        ({"imgs": np.zeros((2, PX, PX), dtype=np.uint8)}, "not uint8 of shape"),
        ({"imgs": np.zeros((2, PX, PX, 3), dtype=np.uint16)}, r"its patches are uint16"),
        ({"imgs": np.zeros((2, PX, PX + 1, 3), dtype=np.uint8)}, "not uint8 of shape"),
    ):
        with pytest.raises(PatchImportError, match=words):
            read_packed(change("S.h5", **datasets))
    write_clam(tmp_path / "two" / "a.h5", [(0, 0)], name="same")
    write_clam(tmp_path / "two" / "b.h5", [(0, 0)], name="same")
    with pytest.raises(PatchImportError, match="both about the slide 'same'"):
        find_packed(tmp_path / "two")


def test_patches_that_were_never_written_are_not_made_up(tmp_path: Path) -> None:
    """An interrupted run has made room for a patch; HDF5 reads it as black."""
    images = write_clam(tmp_path / "S.h5", [(0, 0), (64, 0)])
    with h5py.File(tmp_path / "S.h5", "a") as file:
        file["imgs"].resize(4, axis=0)
        file["imgs"][3] = images[0]
        file["coords"].resize(4, axis=0)
    packed = read_packed(tmp_path / "S.h5")
    with open_pixels(packed.path, packed.dataset) as read:
        assert np.array_equal(read(1), images[1]) and np.array_equal(read(3), images[0])
        with pytest.raises(OSError, match="never written"):
            read(2)
    with h5py.File(tmp_path / "T.h5", "w") as file:
        file.create_dataset("imgs", (2, PX, PX, 3), dtype=np.uint8)
    with open_pixels(tmp_path / "T.h5", "imgs") as read, pytest.raises(OSError, match="never written"):
        read(0)
