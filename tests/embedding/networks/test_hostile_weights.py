"""Files of weights that are damaged, lie about themselves, or would run code: one line each, in bounded time and memory."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wsicurate.embedding.encoders import load_encoder
from wsicurate.embedding.networks.checkpoints import read_sidecar, read_state
from wsicurate.embedding.presets import find_preset
from wsicurate.embedding.weight_files import weight_file
from wsicurate.errors import EncoderError, WsicurateError

STATE = {"cls_token": torch.zeros(1, 1, 48), "blocks.0.attn.qkv.weight": torch.ones(144, 48)}


def refused(path: Path, words: str = "") -> str:
    """The one line that reading a file ends in, within a few seconds."""
    began = time.monotonic()
    with pytest.raises(EncoderError) as caught:
        read_state(path)
    assert time.monotonic() - began < 10
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    assert "weights_only" not in message, "torch's advice is to switch the check off"
    assert words in message
    return message


def holds_itself(path: Path) -> None:
    checkpoint: dict[str, Any] = {"epoch": 3}
    checkpoint["model"] = checkpoint
    torch.save(checkpoint, path)


def two_hold_each_other(path: Path) -> None:
    first: dict[str, Any] = {}
    first["teacher"] = {"backbone": first}
    torch.save(first, path)


def nested(path: Path) -> None:
    inner: dict[str, Any] = dict(STATE)
    for _ in range(150):
        inner = {"model": inner}
    torch.save(inner, path)


@pytest.mark.parametrize("write", [holds_itself, two_hold_each_other, nested])
def test_a_checkpoint_without_an_end_holds_no_tensors(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "holds no tensors")


def test_prefixes_without_an_end(tmp_path: Path) -> None:
    torch.save({"module." * 200_000 + "x": torch.zeros(1)}, tmp_path / "a.pth")
    began = time.monotonic()
    read_state(tmp_path / "a.pth")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (random.Random(0).randbytes(1000), "is no file of weights"),
        (b"", "is no file of weights"),
        (b"PK\x03\x04" + random.Random(1).randbytes(200), "is no file of weights"),
        (b"\x80\x02" + b"\xff" * 300, "is a pickle of more than tensors, or damaged"),
        (struct.pack("<Q", 2**62) + b"{" + b" " * 100, "is no file of weights"),
        (struct.pack("<Q", 1000) + b"{" + b" " * 100, "is no file of weights"),
        (struct.pack("<Q", 2) + b"{}", "holds no tensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is no file of weights"),
        (b"ONNX" * 100, "is no file of weights"),
    ],
    ids=["random", "empty", "zip", "pickle", "huge header", "cut header", "no tensors", "hdf5", "text"],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_what_is_no_weights_at_all(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def safetensors_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors_of({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, bytes(16)),
        safetensors_of({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}, bytes(16)),
        safetensors_of({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 16]}}, bytes(16)),
        safetensors_of({"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
        safetensors_of({"a": 5}),
        safetensors_of(b"{" * 50_000),
        safetensors_of(b'{"a": ' * 5_000),
    ],
    ids=["huge", "overflow", "negative", "type", "number", "braces", "deep"],
)
def test_safetensors_with_a_bad_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors")


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(f"archive/{name}", data)


def test_an_archive_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    entries = {"data.pkl": pickle.dumps({}, protocol=2), "version": b"3\n", "data/0": bytes(100_000_000)}
    archive(path, entries, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    assert "unpacks to 100 MB" in refused(path)


@pytest.mark.parametrize("change", [-400, -1, 1, 400])
def test_bytes_of_a_tensor_that_are_too_few_or_too_many(tmp_path: Path, change: int) -> None:
    """torch reads what the pickle claims, past the end of what there is: other memory, or a crash."""
    torch.save({"a": torch.arange(1000.0), "b": torch.zeros(3)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(tmp_path / "bad.pth", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name.endswith("/data/0"):
                data = data[:change] if change < 0 else data + bytes(change)
            bad.writestr(name, data)
    refused(tmp_path / "bad.pth", f"data/0 holds {4000 + change:,} bytes, not 4,000")


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(300, 1000, 1000)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "its tensors claim more than")
    same = torch.zeros(1_000_000)
    torch.save({f"{number}": same for number in range(200)}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", "its tensors claim more than")
    torch.save({"a": torch.zeros(8, device="meta")}, tmp_path / "c.pth")
    refused(tmp_path / "c.pth", "is no plain tensor")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "d.pth")
    refused(tmp_path / "d.pth", "is no plain tensor")


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for number, evil in enumerate((Evil(Path.touch, victim), Evil(os.system, f"touch {victim}"), Evil(eval, "1+1"))):
        for write in (
            lambda path, evil=evil: torch.save({"model": evil}, path),
            lambda path, evil=evil: torch.save(evil, path, _use_new_zipfile_serialization=False),
            lambda path, evil=evil: path.write_bytes(pickle.dumps(evil)),
            lambda path, evil=evil: path.write_bytes(pickle.dumps(evil, protocol=2)),
        ):
            path = tmp_path / f"{number}.pth"
            write(path)
            refused(path, "that could run code: save its weights alone")
    assert not victim.exists()
    np.savez(tmp_path / "a.npz", a=np.array([Evil(Path.touch, victim)], dtype=object))
    refused(tmp_path / "a.npz", "is no file of weights")
    assert not victim.exists()


def test_a_dictionary_that_pretends(tmp_path: Path) -> None:
    """torch restores the attributes of an OrderedDict: one that hides its own methods."""
    pretender = collections.OrderedDict(STATE)
    pretender.get = 5  # type: ignore[assignment]
    torch.save(pretender, tmp_path / "a.pth")
    try:
        assert set(read_state(tmp_path / "a.pth")) == set(STATE)
    except EncoderError as error:
        assert "a.pth" in str(error)


@pytest.mark.parametrize("name", ["good.pth", "legacy.pth", "good.safetensors"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str, rng: np.random.Generator) -> None:
    path = tmp_path / name
    if name == "good.safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "good.pth")
    data = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(data)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(len(data))]
        else:
            for place in rng.integers(0, min(len(data), 2_000), rng.integers(1, 20)):
                damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            read_state(path)
        except EncoderError as error:
            assert "\n" not in str(error)


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "b.safetensors")
    assert weight_file(tmp_path / "a.pth") == "safetensors" and weight_file(tmp_path / "b.safetensors") == "checkpoint"
    assert set(read_state(tmp_path / "a.pth")) == set(read_state(tmp_path / "b.safetensors")) == set(STATE)


def test_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    for name in ("pipe.pth", "folder.pth"):
        with pytest.raises(WsicurateError):
            load_encoder(str(tmp_path / name), arch="vit_tiny_patch16_224")
        with pytest.raises(WsicurateError):
            load_encoder("dinov2-small", weights=tmp_path / name)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(WsicurateError, match="it is no file"):
        find_preset(str(tmp_path / "pipe.toml"))


@pytest.mark.parametrize(
    "config",
    [
        "[1]",
        "5",
        '{"architecture": 5}',
        '{"architecture": ["vit_tiny_patch16_224"]}',
        '{"architecture": "vit_tiny_patch16_224", "model_args": 5}',
        '{"architecture": "vit_tiny_patch16_224", "model_args": {"depth": "many"}}',
        '{"architecture": "vit_tiny_patch16_224", "model_args": {"checkpoint_path": "evil.pth"}}',
        '{"architecture": "vit_tiny_patch16_224", "model_args": {"pretrained_cfg_overlay": {"file": "evil.pth"}}}',
        '{"architecture": "vit_tiny_patch16_224", "model_args": {"norm_layer": "set_fused_attn"}}',
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": [1]}',
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": 5}}',
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, "a", "b"]}}',
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"mean": 5}}',
        "[" * 100_000,
        "\0",
    ],
)
def test_a_wrong_sidecar_is_one_line(tmp_path: Path, small: Path, config: str) -> None:
    small.with_name("config.json").write_text(config)
    small.with_name("evil.pth").write_bytes(pickle.dumps(Evil(Path.touch, tmp_path / "victim")))
    with pytest.raises(WsicurateError) as caught:
        load_encoder(str(small.with_name("small.safetensors")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "victim").exists()


def test_a_good_sidecar_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "a", "model_args": {"b": 1}, "other": 5}')
    assert read_sidecar(tmp_path) == {"architecture": "a", "model_args": {"b": 1}}


def test_buffers_are_no_files(tmp_path: Path) -> None:
    """What `torch.save` writes into memory is what it writes into a file."""
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    (tmp_path / "a.bin").write_bytes(buffer.getvalue())
    assert set(read_state(tmp_path / "a.bin")) == set(STATE)
