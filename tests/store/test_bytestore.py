"""One contract for every place that a store can lie in."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wsicurate.errors import StoreWriteError
from wsicurate.store.bytestore import ByteStore, LocalBytes, MemoryBytes
from wsicurate.store.owners import this_process


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ByteStore:
    return LocalBytes(tmp_path / "store") if request.param == "local" else MemoryBytes()


def test_values_and_ranges(store: ByteStore) -> None:
    store.put("a/b/c", [b"01234", b"", b"56789"])
    assert store.get("a/b/c") == b"0123456789"
    assert store.get("a/b/c", 2, 3) == b"234"
    assert store.get("a/b/c", 8, 100) == b"89"
    assert store.get("a/b/c", -3) == b"789"
    assert store.get("a/b/c", -100, 2) == b"01"
    assert store.size("a/b/c") == 10


def test_values_are_replaced_whole(store: ByteStore) -> None:
    store.put("k", [b"a long first value"])
    store.put("k", [b"short"])
    assert store.get("k") == b"short"


def test_a_failing_write_leaves_the_old_value(store: ByteStore) -> None:
    store.put("k", [b"old"])

    def parts() -> object:
        yield b"new"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        store.put("k", parts())  # type: ignore[arg-type]
    assert store.get("k") == b"old"
    assert list(store.keys()) == ["k"]


def test_missing_values(store: ByteStore) -> None:
    store.put("folder/k", [b"x"])
    for key in ("none", "folder/none", "folder", "folder/k/deeper"):
        with pytest.raises(KeyError):
            store.get(key)
    with pytest.raises(KeyError):
        store.size("none")
    store.delete("none")


def test_only_the_first_of_many_claims(store: ByteStore) -> None:
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


def test_keys_and_children_are_sorted(store: ByteStore) -> None:
    for key in ("b/2", "b/1/x", "a", "b/10"):
        store.put(key, [b""])
    assert list(store.keys()) == ["a", "b/1/x", "b/10", "b/2"]
    assert list(store.keys("b")) == ["b/1/x", "b/10", "b/2"]
    assert store.children() == ["a", "b"]
    assert store.children("b") == ["1", "10", "2"]
    assert store.children("none") == []
    store.delete("b/1/x")
    assert store.children("b") == ["10", "2"]


def test_emptied_folders_go(tmp_path: Path) -> None:
    store = LocalBytes(tmp_path / "store")
    store.put("a/b/c", [b"x"])
    store.put("a/d", [b"x"])
    store.delete("a/b/c")
    assert not (tmp_path / "store" / "a" / "b").exists()
    assert (tmp_path / "store" / "a" / "d").exists()


def test_what_killed_writers_leave_is_invisible_and_removed(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from wsicurate.store.bytestore import LocalBytes
def parts():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)
LocalBytes(Path({str(tmp_path)!r})).put("folder/value", parts())
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    store = LocalBytes(tmp_path)
    assert len(store.partials()) == 1
    assert list(store.keys()) == []
    assert store.children("folder") == []
    mine = tmp_path / f".partial-{this_process().machine}-{os.getpid()}-{this_process().started}-0"
    mine.touch()
    foreign = tmp_path / ".partial-0123456789ab-1-1-0"
    foreign.touch()
    store.remove_orphans()
    assert {path for path, _ in store.partials()} == {mine, foreign}
    assert not (tmp_path / "folder").exists()


def test_folders_that_a_killed_process_emptied_go_too(tmp_path: Path) -> None:
    store = LocalBytes(tmp_path / "a")
    store.put("kept/value", [b"1"])
    for folder in ("work/slide", "slides/x/images/c/0"):
        (tmp_path / "a" / folder).mkdir(parents=True)
    store.remove_orphans()
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["kept", "value"]
    store.delete("kept/value")
    store.remove_orphans()
    assert (tmp_path / "a").exists()


def test_refusals_are_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreWriteError, match="a file stands"):
        LocalBytes(tmp_path / "file").put("x", [b""])
    with pytest.raises(StoreWriteError, match="a file stands"):
        LocalBytes(tmp_path / "file").put_if_absent("x", b"")


def test_a_file_size_limit_is_explained(tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from wsicurate.store.bytestore import LocalBytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = LocalBytes(Path({str(tmp_path)!r}))
store.put("small", [b"x" * 900])
store.put("large", [b"x" * 2000])
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (
        "large cannot be written: the file would be larger than this process may write: raise the limit" in ended.stderr
    )
    store = LocalBytes(tmp_path)
    assert list(store.keys()) == ["small"]
    assert store.partials() == []
