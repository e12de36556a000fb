"""Kill it anywhere, run it again: the bytes are the same. Promises of DESIGN.md, kept by processes that are really killed."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import tree
from wsicurate.config import TileConfig
from wsicurate.opening import open_store
from wsicurate.steps.check import check
from wsicurate.steps.tile import tile
from wsicurate.synthetic.description import SyntheticSlide
from wsicurate.synthetic.slide import write_slide

#: How long workers may live on after their parent, seconds.
OUTLIVE_S = 5.0


def start(slides: Path, store: Path, *options: str, **keywords: object) -> subprocess.Popen[str]:
    """Run the command in a process group of its own."""
    command = [sys.executable, "-m", "wsicurate", "tile", str(slides), "-o", str(store), *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **keywords,  # type: ignore[call-overload]
    )


@pytest.fixture(scope="module")
def undisturbed(demo_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The store that nobody disturbed, and how long it took, workers' start included."""
    store = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    began = time.monotonic()
    run = start(demo_slides, store, "--workers", "2")
    run.communicate()
    assert run.returncode == 3  # two of the demo's slides are trouble on purpose
    return tree(store / "slides"), time.monotonic() - began


def kill_somewhere(run: subprocess.Popen[str], after_s: float, *, group: bool) -> None:
    """SIGKILL the parent alone or the whole group after a while; no worker may live on for long."""
    time.sleep(after_s)
    try:
        family = psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if group:
        os.killpg(run.pid, signal.SIGKILL)
    else:
        run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(family, timeout=OUTLIVE_S)
    assert not alive, f"{alive} outlived their parent"


def kill_and_rerun(
    slides: Path, folder: Path, undisturbed: tuple[dict[str, bytes], float], *, group: bool, seed: int, kills: int
) -> None:
    """Kill a run ``kills`` times at random moments, each time going on from what was left; then let it finish."""
    reference, whole_s = undisturbed
    chance = random.Random(seed)
    store = folder / "a.zarr"
    for _ in range(kills):
        run = start(slides, store, "--workers", str(chance.choice([1, 2, 3])))
        kill_somewhere(run, chance.uniform(0.1, whole_s), group=group)
        for name, data in tree(store / "slides").items() if (store / "slides").exists() else ():
            key = name.split("/")[0]
            if (store / "slides" / key / "zarr.json").exists() and key != "zarr.json" and ".partial" not in name:
                assert data == reference[name], f"{name} is committed and wrong"
    finish = start(slides, store, "--workers", str(chance.choice([1, 2, 3])))
    _, errors = finish.communicate()
    assert finish.returncode == 3, errors
    assert tree(store / "slides") == reference
    assert check(store, workers=1).problems == []
    shutil.rmtree(store)


@pytest.mark.slow  # tests/test_kills.py kills at chosen system calls, faster
@pytest.mark.parametrize("group", [False, True], ids=["parent", "group"])
def test_killed_and_run_again(
    demo_slides: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float], group: bool
) -> None:
    kill_and_rerun(demo_slides, tmp_path, undisturbed, group=group, seed=int(group), kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("group", [False, True], ids=["parent", "group"])
def test_killed_at_twenty_random_moments(
    demo_slides: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float], group: bool, seed: int
) -> None:
    kill_and_rerun(demo_slides, tmp_path, undisturbed, group=group, seed=100 * seed + group, kills=1)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_asked_to_end_it_says_so_and_leaves_no_lease(
    demo_slides: Path,
    tmp_path: Path,
    undisturbed: tuple[dict[str, bytes], float],
    number: signal.Signals,
    status: int,
) -> None:
    store = tmp_path / "a.zarr"
    run = start(demo_slides, store, "--workers", "2")
    deadline = time.monotonic() + 60
    while not list(store.glob(".wsicurate/*/lease-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == status
    assert "interrupted; what is finished stays, and the same command goes on from there" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(family, timeout=OUTLIVE_S)
    assert not alive
    assert not list(store.glob(".wsicurate/*/lease-*"))
    assert any(
        '"ended": "_Ended' in path.read_text() or '"ended": "Keyb' in path.read_text() for path in store.glob("runs/2*")
    )
    again = start(demo_slides, store, "--workers", "2")
    again.communicate()
    assert again.returncode == 3
    assert tree(store / "slides") == undisturbed[0]
    assert check(store, workers=1).problems == []


@pytest.mark.slow
def test_two_runs_fill_one_store_together(
    demo_slides: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    store = tmp_path / "a.zarr"
    runs = [start(demo_slides, store, "--workers", "1") for _ in range(2)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [3, 3], outputs
    for output, _ in outputs:
        assert "310 patches of 5 slides" in output
    assert tree(store / "slides") == undisturbed[0]
    assert check(store, workers=1).problems == []
    assert not (store / ".wsicurate").exists()


@pytest.mark.slow
def test_the_survivor_of_two_runs_takes_over(
    demo_slides: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float]
) -> None:
    store = tmp_path / "a.zarr"
    first = start(demo_slides, store, "--workers", "1")
    deadline = time.monotonic() + 60
    while not list(store.glob(".wsicurate/*/lease-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start(demo_slides, store, "--workers", "1")
    time.sleep(1.0)
    first.kill()
    first.communicate()
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 3, errors
    assert tree(store / "slides") == undisturbed[0]
    assert check(store, workers=1).problems == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1.5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", place], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_survived(small_slides: Path, small_disk: Path, tmp_path: Path) -> None:
    store = small_disk / "a.zarr"
    run = start(small_slides, store, "--workers", "1", "--patch-px", "128", "--codec", "zstd")
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 1, output + errors
    assert "cannot be written: the disk is full: free space there, then run the same command again" in errors
    assert "Traceback" not in errors
    kept = {name: data for name, data in tree(store / "slides").items() if name != "zarr.json"}
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    again = start(small_slides, store, "--workers", "2", "--patch-px", "128", "--codec", "zstd")
    again.communicate(timeout=60)
    assert again.returncode == 0
    tile(small_slides, tmp_path / "b.zarr", TileConfig(patch_px=128, codec="zstd"))
    assert tree(store / "slides") == tree(tmp_path / "b.zarr" / "slides")
    committed = {name.split("/")[0] for name in kept if name.count("/") == 1 and name.endswith("zarr.json")}
    assert all(tree(store / "slides")[name] == data for name, data in kept.items() if name.split("/")[0] in committed)
    assert check(store, workers=1).problems == []


def test_a_file_size_limit_is_said_and_survived(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    run = start(small_slides, store, "--workers", "1", "--patch-px", "128", preexec_fn=limit)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "would be larger than this process may write: raise the limit (ulimit -f)" in errors
    assert tile(small_slides, store, TileConfig(patch_px=128)).exit_status == 0
    assert check(store, workers=1).problems == []


def test_a_read_only_store_is_said(small_slides: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    run = start(small_slides, small_disk / "a.zarr")
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "the file system is read-only: choose another place, or remount it" in errors
    assert "Traceback" not in errors


def test_a_read_only_store_that_is_complete_can_be_read(small_slides: Path, small_disk: Path) -> None:
    store = small_disk / "a.zarr"
    tile(small_slides, store, TileConfig(patch_px=256, workers=1))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert len(open_store(store)) > 20
    assert check(store, workers=1).problems == []


def memory_of(run: subprocess.Popen[str]) -> tuple[int, list[tuple[float, int]]]:
    """Peak resident memory of any process of a run, and of all of them together over time, bytes."""
    peak, course, began = 0, [], time.monotonic()
    parent = psutil.Process(run.pid)
    while run.poll() is None:
        total = 0
        try:
            for process in [parent, *parent.children(recursive=True)]:
                used = process.memory_info().rss
                peak = max(peak, used)
                total += used
        except psutil.NoSuchProcess:
            continue
        course.append((time.monotonic() - began, total))
        time.sleep(0.05)
    run.communicate()
    return peak, course


@pytest.mark.slow
def test_memory_is_bounded_on_a_huge_slide(tmp_path: Path) -> None:
    huge = SyntheticSlide(width=100_000, height=100_000, repeat_px=8_192, seed=9)
    write_slide(tmp_path / "slides" / "huge.svs", huge)
    run = start(tmp_path / "slides", tmp_path / "a.zarr", "--workers", "2", "--max-patches-per-slide", "500")
    peak, _ = memory_of(run)
    assert run.returncode == 0
    assert peak < 1.5 * 2**30
    assert len(open_store(tmp_path / "a.zarr")) == 500


@pytest.mark.slow
def test_memory_is_bounded_on_a_whole_huge_slide(tmp_path: Path) -> None:
    huge = SyntheticSlide(width=100_000, height=100_000, repeat_px=8_192, seed=9)
    write_slide(tmp_path / "slides" / "huge.svs", huge)
    run = start(tmp_path / "slides", tmp_path / "a.zarr", "--workers", "2")
    peak, _ = memory_of(run)
    assert run.returncode == 0
    assert peak < 1.5 * 2**30
    assert len(open_store(tmp_path / "a.zarr")) > 15_000


@pytest.mark.slow
def test_memory_is_flat_over_two_hundred_slides(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    write_slide(folder / "0.svs", SyntheticSlide(width=4_096, height=4_096, seed=1, tissue=0.7))
    for number in range(1, 200):
        shutil.copy(folder / "0.svs", folder / f"{number}.svs")
    run = start(folder, tmp_path / "a.zarr", "--workers", "2", "--max-patches-per-slide", "12")
    _, course = memory_of(run)
    assert run.returncode == 0
    third = len(course) // 3
    early = sorted(total for _, total in course[third : 2 * third])
    late = sorted(total for _, total in course[2 * third :])
    assert late[len(late) // 2] < early[len(early) // 2] * 1.1 + 20e6
