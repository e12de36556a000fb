"""From segments to a slide, on any byte store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from wsicurate.errors import CorruptStoreError, LeaseLostError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.codecs import JpegCodec, ZstdCodec
from wsicurate.store.commit import SlideContent, commit_slide, remove_slide
from wsicurate.store.committed import read_slide_record
from wsicurate.store.layout import segment_path, slide_key
from wsicurate.store.leases import EXPIRY_S, Holder, Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import SlideRecord, StoreRecord
from wsicurate.store.root import create_store
from wsicurate.store.segments import Segment, is_finished, read_segment, write_segment
from wsicurate.store.store import Store
from wsicurate.store.verify import verify_slide
from wsicurate.testing.memory_bytes import MemoryBytes

SIZE = 16
KEY = slide_key("a%2Fb.svs", 0.5)


def store_record(codec: str) -> StoreRecord:
    return StoreRecord(patch_px=SIZE, codec=codec, quality=90 if codec == "jpeg" else None, version="0", tiling={})


def slide_record() -> SlideRecord:
    return SlideRecord(
        slide_id="a%2Fb.svs",
        name="a/b.svs",
        mpp=0.5,
        patch_px=SIZE,
        source={"path": "/a/b.svs", "bytes": 1, "files": 1, "quick_hash": "00"},
        reader="fake",
        resolution={"mpp": 0.5, "origin": "metadata", "objective_power": None, "warnings": []},
        reading={
            "width": 160,
            "height": 160,
            "level": 0,
            "downsample": 1.0,
            "reduction": 1,
            "pitch": 16.0,
            "effective_mpp": 0.5,
            "upsampled": False,
        },
        tcga=None,
        patient=None,
        site=None,
        kind=None,
        label=None,
        settings={},
        fingerprint="f" * 64,
        counts={"lattice": 100, "below_min_tissue": 0},
        content_hash="",
    )


def patches(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def content(store: ByteStore, codec: str, count: int, cuts: list[list[int]], dropped: dict[int, str]) -> SlideContent:
    """A plan of ``count`` patches, its segments written: ``cuts`` says which patches each holds."""
    encoder = {"jpeg": JpegCodec(90), "zstd": ZstdCodec(), "none": None}[codec]
    images, keys = patches(count), []
    for number, rows in enumerate(cuts):
        kept = [row for row in rows if row not in dropped]
        data = [encoder.encode(images[row]) for row in kept] if encoder else []  # type: ignore[attr-defined]
        lost = [row for row in rows if row in dropped]
        segment = Segment(
            rows=np.array(kept, np.int32),
            scores=np.array([[row, -row] for row in kept], np.float32).reshape(-1, 2),
            lengths=np.array([len(part) for part in data] or [0] * len(kept), np.int64),
            dropped=np.array(lost, np.int32),
            dropped_reasons=tuple(dropped[row] for row in lost),
            messages={dropped[row]: f"patch {row}" for row in lost},
        )
        keys.append(segment_path(KEY, "f" * 64, number))
        write_segment(store, keys[-1], segment, data)
    return SlideContent(
        xy=np.array([[16 * (row % 10), 16 * (row // 10)] for row in range(count)], np.int32).reshape(-1, 2),
        tissue=np.linspace(0.3, 1, count).astype(np.float32),
        score_names=("up", "down"),
        unsampled_xy=np.array([[0, 144], [16, 144]], np.int32),
        segments=keys,
        overview=np.full((20, 20, 3), 200, np.uint8),
        overview_downsample=(8.0, 8.0),
        mask=np.eye(20, dtype=bool),
        mask_downsample=(8.0, 8.0),
    )


@pytest.mark.parametrize("codec", ["jpeg", "zstd", "none"])
def test_survivors_are_packed_in_the_plan_s_order(tmp_path: Path, codec: str) -> None:
    local = LocalBytes(tmp_path)
    create_store(local, store_record(codec))
    dropped = {3: "unreadable_region", 7: "not_scanned"}
    plan = content(local, codec, 12, [[0, 1, 5, 6, 10, 11], [2, 3, 4, 7, 8, 9]], dropped)
    record = commit_slide(local, KEY, slide_record(), plan, store_record(codec))
    kept = [row for row in range(12) if row not in dropped]
    assert record.counts["dropped"] == {"not_sampled": 2, "not_scanned": 1, "unreadable_region": 1}
    assert (record.counts["planned"], record.counts["stored"]) == (12, 10)
    assert record.messages == {"not_scanned": "patch 7", "unreadable_region": "patch 3"}
    opened = Store(tmp_path, source=lambda slide, xy: patches(12)[[y // 16 * 10 + x // 16 for x, y in xy]])
    slide = opened.slides[KEY]
    assert slide.xy.tolist() == plan.xy[kept].tolist()
    assert slide.quality[:, 1].tolist() == kept
    assert slide.quality_columns == ("tissue", "up", "down")
    assert np.allclose(slide.quality[:, 0], plan.tissue[kept])
    assert slide.dropped_xy.tolist() == [[48, 0], [112, 0], [0, 144], [16, 144]]
    assert slide.dropped_reason == ["unreadable_region", "not_scanned", "not_sampled", "not_sampled"]
    assert np.array_equal(slide.tissue, np.eye(20, dtype=bool))
    if codec == "zstd":
        assert np.array_equal(slide[:], patches(12)[kept])
    if codec != "none":
        theirs = zarr.open_group(tmp_path, mode="r")["slides"][KEY]["images"][...]  # type: ignore[index]
        assert np.array_equal(slide[:], theirs)
    assert local.children(".wsicurate") == []
    if codec != "none":
        found = verify_slide(local, KEY, store_record(codec), lambda slide, xy: patches(len(xy)))
        assert found.problems == ()
        assert found.patches == 10


def test_a_slide_does_not_depend_on_how_it_was_cut() -> None:
    trees = []
    for cuts in ([[*range(30)]], [[*range(0, 30, 2)], [*range(1, 30, 2)]], [[*range(20, 30)], [], [*range(20)]]):
        store = MemoryBytes()
        commit_slide(store, KEY, slide_record(), content(store, "jpeg", 30, cuts, {4: "x"}), store_record("jpeg"))
        trees.append({key: store.get(key) for key in store.keys()})
    assert trees[0] == trees[1] == trees[2]


def test_a_slide_without_patches_is_committed() -> None:
    store = MemoryBytes()
    record = commit_slide(store, KEY, slide_record(), content(store, "jpeg", 0, [], {}), store_record("jpeg"))
    assert record.counts["stored"] == 0
    assert verify_slide(store, KEY, store_record("jpeg"), lambda slide, xy: patches(0)).problems == ()


def test_the_mark_comes_last_and_only_with_the_lease() -> None:
    store = MemoryBytes()
    plan = content(store, "jpeg", 5, [[*range(5)]], {})
    with pytest.raises(LeaseLostError, match=r"a/b.svs was taken over by another run"):
        commit_slide(store, KEY, slide_record(), plan, store_record("jpeg"), still_ours=lambda: False)
    assert read_slide_record(store, KEY) is None
    commit_slide(store, KEY, slide_record(), plan, store_record("jpeg"))
    assert read_slide_record(store, KEY) is not None


@pytest.mark.parametrize("where", ["local", "memory"])
def test_an_overtaken_finaliser_changes_nothing(tmp_path: Path, where: str) -> None:
    """A stalls after it has read its segments; B takes over, finishes and gives back; A wakes up."""
    store: ByteStore = LocalBytes(tmp_path) if where == "local" else MemoryBytes()
    create_store(store, store_record("jpeg"))
    work = content(store, "jpeg", 12, [list(range(12))], {})
    clock = [0.0]
    first, second = (Leases(store, clock=lambda: clock[0], renewal_s=3600) for _ in range(2))
    lease = first.acquire(f".wsicurate/{KEY}")
    assert isinstance(lease, Lease)
    committed: list[dict[str, bytes]] = []

    def stalled() -> bool:
        if not committed:
            assert isinstance(second.acquire(f".wsicurate/{KEY}"), Holder)
            clock[0] += EXPIRY_S + 1
            taken = second.acquire(f".wsicurate/{KEY}")
            assert isinstance(taken, Lease)
            commit_slide(store.fenced(taken.fence), KEY, slide_record(), work, store_record("jpeg"))
            second.release(taken)
            committed.append({key: store.get(key) for key in store.keys()})
        return True  # it did not look, or looked just before

    with pytest.raises(LeaseLostError, match="another run took over"):
        commit_slide(store.fenced(lease.fence), KEY, slide_record(), work, store_record("jpeg"), still_ours=stalled)
    first.close()
    assert {key: store.get(key) for key in store.keys()} == committed[0]
    assert read_slide_record(store, KEY) is not None


def test_a_finaliser_whose_segments_were_taken_away_says_so() -> None:
    store = MemoryBytes()
    work = content(store, "jpeg", 4, [[0, 1], [2, 3]], {})
    store.delete(work.segments[1])
    with pytest.raises(LeaseLostError, match="another run works on this slide"):
        commit_slide(store, KEY, slide_record(), work, store_record("jpeg"))
    segment = read_segment(store, work.segments[0])
    store.delete(work.segments[0])
    with pytest.raises(LeaseLostError, match="another run works on this slide"):
        list(segment.patches(store, 0, 2))


def test_segments_that_do_not_hold_the_plan_are_refused() -> None:
    store = MemoryBytes()
    for cuts in ([[0, 1, 2]], [[0, 1, 2, 3], [3]]):
        plan = content(store, "jpeg", 4, cuts, {})
        with pytest.raises(CorruptStoreError, match="do not hold its 4 planned patches exactly once"):
            commit_slide(store, KEY, slide_record(), plan, store_record("jpeg"))
    assert read_slide_record(store, KEY) is None


def test_damaged_segments_are_noticed() -> None:
    store = MemoryBytes()
    plan = content(store, "jpeg", 6, [[*range(6)]], {2: "x"})
    (key,) = plan.segments
    sound = store.get(key)
    assert is_finished(store, key)
    assert not is_finished(store, "none")
    for damaged in (sound[:-1], sound[:20], b"", sound[:40] + b"\xff" + sound[41:]):
        store.put(key, [damaged])
        assert not is_finished(store, key)
        with pytest.raises(CorruptStoreError, match="damaged|cut short"):
            read_segment(store, key)
    broken = bytearray(sound)
    broken[-10] ^= 1  # within a patch: the segment cannot know, the patch's own checksum does
    store.put(key, [broken])
    assert is_finished(store, key)
    with pytest.raises(CorruptStoreError, match="checksum"):
        commit_slide(store, KEY, slide_record(), plan, store_record("jpeg"))
    store.delete(key)
    with pytest.raises(LeaseLostError, match="is gone: another run works on this slide"):
        commit_slide(store, KEY, slide_record(), plan, store_record("jpeg"))


def test_removing_takes_the_mark_first() -> None:
    removed: list[str] = []

    class Watched(MemoryBytes):
        def delete(self, key: str) -> None:
            removed.append(key)
            super().delete(key)

    store = Watched()
    commit_slide(store, KEY, slide_record(), content(store, "jpeg", 5, [[*range(5)]], {}), store_record("jpeg"))
    removed.clear()
    remove_slide(store, KEY)
    assert removed[0] == f"slides/{KEY}/zarr.json"
    assert list(store.keys()) == []
