from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from minhos_mesh.registry import procfs, resource_use
from minhos_mesh.registry.domain.directory import Present
from minhos_mesh.registry.domain.health import Silence
from minhos_mesh.registry.domain.leases import InstanceKey
from minhos_mesh.registry.domain.resources import CpuMark, cpu_percent
from minhos_mesh.registry.resource_use import ResourceSampler
from minhos_mesh.runtime.clock import ManualClock


@pytest.mark.parametrize(
    ("marks", "percent"),
    [
        ([], None),
        ([CpuMark(1.0, 5.0)], None),
        ([CpuMark(1.0, 5.0), CpuMark(1.0, 6.0)], None),
        ([CpuMark(1.0, 5.0), CpuMark(3.0, 5.0)], 0.0),
        ([CpuMark(1.0, 5.0), CpuMark(2.0, 5.1), CpuMark(3.0, 6.0)], 50.0),
        ([CpuMark(1.0, 5.0), CpuMark(2.0, 8.0)], 300.0),
        ([CpuMark(1.0, 5.0), CpuMark(2.0, 4.0)], 0.0),
    ],
)
def test_the_share_of_a_core(marks: list[CpuMark], percent: float | None) -> None:
    assert cpu_percent(marks) == percent


def present(number: int, pid: int | None) -> Present:
    return Present(InstanceKey("a", f"a-{number}"), "127.0.0.1", 1, (), "", number, "", 0, pid=pid)


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code + "; print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


async def test_a_process_is_seen_with_all_that_it_takes() -> None:
    clock = ManualClock()
    with child("x = bytearray(30_000_000)") as process:
        sampler = ResourceSampler(lambda: [present(1, process.pid)], clock)
        sampler.look()
        await sampler.weigh()
        use = sampler.uses[process.pid]
        assert use.rss_bytes is not None
        assert use.pss_bytes is not None
        assert use.rss_bytes >= use.pss_bytes > 30_000_000
        assert use.threads == 1
        assert use.open_files == 3
        assert use.cpu_percent is None
        assert use.sampled_ns == clock.wall_ns()
        clock.advance(1.0)
        sampler.look()
        assert sampler.uses[process.pid].cpu_percent == 0.0
        assert sampler.uses[process.pid].pss_bytes == use.pss_bytes


def test_work_shows_as_a_share_of_a_core() -> None:
    clock = ManualClock()
    sampler = ResourceSampler(lambda: [present(1, os.getpid())], clock)
    sampler.look()
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    clock.advance(1.0)
    sampler.look()
    percent = sampler.uses[os.getpid()].cpu_percent
    assert percent is not None
    assert 18 <= percent < 60


def test_threads_are_counted() -> None:
    before = procfs.read(os.getpid())
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with Path(__file__).open() as _file:
        after = procfs.read(os.getpid())
    done.set()
    thread.join()
    assert before is not None
    assert after is not None
    assert after.threads == before.threads + 1
    assert after.open_files == (before.open_files or 0) + 1


def test_a_process_that_is_gone_or_another_is_not_told_of() -> None:
    clock = ManualClock()
    with child("pass") as process:
        here = [replace(present(1, process.pid), process_started=procfs.start_ticks(process.pid))]
        sampler = ResourceSampler(lambda: here, clock)
        sampler.look()
        assert set(sampler.uses) == {process.pid}
        here[0] = replace(here[0], process_started=1)
        sampler.look()
        assert sampler.uses == {}
        here[0] = present(1, process.pid)
        sampler.look()
        assert set(sampler.uses) == {process.pid}
        here[0] = replace(here[0], silence=Silence.LOST)
        sampler.look()
        assert sampler.uses == {}
    here[0] = present(1, process.pid)
    sampler.look()
    assert sampler.uses == {}


def test_the_instances_of_one_process_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(procfs, "read", looked.append)
    ResourceSampler(lambda: [present(n, 7) for n in range(1_000)], ManualClock()).look()
    assert looked == [7]


def test_many_processes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_use, "MOST_AT_ONCE", 10)
    looked: list[int] = []
    monkeypatch.setattr(procfs, "read", looked.append)
    sampler = ResourceSampler(lambda: [present(n, n + 1) for n in range(25)], ManualClock())
    for _turn in range(3):
        sampler.look()
    assert len(looked) == 30
    assert set(looked) == set(range(1, 26))


async def test_memory_maps_are_read_seldom_and_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[int] = []
    reading = procfs.Reading(1, 0.0, 1, 1, 1)
    monkeypatch.setattr(procfs, "read", lambda _pid: reading)
    monkeypatch.setattr(procfs, "pss_bytes", weighed.append)
    clock = ManualClock()
    sampler = ResourceSampler(lambda: [present(n, n + 1) for n in range(8)], clock)
    for _second in range(60):
        sampler.look()
        await sampler.weigh()
        clock.advance(1.0)
    assert sorted(weighed) == sorted(list(range(1, 9)) * 2)


def test_the_start_of_a_process_is_a_time_of_the_clock() -> None:
    before = time.time_ns()
    with child("pass") as process:
        ticks = procfs.start_ticks(process.pid)
        assert ticks is not None
        assert abs(procfs.started_ns(ticks) - before) < 2_000_000_000
