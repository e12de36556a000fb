"""`doctor`: on a sound machine, and with each part broken."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wsicurate.cli import app
from wsicurate.errors import ConfigError
from wsicurate.steps.doctor import doctor
from wsicurate.steps.examining import machine, place
from wsicurate.steps.examining.finding import Finding
from wsicurate.steps.examining.hub import hub
from wsicurate.steps.examining.pixels import codecs, readers
from wsicurate.store.local_bytes import LocalBytes

TOKEN = "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """Knows one user, who may read all gated encoders but one."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        is_open = self.path == "/" or (known and "H-optimus" not in self.path)
        body = b'{"name": "ann", "type": "user", "auth": {"type": "access_token"}}'
        self.send_response(200 if is_open else 403)
        if not is_open:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def states(findings: Iterator[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_a_sound_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    seen: list[Finding] = []
    report = doctor(tmp_path / "new" / "a.zarr", found=seen.append)
    assert report.findings == tuple(seen) and report.exit_status == 0
    parts = list(dict.fromkeys(finding.part for finding in seen))
    assert parts == ["libraries", "readers", "codecs", "device", "hub", "disk"]
    assert all(finding.fix for finding in seen if finding.state != "ok")
    assert list(tmp_path.iterdir()) == []


def test_readers_and_codecs_that_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(states(readers())) == {"ok"} == set(states(codecs()))
    monkeypatch.setattr("wsicurate.pixels.jpeg.decode_jpeg", lambda data: np.zeros((256, 256, 3), np.uint8))
    assert states(codecs()) == ["fault"]


def test_libraries_that_are_old_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def other(name: str) -> str:
        if name == "zarr":
            return "3.0.0"
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", other)
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = {finding.what: finding for finding in machine.libraries()}
    assert [finding.state for finding in found.values()] == ["fault"] * 3
    assert "timm is not installed" in found
    assert any(what.startswith("zarr is 3.0.0, and wsicurate takes") for what in found)
    assert any(what.startswith("faiss-cpu does not load: ModuleNotFoundError") for what in found)
    assert any(finding.fix.startswith('run: pip install "zarr>=') for finding in found.values())


def test_a_part_that_breaks_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("machine", "pixels", "hub"):
        monkeypatch.setitem(sys.modules, f"wsicurate.steps.examining.{module}", None)
    report = doctor(tmp_path)
    assert report.exit_status == 1
    assert [finding.state for finding in report.findings if finding.part != "disk"] == ["fault"] * 5
    assert [finding.state for finding in report.findings if finding.part == "disk"] == ["ok"] * 3


def test_room(tmp_path: Path, small_slides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("machine", "pixels", "hub"):
        monkeypatch.setitem(sys.modules, f"wsicurate.steps.examining.{module}", None)
    disk = [finding for finding in doctor(tmp_path, small_slides).findings if finding.part == "disk"]
    assert disk[0].state == "ok" and "the patches need some 0.00" in disk[0].what
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 1_000))  # type: ignore[attr-defined]
    disk = [finding for finding in doctor(tmp_path, small_slides).findings if finding.part == "disk"]
    assert disk[0].state == "fault" and "--codec none" in disk[0].fix


def test_places_that_cannot_hold_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_TRIAL_BYTES", 2**20)
    with monkeypatch.context() as patch:
        patch.setattr(LocalBytes, "put_if_absent", lambda self, key, value: self.put(key, [value]) or True)
        assert states(place.place(tmp_path, None))[-1] == "fault"
    with monkeypatch.context() as patch:
        patch.setattr(place, "_SLOW_MB_S", 1e9)
        assert states(place.place(tmp_path, None)) == ["ok", "warning", "ok"]
    with monkeypatch.context() as patch:
        patch.setattr(place.os, "access", lambda path, mode: False)  # type: ignore[attr-defined]
        assert states(place.place(tmp_path, None)) == ["fault"]


def test_the_hub_and_who_may_read_what(reached: None, monkeypatch: pytest.MonkeyPatch) -> None:
    token: list[str | None] = [None]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token[0])
    (alone,) = hub()
    assert alone.state == "warning" and "without a token" in alone.what
    token[0] = "hf_wrong"
    (refused,) = hub()
    assert refused.state == "warning" and "does not take the token" in refused.what
    token[0] = TOKEN
    found = list(hub())
    assert found[0].what.endswith("logged in as ann")
    assert [finding.what.split()[0] for finding in found if finding.state == "warning"] == [
        "h-optimus-0",
        "h-optimus-1",
    ]
    assert sum(finding.what.endswith("can be fetched") for finding in found) >= 5
    assert not any("hf_" in finding.what + finding.fix for finding in found)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wsicurate.steps.examining.machine", None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    ended = CliRunner().invoke(app, ["doctor", "-o", str(tmp_path)])
    assert ended.exit_code == 1 and "2 faults and 1 warnings" in ended.output and "run: pip install" in ended.output
    ended = CliRunner().invoke(app, ["doctor", "-o", str(tmp_path), "--json"])
    document = json.loads(ended.stdout)
    assert document["command"] == "doctor" and document["exit_status"] == 1
    assert {finding["state"] for finding in document["findings"]} == {"ok", "warning", "fault"}


def test_wrong_arguments() -> None:
    for arguments in ({"store": 5}, {"slides": [3]}, {"found": 5}):
        with pytest.raises(ConfigError):
            doctor(**arguments)  # type: ignore[arg-type]
