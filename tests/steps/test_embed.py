from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import tree
from tests.embedding.small import write_small
from wsicurate.config import EmbedConfig, TileConfig
from wsicurate.engine.progress import Progress
from wsicurate.errors import (
    ConfigError,
    CorruptStoreError,
    EncoderError,
    EncoderMemoryError,
    EncoderUnavailableError,
    NothingToDoError,
    StoreNotFoundError,
    StoreSettingsError,
    StoreWriteError,
)
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.embed import embed
from wsicurate.steps.info import info
from wsicurate.steps.tile import tile
from wsicurate.store.embeddings import read_embedding_record
from wsicurate.store.layout import work_path
from wsicurate.store.leases import Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.records import StoreRecord
from wsicurate.store.root import create_store


@pytest.fixture(scope="module")
def tiled(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiled") / "a.zarr"
    tile(small_slides, path, TileConfig(max_patches_per_slide=12, workers=1, patch_px=128))
    return path


@pytest.fixture
def store(tiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiled, tmp_path / "a.zarr"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EmbedConfig:
    """A network of two blocks, in a file."""
    return EmbedConfig(encoder=str(write_small(tmp_path_factory.mktemp("encoder"))), device="cpu")


def described(name: str, folder: Path) -> EmbedConfig:
    """A descriptor of the tests."""
    path = folder / f"{name}.toml"
    path.write_text(f'[{name.lower()}]\nsource = "descriptor:tests.embedding.double:{name}"\nlicence = "CC0-1.0"\n')
    return EmbedConfig(encoder=str(path), workers=1, trust_code=True)


def vectors_of(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(store / "slides").items() if "/embeddings/" in name}


def test_vectors_are_those_of_the_network(store: Path, config: EmbedConfig) -> None:
    from wsicurate.embedding.encoders import load_encoder
    from wsicurate.embedding.networks.inference import Inference

    report = embed(store, replace(config, precision="fp32", batch_size=5))
    assert report.exit_status == 0 and report.count("embedded") == 3
    assert report.forward_share is not None and 0 < report.forward_share <= 1
    inference = Inference(load_encoder(config.encoder), device="cpu", precision="fp32")
    opened = open_store(store)
    wanted = np.concatenate([inference(slide[:]) for slide in opened.slides.values()])
    np.testing.assert_allclose(opened.vectors("small"), wanted, rtol=2e-3, atol=2e-3)
    record = next(iter(opened.slides.values())).embedding_record("small")
    assert (record.licence, record.terms, record.pooling, record.mpp) == ("CC0-1.0", "Do as you like.", "class", 0.5)
    assert record.settings == {"device": "cpu", "precision": "fp32", "batch_size": 5, "compiled": False}
    assert record.preprocessing["input_px"] == 64
    assert check(store, workers=1).exit_status == 0
    run = json.loads(sorted((store / "runs").glob("2*.json"))[-1].read_text())
    assert run["verb"] == "embed" and run["encoder"]["licence"] == "CC0-1.0"
    assert {slide["status"] for slide in run["slides"]} == {"embedded"}


def test_what_is_done_is_not_done_again_and_bytes_are_the_same(store: Path, config: EmbedConfig) -> None:
    embed(store, replace(config, workers=1))
    first = vectors_of(store)
    stamps = {path: path.stat().st_mtime_ns for path in store.rglob("embeddings/*/c/*/*")}
    again = embed(store, replace(config, workers=3))
    assert again.count("unchanged") == 3 and again.forward_share is None
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    for path in store.rglob("embeddings"):
        shutil.rmtree(path)
    embed(store, replace(config, workers=3))
    assert vectors_of(store) == first
    embed(store, replace(config, overwrite=True))
    assert vectors_of(store) == first


def test_a_store_of_coordinates_alone_gives_vectors_as_well(
    small_slides: Path, tmp_path: Path, config: EmbedConfig
) -> None:
    settings = TileConfig(max_patches_per_slide=6, workers=1, patch_px=128)
    for codec in ("zstd", "none"):
        tile(small_slides, tmp_path / codec, replace(settings, codec=codec))  # type: ignore[arg-type]
        embed(tmp_path / codec, config)
        embed(tmp_path / codec, described("MeanColour", tmp_path))
    for name in ("small", "meancolour"):
        np.testing.assert_array_equal(
            open_store(tmp_path / "none").vectors(name), open_store(tmp_path / "zstd").vectors(name)
        )


def test_descriptors_run_in_workers(store: Path, tmp_path: Path) -> None:
    config = described("MeanColour", tmp_path)
    report = embed(store, config)
    assert report.forward_share is None
    opened = open_store(store)
    np.testing.assert_array_equal(opened.vectors("meancolour"), opened[:].mean(axis=(1, 2)).astype(np.float16))
    first = vectors_of(store)
    embed(store, replace(config, workers=2, overwrite=True))
    for path in store.rglob("embeddings"):
        shutil.rmtree(path)
    embed(store, replace(config, workers=2))
    assert vectors_of(store) == first


def test_the_descriptors_of_wsicurate(store: Path) -> None:
    for name in ("stain-texture", "filter-bank"):
        report = embed(store, EmbedConfig(encoder=name, workers=1))
        assert report.exit_status == 0
        record = next(iter(open_store(store).slides.values())).embedding_record(name)
        assert record.preprocessing["descriptor"] == name
    assert open_store(store).encoders == ("filter-bank", "stain-texture")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp32"}, "precision is 'bf16' there and 'fp32' now"),
        ({"batch_size": 3}, "batch_size is 16 there and 3 now"),
        ({"pooling": "mean"}, "pooling is 'class' there and 'mean' now"),
        ({"input_px": 96}, "'input_px': 64.*'input_px': 96"),
    ],
)
def test_other_settings_are_refused(store: Path, config: EmbedConfig, changes: dict[str, Any], message: str) -> None:
    embed(store, replace(config, precision="bf16"))
    before = vectors_of(store)
    other = replace(config, **({"precision": "bf16"} | changes))
    with pytest.raises(StoreSettingsError, match=f"3 slides .*{message}.*--overwrite"):
        embed(store, other)
    assert vectors_of(store) == before
    assert embed(store, replace(other, name="other")).count("embedded") == 3
    assert embed(store, replace(other, overwrite=True)).count("embedded") == 3


def test_changed_weights_are_noticed(store: Path, tmp_path: Path) -> None:
    encoder = str(write_small(tmp_path / "encoder"))
    config = EmbedConfig(encoder=encoder, device="cpu")
    embed(store, config)
    write_small(tmp_path / "encoder", seed=1)
    with pytest.raises(StoreSettingsError, match="weights_hash is '[0-9a-f]{64}' there and '[0-9a-f]{64}' now"):
        embed(store, config)


def test_the_batch_size_of_a_store_is_kept(store: Path, config: EmbedConfig) -> None:
    embed(store, replace(config, batch_size=4))
    shutil.rmtree(next(iter(store.rglob("embeddings"))))
    report = embed(store, config)
    assert (report.count("unchanged"), report.count("embedded")) == (2, 1)
    assert report.settings["batch_size"] == 4


def test_vectors_of_patches_that_are_gone_are_replaced(store: Path, config: EmbedConfig) -> None:
    embed(store, config)
    key, slide = next(iter(open_store(store).slides.items()))
    mark = store / "slides" / key / "embeddings" / "small" / "zarr.json"
    mark.write_text(mark.read_text().replace(slide.record.content_hash, "0" * 32))
    assert embed(store, config).count("embedded") == 1
    assert len(open_store(store).vectors("small"))


@pytest.mark.parametrize("damage", ["a flipped bit", "other vectors", "attributes cut short", "a chunk gone"])
def test_vectors_that_cannot_be_read_back_are_made_anew(store: Path, config: EmbedConfig, damage: str) -> None:
    embed(store, config)
    before = vectors_of(store)
    keys = list(open_store(store).slides)
    folders = [store / "slides" / key / "embeddings" / "small" for key in keys]
    chunk, mark = folders[0] / "c" / "0" / "0", folders[0] / "zarr.json"
    if damage == "a flipped bit":
        data = bytearray(chunk.read_bytes())
        data[20] ^= 1
        chunk.write_bytes(data)
    elif damage == "other vectors":
        shutil.copy(folders[1] / "c" / "0" / "0", chunk)
    elif damage == "attributes cut short":
        mark.write_bytes(mark.read_bytes()[:-40])
    else:
        chunk.unlink()
    (problem, *_) = check(store, workers=1).problems
    assert problem.where.startswith(f"slides/{keys[0]}/embeddings/small")
    assert "embed it again" in problem.what
    report = embed(store, config)
    assert sorted(outcome.status for outcome in report.outcomes) == ["embedded", "unchanged", "unchanged"]
    assert vectors_of(store) == before
    assert check(store, workers=1).problems == []


def test_a_damaged_slide_stops_nobody_and_is_named(store: Path, config: EmbedConfig) -> None:
    key = next(iter(open_store(store).slides))
    mark = store / "slides" / key / "zarr.json"
    mark.write_bytes(mark.read_bytes()[:-9])
    with pytest.raises(CorruptStoreError, match="skip_damaged=True"):
        open_store(store)
    assert list(open_store(store, skip_damaged=True).damaged) == [key]
    report = embed(store, config)
    assert (report.count("embedded"), report.exit_status) == (2, 3)
    (failed,) = (outcome for outcome in report.outcomes if outcome.status == "failed")
    assert (failed.slide_id, failed.reason) == (key, "corrupt")
    assert "tile or import it again with --overwrite" in failed.message
    found = info(store)
    assert len(found.slides) == 2
    assert list(found.damaged) == [key]


def test_a_slide_with_one_empty_vector_costs_itself_alone(store: Path, tmp_path: Path) -> None:
    """Whether its block comes first or later."""
    report = embed(store, described("SometimesZero", tmp_path))
    assert report.count("embedded") == 2
    (failed,) = (outcome for outcome in report.outcomes if outcome.status == "failed")
    assert failed.slide_id == report.outcomes[0].slide_id
    assert "returns a vector of zeros" in failed.message


def test_a_complete_store_that_is_read_only_is_fine(
    store: Path, config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(store, config)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(LocalBytes, "_write_partial", refuse)
    report = embed(store, config)
    assert (report.count("unchanged"), report.exit_status) == (3, 0)
    with pytest.raises(StoreWriteError, match="read-only"):
        embed(store, replace(config, name="other"))


def test_vectors_that_mean_nothing_stop_the_run(store: Path, tmp_path: Path) -> None:
    for name, message in (("Broken", "not finite"), ("Constant", "the same vector for patches that differ")):
        with pytest.raises(EncoderError, match=f"{message}.*nothing was kept"):
            embed(store, described(name, tmp_path))
    assert open_store(store).encoders == ()
    assert not list((store / ".wsicurate").rglob("lease-*"))
    run = json.loads(sorted((store / "runs").glob("2*.json"))[-1].read_text())
    assert run["ended"].startswith("EncoderError")


def test_a_slide_that_cannot_be_read_stops_nobody(store: Path, config: EmbedConfig) -> None:
    key = next(iter(open_store(store).slides))
    shard = next(iter((store / "slides" / key / "images" / "c").rglob("0")))
    while shard.is_dir():
        shard = next(iter(shard.iterdir()))
    data = bytearray(shard.read_bytes())
    data[100] ^= 255
    shard.write_bytes(bytes(data))
    report = embed(store, config)
    assert report.exit_status == 3
    assert [outcome.reason for outcome in report.outcomes if outcome.status == "failed"] == ["corrupt"]
    assert report.count("embedded") == 2
    assert not list((store / ".wsicurate").rglob("lease-*"))


def test_batches_are_halved_when_memory_runs_out(
    store: Path, config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsicurate.embedding.networks.inference import Inference

    embed(store, replace(config, batch_size=2, name="two"))
    start = Inference.start

    def small_memory(self: Inference, images: np.ndarray, batch_size: int | None = None) -> Any:
        if len(images) > 3:
            raise EncoderMemoryError("too many")
        return start(self, images, batch_size)

    monkeypatch.setattr(Inference, "start", small_memory)
    notes: list[str] = []
    report = embed(store, replace(config, batch_size=8), progress=lambda news: notes.append(news.note))
    assert report.exit_status == 0 and report.settings["batch_size"] == 2
    assert "a batch of 8 patches does not fit into memory; going on with 4" in notes
    assert "a batch of 4 patches does not fit into memory; going on with 2" in notes
    opened = open_store(store)
    np.testing.assert_array_equal(opened.vectors("small"), opened.vectors("two"))
    assert next(iter(opened.slides.values())).embedding_record("small").settings["batch_size"] == 2
    monkeypatch.setattr(Inference, "start", lambda *arguments: (_ for _ in ()).throw(EncoderMemoryError("none fits")))
    with pytest.raises(EncoderMemoryError, match="none fits"):
        embed(store, replace(config, batch_size=1, name="none"))


def test_warnings_about_resolution_and_size(
    store: Path, config: EmbedConfig, small_slides: Path, tmp_path: Path
) -> None:
    report = embed(store, config)
    assert report.warnings == ["patches of 128 px are resized to the 64 px that small takes: it sees 1 µm/px"]
    tile(small_slides, tmp_path / "coarse", TileConfig(mpp=1.0, patch_px=64, max_patches_per_slide=2, workers=1))
    report = embed(tmp_path / "coarse", config)
    assert report.warnings == ["the store's patches have 1 µm/px, small was made for 0.5 µm/px"]


def test_another_run_at_work_is_waited_for(store: Path, config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    key = next(iter(open_store(store).slides))
    bytes_ = LocalBytes(store)
    others = Leases(bytes_)
    lease = others.acquire(work_path(key))
    notes: list[str] = []

    def listen(news: Progress) -> None:
        notes.append(news.note)
        if news.note.startswith("waiting for 1 slides"):
            others.release(lease)  # type: ignore[arg-type]

    report = embed(store, config, progress=listen)
    others.close()
    assert report.count("embedded") == 3
    assert any("is held by" in note for note in notes)
    assert any(note.startswith("waiting for 1 slides") for note in notes)


def command(store: Path, config: EmbedConfig) -> list[str]:
    return [sys.executable, "-m", "wsicurate", "embed", str(store), "--encoder", config.encoder, "--batch-size", "2"]


def test_an_interruption_gives_leases_back_and_keeps_what_is_done(store: Path, config: EmbedConfig) -> None:
    def interrupt(news: Progress) -> None:
        if news.outcome is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(store, config, progress=interrupt)
    assert not list((store / ".wsicurate").rglob("lease-*"))
    report = embed(store, config)
    assert (report.count("unchanged"), report.count("embedded")) == (1, 2)


@pytest.mark.slow
def test_interrupted_and_killed_runs_are_finished_by_the_next(store: Path, config: EmbedConfig, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(store, tmp_path / "whole.zarr"))
    embed(whole, replace(config, batch_size=2))
    wanted = vectors_of(whole)
    key = sorted(open_store(store).slides)[1]
    for number in (signal.SIGINT, signal.SIGKILL):
        run = subprocess.Popen(command(store, config), stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        for line in run.stderr:
            if "[1/3]" in line:
                run.send_signal(number)
                break
        run.communicate(timeout=60)
        if number == signal.SIGINT and run.returncode != 0:  # it may have been done before the signal came
            assert run.returncode == 130
            assert not list((store / ".wsicurate").rglob("lease-*"))
    # What a killed run leaves at worst: a lease, and chunks without their mark.
    mark = store / "slides" / key / "embeddings" / "small" / "zarr.json"
    if mark.exists():
        mark.unlink()
    folder = store / work_path(key)
    folder.mkdir(parents=True, exist_ok=True)
    dead = {"token": "x", "beat": 0, "owner": json.loads(json.dumps(_dead_owner()))}
    (folder / "lease-000007").write_text(json.dumps(dead))
    assert embed(store, replace(config, batch_size=2)).exit_status == 0
    assert vectors_of(store) == wanted
    assert check(store, workers=1).exit_status == 0


def _dead_owner() -> dict[str, Any]:
    """A process of this machine that has ended."""
    code = "import dataclasses, json; from wsicurate.store.owners import this_process; print(json.dumps(dataclasses.asdict(this_process())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_killed_anywhere_the_bytes_are_the_same(store: Path, config: EmbedConfig, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(store, tmp_path / "whole.zarr"))
    began = time.monotonic()
    subprocess.run(command(whole, config), check=True, capture_output=True)
    seconds = time.monotonic() - began
    rng = np.random.default_rng(0)
    for _ in range(8):
        run = subprocess.Popen(command(store, config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0.4, 1.0)) * seconds)
        run.kill()
        run.wait()
    subprocess.run(command(store, config), check=True, capture_output=True)
    assert vectors_of(store) == vectors_of(whole)
    assert check(store, workers=1).exit_status == 0


@pytest.mark.slow
def test_two_runs_share_a_store(store: Path, config: EmbedConfig, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(store, tmp_path / "whole.zarr"))
    embed(whole, replace(config, batch_size=2))
    runs = [
        subprocess.Popen(command(store, config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert vectors_of(store) == vectors_of(whole)
    assert not list((store / ".wsicurate").rglob("lease-*"))


def test_wrong_usage(store: Path, config: EmbedConfig, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        embed(tmp_path / "none.zarr", config)
    with pytest.raises(EncoderUnavailableError, match="there are no weights"):
        embed(store, EmbedConfig(encoder=str(tmp_path / "none.pth"), arch="vit_tiny_patch16_224"))
    with pytest.raises(ConfigError, match="no descriptor 'nowhere'"):
        (tmp_path / "n.toml").write_text('[n]\nsource = "descriptor:nowhere"\n')
        embed(store, EmbedConfig(encoder=str(tmp_path / "n.toml")))
    create_store(
        LocalBytes(tmp_path / "empty.zarr"),
        StoreRecord(patch_px=64, codec="zstd", quality=None, version="0", tiling=None),
    )
    with pytest.raises(NothingToDoError, match="holds no slide"):
        embed(tmp_path / "empty.zarr", config)
    assert open_store(store).encoders == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ""}, "--encoder is empty"),
        ({"device": "tpu"}, "--device is 'tpu'"),
        ({"precision": "int8"}, "--precision is 'int8'"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"input_px": 4}, "--input-px is 4"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EmbedConfig(**changes)


def test_the_command(store: Path, config: EmbedConfig) -> None:
    from typer.testing import CliRunner

    from wsicurate.cli import app

    arguments = ["embed", str(store), "--encoder", config.encoder, "--device", "cpu"]
    ended = CliRunner().invoke(app, [*arguments, "--precision", "bf16"])
    assert ended.exit_code == 0, ended.output
    assert "licence of small: CC0-1.0 (Do as you like.)" in ended.stdout
    assert "the forward pass ran" in ended.stdout
    assert "small: licence CC0-1.0; Do as you like." in ended.stderr
    ended = CliRunner().invoke(app, [*arguments, "--precision", "fp32"])
    assert ended.exit_code == 2 and "precision is 'bf16' there and 'fp32' now" in ended.stderr
    ended = CliRunner().invoke(app, ["encoders"])
    assert ended.exit_code == 0 and "tcga-brca-dino" in ended.stdout and "GPL-3.0" in ended.stdout


def test_the_record_of_a_slide_reads_back(store: Path, config: EmbedConfig) -> None:
    embed(store, config)
    key = next(iter(open_store(store).slides))
    record = read_embedding_record(LocalBytes(store), key, "small")
    assert record is not None and record.dim == 48 and len(record.fingerprint) == 64
    assert [path.name for path in (store / "slides" / key / "embeddings").iterdir()] == ["small"]
