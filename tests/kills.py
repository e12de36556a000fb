"""Kill, or stop, a process at the n-th system call that touches a store, for every n.

Run as a script, it imports everything once and forks a process for each run, which costs milliseconds; threads start in
the forked processes alone. Python's audit events stand for the system calls: opening, renaming, linking, removing,
making and listing files and folders. The process ends, or stops, just before the call.

    python -m tests.kills SCENARIO kill|stop EVERY
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import tree
from tests.store.curation_record import RECORD
from wsicurate.config import EmbedConfig, ExportConfig, ImportConfig, MaterialiseConfig, TileConfig
from wsicurate.engine import slide_run
from wsicurate.engine.tidy import tidy
from wsicurate.errors import LeaseLostError
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.embed import embed
from wsicurate.steps.export import export
from wsicurate.steps.imports import import_patches
from wsicurate.steps.materialise import materialise
from wsicurate.steps.tile import tile
from wsicurate.store import leases as leases_module
from wsicurate.store.leases import Lease, Leases
from wsicurate.store.local_bytes import LocalBytes
from wsicurate.store.manifest import write_curation
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.listdir", "os.scandir"}


class Inline(Executor):
    """Runs every task at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


class Scenario:
    """Something that is done to a store, and what must be there in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, store: Path) -> None:
        """Make what is there before."""

    def act(self, store: Path) -> None:
        """Do it; done again after a kill, it must end well."""
        raise NotImplementedError

    def look(self, store: Path) -> dict[str, bytes]:
        """What must be the same however often it was killed: all bytes but the records of runs."""
        return {name: data for name, data in tree(store).items() if not name.startswith("runs/2")}


class LeaseOnly(Scenario):
    """Take a lease, renew it, write and delete under it, give it back. Each process writes other bytes."""

    def act(self, store: Path) -> None:
        local = LocalBytes(store)
        leases = Leases(local, renewal_s=3600)
        while not isinstance(lease := leases.acquire(".wsicurate/a@0.5"), Lease):
            time.sleep(0.01)
        held, mine = local.fenced(lease.fence), str(os.getpid()).encode()
        with contextlib.suppress(LeaseLostError, KeyError):  # overtaken
            held.put(lease.key, [local.get(lease.key)])  # as the renewal does
            held.delete("slides/a@0.5/mark")
            for name in ("first", "second", "mark"):
                held.put(f"slides/a@0.5/{name}", [mine])
        leases.close()
        tidy(local)

    def look(self, store: Path) -> dict[str, bytes]:
        """Which values there are, and whether all are of one process."""
        values = {name: data for name, data in super().look(store).items() if name.startswith("slides/a@0.5")}
        others = super().look(store).keys() - values.keys()
        return {**dict.fromkeys(values.keys() | others, b""), "writers": str(len(set(values.values()))).encode()}


class Tile(Scenario):
    config = TileConfig(patch_px=64, codec="jpeg")
    slide = SyntheticSlide(width=768, height=512, tissue=0.7, seed=1)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_slide(folder / "slides" / "a.svs", self.slide)

    def act(self, store: Path) -> None:
        tile(self.folder / "slides", store, self.config, executor=Inline())


class Overwrite(Tile):
    """Slides are there, made otherwise."""

    config = TileConfig(patch_px=64, codec="jpeg", overwrite=True)

    def prepare(self, store: Path) -> None:
        tile(self.folder / "slides", store, TileConfig(patch_px=64, codec="jpeg", min_tissue=0.6), executor=Inline())


class Embed(Tile):
    def prepare(self, store: Path) -> None:
        super().act(store)

    def act(self, store: Path) -> None:
        embed(store, EmbedConfig(encoder="filter-bank"), executor=Inline())


class Import(Scenario):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from PIL import Image

        pixels = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
        (folder / "images").mkdir()
        for number in range(3):
            Image.fromarray(pixels[number]).save(folder / "images" / f"{number}.png")

    def act(self, store: Path) -> None:
        import_patches(self.folder / "images", store, ImportConfig(), executor=Inline())


class Materialise(Tile):
    """Patches of a curation, cut from the slide, with their vectors and the manifest."""

    config = TileConfig(patch_px=64, codec="none")
    slide = SyntheticSlide(width=1_024, height=768, tissue=0.7, seed=2)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.parent = folder / "parent"
        finished(forked(self._make_parent))

    def _make_parent(self) -> None:
        import pyarrow as pa

        super().act(self.parent)
        embed(self.parent, EmbedConfig(encoder="filter-bank"), executor=Inline())
        (slide,) = open_store(self.parent).slides.values()
        assert len(slide) > 10
        decisions = ["over_cap" if row % 3 else "selected" for row in range(len(slide))]
        table = pa.table(
            {
                "slide_id": pa.array([slide.record.slide_id] * len(slide)).dictionary_encode(),
                "mpp": [slide.record.mpp] * len(slide),
                "row": pa.array(range(len(slide)), pa.int32()),
                "decision": pa.array(decisions).dictionary_encode(),
                "selected": [decision == "selected" for decision in decisions],
            }
        )
        counts = {decision: decisions.count(decision) for decision in ("over_cap", "selected")}
        inputs = {slide.key: slide.record.content_hash}
        run = {**RECORD, "name": "x", "counts": counts, "clusters": None, "inputs": inputs}
        write_curation(LocalBytes(self.parent), "x", table, run, {})

    def act(self, store: Path) -> None:
        materialise(self.parent, store, MaterialiseConfig(curation="x"), executor=Inline())


class Export(Tile):
    """All patches of a store as shards, image files, or tables."""

    slide = SyntheticSlide(width=1_024, height=768, tissue=0.7, seed=2)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.parent = folder / "parent"
        finished(forked(lambda: tile(self.folder / "slides", self.parent, self.config, executor=Inline())))

    def act(self, store: Path) -> None:
        for to in ("webdataset", "folder", "trident"):
            while True:
                try:
                    export(self.parent, store / to, ExportConfig(to=to, shard_patches=16))
                    break
                except (
                    LeaseLostError
                ):  # of the other process, which stopped, or overtaken by it: called again, as advised
                    time.sleep(0.02)


class Manifest(Scenario):
    """A curation is written over an earlier one; the verb writes it again if it is not there."""

    def prepare(self, store: Path) -> None:
        self._write(store, 6)

    def act(self, store: Path) -> None:
        self._write(store, 4)

    @staticmethod
    def _write(store: Path, rows: int) -> None:
        import pyarrow as pa

        table = pa.table({"decision": ["selected"] * rows, "selected": [True] * rows, "row": list(range(rows))})
        run = {**RECORD, "name": "x", "counts": {"selected": rows}, "clusters": None}
        write_curation(LocalBytes(store), "x", table, run, {})
        tidy(LocalBytes(store))


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    "lease": LeaseOnly,
    "tile": Tile,
    "overwrite": Overwrite,
    "embed": Embed,
    "import": Import,
    "materialise": Materialise,
    "export": Export,
    "manifest": Manifest,
}


def forked(action: Callable[[], object]) -> int:
    """Run something in a forked process; gives its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        action()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finished(pid: int) -> None:
    """Wait for a process that must end well."""
    _, status = os.waitpid(pid, 0)
    if status:
        raise AssertionError(f"a run ended with {os.waitstatus_to_exitcode(status)}")


def disturb_at(count: int, store: Path, number: signal.Signals) -> None:
    """Send this process a signal just before the ``count``-th call that touches the store."""
    seen = [0]
    root = str(store)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and any(
            isinstance(part, str | os.PathLike) and root in os.fspath(part) for part in arguments
        ):
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


@contextlib.contextmanager
def none_left_stopped() -> Iterator[list[int]]:
    """Processes that are noted here do not outlive a failure: one that is stopped would hold its pipes for ever."""
    stopped: list[int] = []
    try:
        yield stopped
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)


def campaign(name: str, number: signal.Signals, every: int, folder: Path) -> int:
    """Disturb a scenario at every ``every``-th call.

    Returns:
        How many points there were.
    """
    leases_module.EXPIRY_S = 0.05
    slide_run._POLL_S = 0.02
    scenario = SCENARIOS[name](folder)
    before, undisturbed = folder / "before", folder / "undisturbed"
    for store in (before, undisturbed):
        finished(forked(lambda store=store: scenario.prepare(store)))
    finished(forked(lambda: scenario.act(undisturbed)))
    wanted = scenario.look(undisturbed)
    points, count = 0, 1
    while True:
        store = folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, store)

        def disturbed(store: Path = store, count: int = count) -> None:
            disturb_at(count, store, number)
            scenario.act(store)

        pid = forked(disturbed)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status) and not os.WIFSIGNALED(status):
            if status:
                raise AssertionError(f"{name}: the run with {count} points ended with {status}")
            if scenario.look(store) != wanted:
                raise AssertionError(f"{name}: an undisturbed run gave other bytes")
            return points
        points += 1
        with none_left_stopped() as stopped:
            if os.WIFSTOPPED(status):
                stopped.append(pid)
            verify_committed(store, wanted, count)
            finished(forked(lambda store=store: scenario.act(store)))
            if stopped:
                os.kill(pid, signal.SIGCONT)
                finished(stopped.pop())
        found = scenario.look(store)
        if found != wanted:
            differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            raise AssertionError(f"{name}: disturbed at call {count}: {differing} are other than undisturbed")
        if name not in ("lease", "manifest", "export"):
            report = check(store, workers=1, executor=Inline())
            if report.problems or report.leftovers:
                raise AssertionError(f"{name}: disturbed at call {count}: {report.problems} {report.leftovers}")
        count += every


def verify_committed(store: Path, wanted: dict[str, bytes], count: int) -> None:
    """A slide that has its mark after a kill is whole: the old one, or the new one."""
    for mark in store.glob("slides/*/zarr.json"):
        if mark.read_bytes() == wanted.get(mark.relative_to(store).as_posix()):
            for path in mark.parent.rglob("*"):
                name = path.relative_to(store).as_posix()
                if path.is_file() and "/embeddings/" not in name and path.read_bytes() != wanted.get(name):
                    raise AssertionError(f"killed at call {count}: {name} is committed and wrong")


if __name__ == "__main__":
    scenario_name, how, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory() as scratch:
        found = campaign(scenario_name, signal.SIGKILL if how == "kill" else signal.SIGSTOP, step, Path(scratch))
    print(f"{scenario_name}: {found} points, all ended as if undisturbed")
