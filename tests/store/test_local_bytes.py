"""A store in a folder: the contract of every place, and what is a matter of files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wsicurate.errors import LinkedPathError, StoreWriteError
from wsicurate.store.bytestore import ByteStore
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.owners import this_process
from wsicurate.testing.byte_store_contract import ByteStoreContract


class TestLocalBytes(ByteStoreContract):
    def make_store(self, tmp_path: Path) -> ByteStore:
        return LocalBytes(tmp_path / "store")

    def test_it_can_be_pickled(self, store: ByteStore) -> None:
        store.put("a", [b"1"])
        assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


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
from wsicurate.store.local_bytes import LocalBytes
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
from wsicurate.store.local_bytes import LocalBytes
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


def test_folders_without_values_do_not_exist(tmp_path: Path) -> None:
    store = LocalBytes(tmp_path)
    store.put("work/a/value", [b"1"])
    (tmp_path / "work" / "b" / "deep").mkdir(parents=True)
    (tmp_path / "work" / ".partial-x").touch()
    assert store.children() == ["work"]
    assert store.children("work") == ["a"]
    store.delete("work/a/value")
    assert store.children() == []


@pytest.mark.parametrize("fenced", [False, True])
def test_nothing_is_written_or_deleted_through_a_link(tmp_path: Path, fenced: bool) -> None:
    outside, root = tmp_path / "outside", tmp_path / "store"
    (outside / "deeper").mkdir(parents=True)
    (outside / "kept").write_text("kept")
    (outside / ".partial-0-1-1-1").write_text("kept")
    plain = LocalBytes(root)
    plain.raise_fence("work/.fence-1")
    (root / "slides").mkdir()
    (root / "slides" / "a").symlink_to(outside)
    store = plain.fenced("work/.fence-1") if fenced else plain
    actions: list[Callable[[], object]] = [
        lambda: store.put("slides/a/kept", [b"lost"]),
        lambda: store.put("slides/a/deeper/new", [b"x"]),
        lambda: store.put_if_absent("slides/a/new", b"x"),
        lambda: store.delete("slides/a/kept"),
        lambda: store.raise_fence("slides/a/.fence-1"),
        lambda: store.writable_path("slides/a/new"),
    ]
    for action in actions:
        with pytest.raises(LinkedPathError, match=r"slides/a is a link, and nothing outside of"):
            action()
    store.remove_orphans("slides/a")
    store.remove_orphans()
    assert sorted(path.name for path in outside.rglob("*")) == [".partial-0-1-1-1", "deeper", "kept"]
    assert (outside / "kept").read_text() == "kept"
    assert plain.links() == ["slides/a"]
    assert list(plain.keys("slides")) == ["slides/a"]
    plain.delete("slides/a")  # the link itself
    assert not (root / "slides").exists()
    assert (outside / "kept").exists()


def test_links_to_files_are_replaced_and_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "store"
    outside.write_text("kept")
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).symlink_to(outside)
    store = LocalBytes(root)
    store.put("a", [b"new"])
    store.delete("b")
    assert not store.put_if_absent("c", b"new")
    assert outside.read_text() == "kept"
    assert store.get("a") == b"new"


@pytest.mark.parametrize("key", ["../a", "a/../../b", "/etc/x", "a/.."])
def test_keys_that_lead_out_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="leads out of the store"):
        LocalBytes(tmp_path / "store").put(key, [b""])


def test_a_pipe_is_no_value(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (LocalBytes(tmp_path).get, LocalBytes(tmp_path).size):
        with pytest.raises(KeyError):
            read("pipe")
