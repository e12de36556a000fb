"""`export`, as a user meets it: interrupted, resumed, and kept from destinations that are something else."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import tree
from wsicurate.cli import app
from wsicurate.config import EmbedConfig, ExportConfig, TileConfig
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    EmbeddingMissingError,
    LeaseLostError,
    ManifestError,
    NothingToDoError,
    StoreNotFoundError,
    StoreWriteError,
)
from wsicurate.formats.exports.webdataset import WebDataset
from wsicurate.opening import open_store
from wsicurate.steps.embed import embed
from wsicurate.steps.export import export
from wsicurate.steps.exporting.destination import MARK, Destination
from wsicurate.steps.tile import tile
from wsicurate.store import leases
from wsicurate.store.local_bytes import LocalBytes

SHARDS = ExportConfig(curation="half", shard_patches=8)


@pytest.fixture
def store(curated_store: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(curated_store, tmp_path / "patches.zarr"))


@pytest.fixture(scope="module")
def undisturbed(curated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes out: read it, never write to it."""
    path = tmp_path_factory.mktemp("undisturbed") / "out"
    export(curated_store, path, SHARDS)
    return path


def same_but_mark(one: Path, other: Path) -> None:
    """All bytes are equal, those of the mark apart, which names the store's folder."""
    first, second = ({name: data for name, data in tree(path).items() if name != MARK} for path in (one, other))
    assert first == second and first
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


def damage(store: Path, key: str) -> None:
    """Change a byte of each of a slide's patches, whichever of them an export reads."""
    path = max((store / "slides" / key / "images").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    for place in range(2_048, len(data) - 1_024, 2_048):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


class _Interrupted(Exception):
    """As a kill would."""


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the n-th shard fail with an error."""

    def at(number: int, error: BaseException) -> None:
        write = WebDataset.write

        def failing(self: WebDataset, piece: Any) -> Any:
            if piece.number == number:
                raise error
            return write(self, piece)

        monkeypatch.setattr(WebDataset, "write", failing)

    yield at


def test_run_again_there_is_nothing_to_do(curated_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = {name: (path / name).stat().st_mtime_ns for name in tree(path)}
    report = export(curated_store, path, SHARDS)
    assert (report.status, report.exit_status) == ("unchanged", 0)
    assert {name: (path / name).stat().st_mtime_ns for name in tree(path)} == before


def test_interrupted_it_goes_on_and_ends_in_the_same_bytes(
    curated_store: Path, undisturbed: Path, tmp_path: Path, stopping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = sorted(path.name for path in undisturbed.glob("*.tar"))
    with monkeypatch.context():
        stopping(len(shards) - 1, _Interrupted())
        with pytest.raises(_Interrupted):
            export(curated_store, tmp_path / "out", SHARDS)
        done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
        assert 0 < len(done) < len(shards) and not (tmp_path / "out" / MARK).exists()
        monkeypatch.undo()
    report = export(curated_store, tmp_path / "out", SHARDS)
    assert report.status == "exported"
    same_but_mark(tmp_path / "out", undisturbed)
    assert (tmp_path / "out" / MARK).read_bytes() == (undisturbed / MARK).read_bytes()
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in done.items())


def test_a_shard_that_is_lost_or_cut_is_written_again(curated_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (path / "patches-000000.tar").unlink()
    with (path / "patches-000001.tar").open("r+b") as file:
        file.truncate(1_000)
    assert export(curated_store, path, SHARDS).status == "exported"
    same_but_mark(path, undisturbed)


def test_overwrite_compares_every_byte(curated_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    with (path / "patches-000001.tar").open("r+b") as file:
        file.seek(2_000)
        file.write(b"x")
    export(curated_store, path, ExportConfig(curation="half", shard_patches=8, overwrite=True))
    same_but_mark(path, undisturbed)


def test_other_settings_are_refused_and_replace_with_overwrite(
    curated_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (path / "notes.txt").write_text("mine")
    before = tree(path)
    with pytest.raises(ConfigError, match="holds another export: shard_patches .*Redo it with --overwrite"):
        export(curated_store, path, ExportConfig(curation="half", shard_patches=9))
    assert tree(path) == before
    export(curated_store, path, ExportConfig(to="csv", curation="half", overwrite=True))
    assert sorted(tree(path)) == ["notes.txt", "patches.csv", MARK]


def test_a_folder_that_is_something_else_is_left_alone(curated_store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    for name, said in (("mine", "is there, and it is no export: it holds thesis.txt"), ("file", "is a file")):
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=said):
                export(curated_store, tmp_path / name, ExportConfig(curation="half", overwrite=overwrite))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    for path in (curated_store, curated_store / "out", curated_store.parent):
        with pytest.raises(ConfigError, match="lie in each other; choose another folder"):
            export(curated_store, path, SHARDS)


def test_no_file_is_written_or_removed_through_a_link(curated_store: Path, undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "train-00000.parquet").write_text("mine")
    path = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (path / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="link"):
        export(curated_store, path, ExportConfig(to="huggingface", curation="half", overwrite=True))
    assert (tmp_path / "elsewhere" / "train-00000.parquet").read_text() == "mine"


def test_a_damaged_slide_is_left_out_whole_and_comes_when_it_is_mended(
    store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    key = next(iter(open_store(store).slides))
    kept = Path(shutil.copytree(store / "slides" / key, tmp_path / "kept"))
    damage(store, key)
    report = export(store, tmp_path / "out", SHARDS)
    assert report.exit_status == 3 and list(report.left_out) == [key] and "checksum" in report.left_out[key]
    assert report.slides == 2
    again = export(store, tmp_path / "out", SHARDS)
    assert (again.status, again.exit_status) == ("unchanged", 3)
    shutil.rmtree(store / "slides" / key)
    shutil.copytree(kept, store / "slides" / key)
    assert export(store, tmp_path / "out", SHARDS).exit_status == 0
    same_but_mark(tmp_path / "out", undisturbed)


def test_no_slide_that_reads_back(store: Path, tmp_path: Path) -> None:
    for key in open_store(store).slides:
        damage(store, key)
    with pytest.raises(CorruptStoreError, match="none of the slides that were chosen reads back, such as"):
        export(store, tmp_path / "out", ExportConfig())


def test_a_store_that_was_tiled_again_since(store: Path, small_slides: Path, tmp_path: Path) -> None:
    tile([small_slides], store, TileConfig(workers=1, min_tissue=0.6, overwrite=True))
    with pytest.raises(ManifestError, match="curat"):
        export(store, tmp_path / "out", SHARDS)
    assert not (tmp_path / "out").exists()


def test_a_store_that_lost_a_slide(store: Path, tmp_path: Path) -> None:
    key = next(iter(open_store(store).slides))
    shutil.rmtree(store / "slides" / key)
    with pytest.raises(ManifestError, match=key.split(".")[0].replace("%2F", "(%2F|/)")):
        export(store, tmp_path / "out", SHARDS)


def test_a_store_that_is_not_there_and_conditions_that_choose_nothing(curated_store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        export(tmp_path / "no.zarr", tmp_path / "out", SHARDS)
    with pytest.raises(NothingToDoError, match="no patch of .* is chosen by row < 0"):
        export(curated_store, tmp_path / "out", ExportConfig(curation="half", where="row < 0"))
    with pytest.raises(ManifestError, match="quarter"):
        export(curated_store, tmp_path / "out", ExportConfig(curation="quarter"))
    assert not (tmp_path / "out").exists()


def test_new_vectors_are_another_export(store: Path, tmp_path: Path) -> None:
    config = ExportConfig(to="trident", curation="half", encoder="stain-texture")
    export(store, tmp_path / "out", config)
    embed(store, EmbedConfig(encoder="filter-bank", workers=1))
    assert export(store, tmp_path / "out", config).status == "unchanged"
    for path in (store / "slides").glob("*/embeddings/stain-texture"):
        shutil.rmtree(path)
    with pytest.raises(ConfigError, match="the store, or the curation, is not what it was made from"):
        export(store, tmp_path / "out", config)
    with pytest.raises(EmbeddingMissingError, match="have no embedding by 'stain-texture'"):
        export(store, tmp_path / "new", config)


def test_a_full_disk_is_said_and_what_is_finished_stays(
    curated_store: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, count = LocalBytes.put, [0]

    def full(self: LocalBytes, key: str, parts: Any, **how: Any) -> None:
        if key.endswith(".tar"):
            count[0] += 1
            if count[0] > 2:
                raise StoreWriteError(OSError(errno.ENOSPC, "No space left on device"), self.path(key))
        put(self, key, parts, **how)

    monkeypatch.setattr(LocalBytes, "put", full)
    with pytest.raises(StoreWriteError):
        export(curated_store, tmp_path / "out", SHARDS)
    monkeypatch.undo()
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2
    export(curated_store, tmp_path / "out", SHARDS)
    same_but_mark(tmp_path / "out", undisturbed)


def test_one_run_at_a_time(curated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWAL_S", 0.1)
    words = "is being written by .*; wait for it, or choose another folder"
    with Destination(tmp_path / "out").work(), pytest.raises(LeaseLostError, match=words):
        export(curated_store, tmp_path / "out", SHARDS)


def test_the_command(curated_store: Path, tmp_path: Path) -> None:
    given = ["export", str(curated_store), "-o", str(tmp_path / "out"), "--curation", "half", "--to", "csv"]
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 0 and "patches of 3 slides as csv: 1 files" in " ".join(ended.output.split())
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 0 and "up to date" in ended.output
    ended = CliRunner().invoke(app, [*given[:-1], "tfrecord"])
    assert ended.exit_code == 2 and "webdataset" in ended.output
