"""Our arrays, read by zarr-python; zarr-python's, read by us."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given, settings
from hypothesis import strategies as st

from wsicurate.errors import CorruptStoreError, StoreFormatError, StoreWriteError
from wsicurate.store.arrays import ArrayMetadata, read_array, read_metadata, write_array
from wsicurate.store.bytestore import Bytes
from wsicurate.store.codecs import ChunkCodec, JpegCodec, ZstdCodec
from wsicurate.store.items import ItemArray, write_items
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.shards import index_bytes, read_chunk, read_index, shard_parts
from wsicurate.store.zarr_codec import JpegCodec as ZarrJpegCodec
from wsicurate.testing.memory_bytes import MemoryBytes

CODECS: list[ChunkCodec] = [ZstdCodec(), JpegCodec(90)]


def patches(count: int, size: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:size, 0:size]
    waves = [np.sin((rows + 5 * number) / 9) + np.cos(columns / (4 + number % 7)) for number in range(count)]
    return np.clip(128 + 50 * np.stack([np.stack([wave] * 3, axis=2) for wave in waves]), 0, 255).astype(np.uint8)


def sharded(count: int, size: int, codec: ChunkCodec, shard: int) -> ArrayMetadata:
    return ArrayMetadata(
        shape=(count, size, size, 3), dtype="uint8", chunk=(1, size, size, 3), shard=(shard, size, size, 3), codec=codec
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16", "bool", "int64"])
@pytest.mark.parametrize("shape", [(5, 2), (0, 2), (7,), (3, 4, 3), (1, 1)])
def test_small_arrays_are_zarr_s(tmp_path: Path, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    values = (rng.random(shape) * 100).astype(dtype)
    names = [f"axis{number}" for number in range(len(shape))]
    store = LocalBytes(tmp_path)
    write_array(store, "a", values, dimension_names=names, attributes={"columns": ["é", "b"]})
    assert np.array_equal(read_array(store, "a"), values)
    theirs = zarr.open_array(tmp_path / "a", mode="r")
    assert theirs.dtype == values.dtype
    assert np.array_equal(theirs[...], values)
    assert dict(theirs.attrs) == {"columns": ["é", "b"]}
    assert list(theirs.metadata.dimension_names) == names


def test_arrays_of_several_chunks_that_zarr_wrote(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.random((10, 7)).astype(np.float32)
    theirs = zarr.create_array(
        tmp_path / "a",
        data=values,
        chunks=(4, 3),
        compressors=[zarr.codecs.ZstdCodec(level=5), zarr.codecs.Crc32cCodec()],
    )
    assert np.array_equal(theirs[...], values)
    assert np.array_equal(read_array(LocalBytes(tmp_path), "a"), values)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 19])
def test_sharded_items_are_zarr_s(tmp_path: Path, codec: ChunkCodec, count: int) -> None:
    store, images = LocalBytes(tmp_path), patches(max(count, 1))[:count]
    write_items(store, "images", [codec.encode(image) for image in images], sharded(count, 32, codec, shard=8))
    ours = ItemArray.open(store, "images")
    theirs = zarr.open_array(tmp_path / "images", mode="r")
    assert theirs.shape == (count, 32, 32, 3)
    assert len(ours) == count
    assert ours.shards == -(-count // 8)
    whole = theirs[...]
    for item in range(count):
        assert np.array_equal(ours[item], whole[item])
        assert np.abs(ours[item].astype(int) - images[item]).mean() < 2


@pytest.mark.parametrize("lossy", [False, True])
def test_shards_that_zarr_wrote_are_ours(tmp_path: Path, lossy: bool) -> None:
    images = patches(11)
    keywords: dict[str, Any] = {"compressors": [zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec()]}
    if lossy:
        keywords = {"serializer": ZarrJpegCodec(quality=90), "compressors": [zarr.codecs.Crc32cCodec()]}
    zarr.create_array(tmp_path / "images", data=images, chunks=(1, 32, 32, 3), shards=(4, 32, 32, 3), **keywords)
    ours = ItemArray.open(LocalBytes(tmp_path), "images")
    theirs = zarr.open_array(tmp_path / "images", mode="r")[...]
    assert np.array_equal(np.stack([ours[item] for item in range(11)]), theirs)
    if lossy:
        # The same bytes, too: zarr-python and we encode alike.
        assert ours.encoded(3) == JpegCodec(90).encode(images[3])
    else:
        assert np.array_equal(theirs, images)


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=60), max_size=9), st.integers(9, 20))
def test_a_shard_gives_back_its_chunks(chunks: list[bytes], slots: int) -> None:
    store = MemoryBytes()
    store.put("s", shard_parts(chunks, slots))
    assert store.size("s") == sum(map(len, chunks)) + index_bytes(slots)
    index = read_index(store, "s", slots)
    assert [read_chunk(store, "s", index, slot) for slot in range(len(chunks))] == chunks
    if len(chunks) < slots:
        with pytest.raises(CorruptStoreError, match="is missing"):
            read_chunk(store, "s", index, slots - 1)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
def test_no_flipped_bit_goes_unnoticed(codec: ChunkCodec, rng: np.random.Generator) -> None:
    images = patches(3)
    store = MemoryBytes()
    write_items(store, "images", [codec.encode(image) for image in images], sharded(3, 32, codec, shard=4))
    (key,) = [key for key in store.keys() if "/c/" in key]
    sound = store.get(key)
    used = len(sound) - index_bytes(4)
    for position in [*rng.integers(0, used, 60).tolist(), *range(used, len(sound), 7)]:
        damaged = bytearray(sound)
        damaged[position] ^= 1 << int(rng.integers(8))
        store.put(key, [damaged])
        array = ItemArray.open(store, "images")
        with pytest.raises(CorruptStoreError, match="images"):
            for item in range(3):
                _ = array[item]


class FullAfterTwo(MemoryBytes):
    """A store that takes two shards."""

    def put(self, key: str, parts: Iterable[Bytes], *, outlasts_power: bool = True) -> None:
        if "/c/" in key and int(key.split("/")[2]) >= 2:
            raise StoreWriteError(f"{key} cannot be written: the disk is full")
        super().put(key, parts, outlasts_power=outlasts_power)


def test_a_disk_that_fills_stops_the_writing_and_leaves_no_array() -> None:
    store, codec, made = FullAfterTwo(), ZstdCodec(), 0

    def items() -> Iterator[bytes]:
        nonlocal made
        for image in patches(40, 8):
            made += 1
            yield codec.encode(image)

    with pytest.raises(StoreWriteError, match=r"images/c/2/0/0/0 cannot be written: the disk is full"):
        write_items(store, "images", items(), sharded(40, 8, codec, shard=2))
    assert list(store.keys()) == ["images/c/0/0/0/0", "images/c/1/0/0/0"]
    assert made <= 10  # the shard that failed, two that were being written, and the next


def test_missing_parts_are_named(tmp_path: Path) -> None:
    store = LocalBytes(tmp_path)
    codec = ZstdCodec()
    write_items(store, "images", [codec.encode(image) for image in patches(3)], sharded(3, 32, codec, shard=2))
    write_array(store, "xy", np.zeros((3, 2), np.int32), dimension_names=("a", "b"))
    store.delete("images/c/1/0/0/0")
    store.delete("xy/c/0/0")
    with pytest.raises(CorruptStoreError, match=r"images/c/1/0/0/0 is missing"):
        _ = ItemArray.open(store, "images")[2]
    with pytest.raises(CorruptStoreError, match=r"xy/c/0/0 is missing"):
        read_array(store, "xy")
    with pytest.raises(CorruptStoreError, match=r"the array none has no zarr.json"):
        read_metadata(store, "none")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "the metadata of the array a cannot be used"),
        (b'{"zarr_format": 3}', "chunk_grid"),
        (b"[]", "the metadata of the array a cannot be used"),
    ],
)
def test_metadata_that_cannot_be_used(document: bytes, message: str) -> None:
    store = MemoryBytes()
    store.put("a/zarr.json", [document])
    with pytest.raises(StoreFormatError, match=message):
        read_metadata(store, "a")


def test_foreign_codecs_are_refused_by_name(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", data=np.zeros(4), compressors=[zarr.codecs.GzipCodec()])
    with pytest.raises(StoreFormatError, match=r"\['bytes', 'gzip'\] are not among those"):
        read_metadata(LocalBytes(tmp_path), "a")


def test_the_codec_refuses_arrays_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stores uint8 images"):
        zarr.create_array(
            tmp_path / "a",
            shape=(4, 8, 8),
            chunks=(1, 8, 8),
            dtype="float32",
            serializer=ZarrJpegCodec(),
            compressors=None,
        )


def test_an_image_of_another_size_is_corrupt() -> None:
    codec = JpegCodec(90)
    encoded = codec.encode(patches(1)[0])
    with pytest.raises(CorruptStoreError, match=r"does not decode as JPEG of \(16, 16, 3\)"):
        codec.decode(encoded, (1, 16, 16, 3), np.dtype(np.uint8))
    with pytest.raises(CorruptStoreError, match=r"holds an image of \(32, 32, 3\), not \(48, 48, 3\)"):
        codec.decode_into(encoded, np.empty((48, 48, 3), np.uint8))


@pytest.mark.parametrize("codec", [JpegCodec(90), ZstdCodec()], ids=["jpeg", "zstd"])
def test_values_are_decoded_into_memory_that_is_there(codec: JpegCodec | ZstdCodec) -> None:
    (image,) = patches(1)
    batch = np.zeros((3, *image.shape), np.uint8)
    codec.decode_into(codec.encode(image), batch[1])
    np.testing.assert_array_equal(batch[1], codec.decode(codec.encode(image), image.shape, image.dtype))
    assert not batch[[0, 2]].any()


def test_an_array_of_another_size_is_corrupt() -> None:
    with pytest.raises(CorruptStoreError, match="bytes, not"):
        ZstdCodec().decode(ZstdCodec().encode(np.zeros(4, np.uint8)), (5,), np.dtype(np.uint8))
