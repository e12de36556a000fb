"""What holds for every place that a store can lie in: run by ours, and by anyone's under pytest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wsicurate.errors import LeaseLostError
from wsicurate.store.bytestore import ByteStore


class ByteStoreContract:
    """The contract of `ByteStore`, as tests. A package runs it on a place of its own::

    class TestMine(ByteStoreContract):
        def make_store(self, tmp_path: Path) -> ByteStore:
            return MyBytes("memory://test")
    """

    def make_store(self, tmp_path: Path) -> ByteStore:
        """An empty store; ``tmp_path`` is a folder that may be used for it."""
        raise NotImplementedError(f"{type(self).__name__} must define make_store(tmp_path)")

    @pytest.fixture
    def store(self, tmp_path: Path) -> ByteStore:
        """What `make_store` makes, for one test."""
        return self.make_store(tmp_path)

    def test_values_and_ranges(self, store: ByteStore) -> None:
        """A range may reach over either end."""
        store.put("a/b/c", [b"01234", b"", bytearray(b"567"), memoryview(b"89")])
        assert store.get("a/b/c") == b"0123456789"
        assert store.get("a/b/c", 2, 3) == b"234"
        assert store.get("a/b/c", 8, 100) == b"89"
        assert store.get("a/b/c", 100) == b""
        assert store.get("a/b/c", 3, 0) == b""
        assert store.get("a/b/c", -3) == b"789"
        assert store.get("a/b/c", -3, 2) == b"78"
        assert store.get("a/b/c", -100, 2) == b"01"
        assert store.size("a/b/c") == 10

    def test_a_value_may_be_empty(self, store: ByteStore) -> None:
        """It is there, and has no bytes."""
        store.put("a/empty", [], outlasts_power=False)
        assert store.get("a/empty") == b""
        assert store.size("a/empty") == 0
        assert list(store.keys()) == ["a/empty"]

    def test_values_are_replaced_whole(self, store: ByteStore) -> None:
        """Nothing of a longer value stays."""
        store.put("k", [b"a long first value"])
        store.put("k", [b"short"])
        assert store.get("k") == b"short"

    def test_a_reader_sees_the_old_value_until_the_new_one_is_whole(self, store: ByteStore) -> None:
        """Never a piece of one, nor none."""
        store.put("k", [b"the old value"])
        seen: list[bytes] = []

        def parts() -> Iterator[bytes]:
            yield b"the new "
            seen.append(store.get("k"))
            yield b"one"

        store.put("k", parts())
        assert seen == [b"the old value"]
        assert store.get("k") == b"the new one"

    def test_a_failing_write_leaves_the_old_value(self, store: ByteStore) -> None:
        """And nothing of its own."""
        store.put("k", [b"old"])

        def parts() -> Iterator[bytes]:
            yield b"new"
            raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            store.put("k", parts())
        assert store.get("k") == b"old"
        assert list(store.keys()) == ["k"]

    def test_missing_values(self, store: ByteStore) -> None:
        """A folder of values is no value, and nothing lies below a value."""
        store.put("folder/k", [b"x"])
        for key in ("none", "folder/none", "folder", "folder/k/deeper"):
            with pytest.raises(KeyError):
                store.get(key)
            with pytest.raises(KeyError):
                store.size(key)
        store.delete("none")
        store.delete("folder/k")
        with pytest.raises(KeyError):
            store.get("folder/k")

    def test_only_the_first_of_many_claims(self, store: ByteStore) -> None:
        """Leases rest on this."""
        won: list[int] = []
        barrier = threading.Barrier(8)

        def claim(number: int) -> None:
            barrier.wait()
            if store.put_if_absent("lease", str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get("lease") == str(won[0]).encode()
        assert not store.put_if_absent("lease", b"late")
        store.delete("lease")
        assert store.put_if_absent("lease", b"anew")

    def test_keys_and_children_are_sorted(self, store: ByteStore) -> None:
        """As text, whatever the order in which they were written."""
        for key in ("b/2", "b/1/x", "a", "b/10", "bc"):
            store.put(key, [b""])
        assert list(store.keys()) == ["a", "b/1/x", "b/10", "b/2", "bc"]
        assert list(store.keys("b")) == ["b/1/x", "b/10", "b/2"]
        assert store.children() == ["a", "b", "bc"]
        assert store.children("b") == ["1", "10", "2"]
        assert store.children("none") == []
        assert list(store.keys("none")) == []

    def test_a_folder_without_values_does_not_exist(self, store: ByteStore) -> None:
        """It goes with its last value."""
        store.put("b/1/x", [b""])
        store.put("b/2", [b""])
        store.delete("b/1/x")
        assert store.children("b") == ["2"]
        store.delete("b/2")
        assert store.children() == []

    def test_orphans_are_no_values(self, store: ByteStore) -> None:
        """Taking them away leaves every value."""
        for key in ("a", "b/1"):
            store.put(key, [b"x"])
        store.remove_orphans("b")
        store.remove_orphans()
        assert list(store.keys()) == ["a", "b/1"]

    def test_a_lowered_fence_keeps_its_writer_out(self, store: ByteStore) -> None:
        """And no one else."""
        store.put("slide/mark", [b"theirs"])
        store.raise_fence("work/.fence-1")
        store.raise_fence("work/.fence-2")
        assert store.fences("work") == ["work/.fence-1", "work/.fence-2"]
        assert store.fences("slide") == []
        assert store.children() == ["slide"]
        held, other = store.fenced("work/.fence-1"), store.fenced("work/.fence-2")
        held.put("slide/a", [b"1"])
        held.delete("slide/mark")
        held.delete("slide/mark")
        assert list(store.keys()) == ["slide/a"]
        store.lower_fence("work/.fence-1")
        store.lower_fence("work/.fence-1")
        actions: list[Callable[[], object]] = [
            lambda: held.put("slide/a", [b"2"]),
            lambda: held.delete("slide/a"),
            lambda: held.delete("none"),
        ]
        for action in actions:
            with pytest.raises(LeaseLostError, match="another run took over work"):
                action()
        assert held.get("slide/a") == b"1"
        assert store.fences() == ["work/.fence-2"]
        other.put("slide/a", [b"3"])
        assert store.get("slide/a") == b"3"

    def test_a_fence_that_falls_while_its_writer_writes_keeps_it_out(self, store: ByteStore) -> None:
        """Even if it had begun before, and slept."""
        store.put("slide/a", [b"old"])
        store.raise_fence("work/.fence-1")

        def parts() -> Iterator[bytes]:
            yield b"new"
            store.lower_fence("work/.fence-1")
            store.put("slide/a", [b"the successor's"])

        with pytest.raises(LeaseLostError):
            store.fenced("work/.fence-1").put("slide/a", parts())
        assert store.get("slide/a") == b"the successor's"
        assert store.fences() == []
