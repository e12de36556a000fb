from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from wsicurate.errors import LeaseLostError
from wsicurate.store.leases import EXPIRY_S, Holder, Lease, Leases, is_current, lower_stale_fences
from wsicurate.store.owners import Owner, this_process
from wsicurate.testing.memory_bytes import MemoryBytes


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> MemoryBytes:
    return MemoryBytes()


@pytest.fixture
def runs(store: MemoryBytes) -> Iterator[tuple[Leases, Leases, Clock]]:
    clock = Clock()
    first, second = Leases(store, clock=clock, renewal_s=3600), Leases(store, clock=clock, renewal_s=3600)
    yield first, second, clock
    first.close()
    second.close()


def foreign_lease(store: MemoryBytes, owner: Owner, beat: int = 0, generation: int = 1) -> None:
    value = {"token": "theirs", "beat": beat, "owner": dataclasses.asdict(owner)}
    store.put(f"work/lease-{generation:06d}", [json.dumps(value).encode()])


ELSEWHERE = Owner(host="other", machine="0123456789ab", pid=1, started="1")


def test_a_claim_waits_until_the_holder_is_seen_to_live_or_to_be_dead(store: MemoryBytes) -> None:
    foreign_lease(store, ELSEWHERE)
    claimant = Leases(store, expiry_s=0.3)
    threading.Timer(0.1, lambda: foreign_lease(store, ELSEWHERE, beat=1)).start()
    assert claimant.claim("work") == Holder(ELSEWHERE)
    began = time.monotonic()
    assert isinstance(claimant.claim("work"), Lease)
    assert 0.2 < time.monotonic() - began < 5
    claimant.close()


def test_one_holds_the_other_waits(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    first, second, _ = runs
    lease = first.acquire("work")
    assert isinstance(lease, Lease)
    other = second.acquire("work")
    assert isinstance(other, Holder)
    assert str(other) == f"process {this_process().pid} on {this_process().host}"
    assert is_current(store, lease)
    first.release(lease)
    assert not is_current(store, lease)
    assert isinstance(second.acquire("work"), Lease)


def test_given_back_leases_leave_nothing(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    first, second, _ = runs
    for folder in ("a", "b"):
        first.acquire(folder)
    assert second.holder("a") is not None
    first.close()
    assert list(store.keys()) == []
    assert second.holder("a") is None


def test_a_dead_process_of_this_machine_is_overtaken_at_once(
    store: MemoryBytes, runs: tuple[Leases, Leases, Clock]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    foreign_lease(store, dataclasses.replace(this_process(), pid=ended.pid, started="1"))
    lease = runs[0].acquire("work")
    assert isinstance(lease, Lease)
    assert lease.generation == 2
    runs[0].release(lease)
    assert list(store.keys()) == []


def test_a_reused_process_id_does_not_keep_a_lease_alive(
    store: MemoryBytes, runs: tuple[Leases, Leases, Clock]
) -> None:
    foreign_lease(store, dataclasses.replace(this_process(), started="another time"))
    assert isinstance(runs[0].acquire("work"), Lease)


def test_a_silent_holder_elsewhere_is_overtaken_after_the_expiry(
    store: MemoryBytes, runs: tuple[Leases, Leases, Clock]
) -> None:
    first, _, clock = runs
    foreign_lease(store, ELSEWHERE)
    assert isinstance(first.acquire("work"), Holder)
    clock.now += EXPIRY_S - 1
    assert isinstance(first.acquire("work"), Holder)
    foreign_lease(store, ELSEWHERE, beat=1)  # it lives
    clock.now += EXPIRY_S - 1
    assert isinstance(first.acquire("work"), Holder)
    clock.now += EXPIRY_S + 1
    assert isinstance(first.acquire("work"), Lease)


def test_who_was_overtaken_notices_and_does_not_take_the_lease_along(
    store: MemoryBytes, runs: tuple[Leases, Leases, Clock]
) -> None:
    first, second, clock = runs
    lease = first.acquire("work")
    assert isinstance(lease, Lease)
    assert isinstance(second.acquire("work"), Holder)
    clock.now += EXPIRY_S + 1
    taken = second.acquire("work")
    assert isinstance(taken, Lease)
    assert not is_current(store, lease)
    first.release(lease)
    assert is_current(store, taken)


def test_of_two_claimants_one_wins(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    first, second, clock = runs
    foreign_lease(store, ELSEWHERE)
    for run in (first, second):
        assert isinstance(run.acquire("work"), Holder)
    clock.now += EXPIRY_S + 1
    results = [first.acquire("work"), second.acquire("work")]
    assert sorted(type(result).__name__ for result in results) == ["Holder", "Lease"]


def test_a_lease_given_back_and_taken_anew_while_one_looked_is_respected(store: MemoryBytes) -> None:
    clock = Clock()

    class Racing(MemoryBytes):
        """Replaces the stale lease by a fresh one just before it is superseded."""

        def put_if_absent(self, key: str, value: bytes) -> bool:  # type: ignore[override]
            if key.endswith("lease-000002") and not raced:
                raced.append(True)
                foreign_lease(self, ELSEWHERE, beat=7)
            return super().put_if_absent(key, value)

    raced: list[bool] = []
    racing = Racing()
    foreign_lease(racing, ELSEWHERE)
    run = Leases(racing, clock=clock, renewal_s=3600)
    assert isinstance(run.acquire("work"), Holder)
    clock.now += EXPIRY_S + 1
    assert isinstance(run.acquire("work"), Holder)
    assert raced
    assert racing.children("work") == ["lease-000001"]


def test_held_leases_are_renewed_until_given_back(store: MemoryBytes) -> None:
    run = Leases(store, renewal_s=0.01)
    lease = run.acquire("work")
    assert isinstance(lease, Lease)
    before = store.get(lease.key)
    deadline = time.monotonic() + 5
    while store.get(lease.key) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert json.loads(store.get(lease.key))["beat"] > 0
    run.close()
    assert list(store.keys()) == []


def test_what_is_no_lease_is_not_taken_for_one(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    for name in ("lease-000007 (1)", "lease-", "lease-x", "lease-000003.bak"):
        store.put(f"work/{name}", [b"{}"])
    lease = runs[0].acquire("work")
    assert isinstance(lease, Lease)
    assert lease.generation == 1
    assert is_current(store, lease)
    runs[0].release(lease)
    assert len(list(store.keys())) == 4


@pytest.mark.parametrize("value", [b"[]", b"1", b"null", b'{"owner": 3}', b'{"token": "x"}'])
def test_a_lease_of_another_shape_is_nobody_s(
    store: MemoryBytes, runs: tuple[Leases, Leases, Clock], value: bytes
) -> None:
    store.put("work/lease-000001", [value])
    assert runs[1].holder("work") is None
    assert not is_current(store, Lease("work", 1, "t"))
    assert isinstance(runs[0].acquire("work"), Lease)


def test_a_holder_that_wakes_up_late_cannot_bring_its_lease_back(store: MemoryBytes) -> None:
    """The renewal looks, sleeps while another takes over and gives back, and writes."""
    clock = Clock()
    first = Leases(store, clock=clock, renewal_s=3600)
    second = Leases(store, clock=clock, renewal_s=3600)
    lease = first.acquire("work")
    assert isinstance(lease, Lease)
    assert is_current(store, lease)
    second.acquire("work")
    clock.now += EXPIRY_S + 1
    taken = second.acquire("work")
    assert isinstance(taken, Lease)
    second.release(taken)
    with pytest.raises(LeaseLostError):
        store.fenced(lease.fence).put(lease.key, [b"alive"])
    assert list(store.keys()) == []
    assert store.fences() == []
    first.close()


def test_fences_without_leases_are_lowered(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    lease = runs[0].acquire("work")
    assert isinstance(lease, Lease)
    store.raise_fence("work/.fence-000007-dead")
    store.raise_fence("other/.fence-000001-dead")
    lower_stale_fences(store, "")
    assert store.fences() == [lease.fence]


def test_a_damaged_lease_is_nobody_s(store: MemoryBytes, runs: tuple[Leases, Leases, Clock]) -> None:
    store.put("work/lease-000001", [b"{"])
    assert isinstance(runs[0].acquire("work"), Lease)
