"""The faults that a bus is put through while everybody publishes and reads, each by its name."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.contract.event_bus.nats_server import NatsServer
from tests.faults.bus.bus_process import BusEnded
from tests.faults.bus.history import History, Outcome
from tests.faults.bus.world import World
from tests.waiting import freeze, thaw

Happening = Callable[[World], Awaitable[None]]

KILL_POINTS: Final = {
    "publish.before_commit": 30,
    "publish.after_commit": 30,
    "publish.before_answer": 30,
    "consumer.before_commit": 10,
    "consumer.after_commit": 10,
    "dead_letter.before_commit": 2,
    "dead_letter.after_commit": 2,
    "redelivery.before_send": 6,
}
"""Points that both engines have, and at which time at the latest it is that the bus dies there."""

RETENTION_POINTS: Final = {"retention.before_commit": 2, "retention.after_commit": 2}
STREAM_POINTS: Final = {"stream.before_write": 20, "stream.after_write": 20}
LONG_S: Final = 0.6
HOUR_S: Final = 3_600.0
ENOUGH_TO_FORGET: Final = 600
"""Events since old ones were removed the last time, so that more than one step of it is to do."""


def killed_at(point: str, latest: int) -> Happening:
    """The bus dies at a named point."""

    async def happen(world: World) -> None:
        await world.up(f"{point}:{world.random.randint(1, latest)}")
        await _dead(world, point)

    return happen


async def _dead(world: World, point: str) -> None:
    try:
        await world.bus.ended()
    except TimeoutError:
        world.missed.append(f"the bus did not come to {point}")
        await world.bus.kill()
    world.note(f"kill at {point}")


def killed_while_forgetting(point: str, latest: int) -> Happening:
    """The bus dies while it removes old events: they are old because it comes back an hour later, and runs for a while then."""

    async def happen(world: World) -> None:
        await world.up()
        await world.until(lambda: world.acked() >= world.forgotten + ENOUGH_TO_FORGET, "enough to be forgotten")
        world.forgotten = world.acked()
        await world.drained()
        world.note("kill")
        await world.bus.kill()
        world.latest_s += HOUR_S  # beyond all that was ever stored, for store times never go back
        world.bus.offset_s = world.latest_s
        await world.bus.start(f"{point}:{world.random.randint(1, latest)}", passed_s=HOUR_S)
        world.note("up")
        world.publish_on()
        await _dead(world, point)

    return happen


def frozen_at(point: str, latest: int) -> Happening:
    """The bus stands still at a named point, and goes on."""

    async def happen(world: World) -> None:
        await world.up(f"{point}:{world.random.randint(1, latest)}:stop")
        try:
            await world.bus.frozen()
        except TimeoutError:
            world.missed.append(f"the bus did not come to {point}")
        world.note(f"freeze at {point}", stops=False)
        await asyncio.sleep(LONG_S)
        thaw(world.bus.pid)
        await world.progress(f"a freeze at {point}")

    return happen


async def killed(world: World) -> None:
    """The bus dies wherever it is."""
    await world.up()
    await asyncio.sleep(world.random.random() * LONG_S)
    world.note("kill")
    await world.bus.kill()


async def frozen(world: World) -> None:
    """The bus stands still wherever it is, and goes on."""
    await world.up()
    await asyncio.sleep(world.random.random() * LONG_S)
    await asyncio.to_thread(freeze, world.bus.pid)
    world.note("freeze", stops=False)
    await asyncio.sleep(LONG_S)
    thaw(world.bus.pid)
    await world.progress("a freeze")


async def clock_set(world: World) -> None:
    """The bus's clock is set five hours forward or back while it works."""
    await world.up()
    forward = world.random.random() < 0.5
    world.bus.offset_s += 5 * HOUR_S if forward else -5 * HOUR_S
    world.latest_s = max(world.latest_s, world.bus.offset_s)
    world.bus.send(signal.SIGUSR1 if forward else signal.SIGUSR2)
    world.note("clock forward" if forward else "clock back", stops=False)
    await world.progress("a jump of the clock")


async def disk_refuses(world: World) -> None:
    """The journal's files may not grow for a while: the bus refuses, stays alive, and goes on by itself."""
    await world.up()
    before = len(world.history.attempts)
    world.bus.limit_files(16_384)
    world.note("disk refuses", stops=False)
    attempts = world.history.attempts
    refused = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    await world.until(lambda: any(a.code in refused for a in attempts[before:]), "a refusal by a disk that refuses")
    await asyncio.sleep(LONG_S)
    if not world.bus.is_alive:
        world.missed.append("the bus did not survive a disk that refuses")
        return
    world.bus.limit_files(None)
    await world.progress("a disk that refused")


SQLITE: Final[dict[str, Happening]] = {
    **{f"kill at {point}": killed_at(point, latest) for point, latest in KILL_POINTS.items()},
    **{f"kill at {point}": killed_while_forgetting(point, latest) for point, latest in RETENTION_POINTS.items()},
    "kill": killed,
    "freeze": frozen,
    "freeze at publish.after_commit": frozen_at("publish.after_commit", 20),
    "freeze at consumer.before_commit": frozen_at("consumer.before_commit", 10),
    "clock": clock_set,
    "disk refuses": disk_refuses,
}
"""What a bus on a file is put through."""


def of_stream(server: NatsServer) -> dict[str, Happening]:
    """What a bus on JetStream is put through, its server too."""

    async def server_killed(world: World) -> None:
        await world.up()
        await asyncio.sleep(world.random.random() * LONG_S)
        world.note("kill of the server", stops=False)
        server.kill()
        await asyncio.sleep(world.random.random() * LONG_S)
        server.start()
        await asyncio.to_thread(server.wait)
        await world.progress("a kill of the server")

    async def server_frozen(world: World) -> None:
        await world.up()
        world.note("freeze of the server", stops=False)
        await asyncio.to_thread(freeze, server.pid)
        await asyncio.sleep(LONG_S)
        thaw(server.pid)
        await world.progress("a freeze of the server")

    points = KILL_POINTS | STREAM_POINTS
    return {
        **{f"kill at {point}": killed_at(point, latest) for point, latest in points.items()},
        "kill": killed,
        "freeze": frozen,
        "kill of the server": server_killed,
        "freeze of the server": server_frozen,
    }


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of that size in the folder; false where this process may not make one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={size}", "minhos-test", str(folder)]
    made = mount is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(folder: Path, size: str) -> None:
    """Gives a small file system another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


async def full_disk(folder: Path, seed: int) -> tuple[History, list[str]]:
    """A bus whose disk gets full, is killed then, comes back on the full disk and goes on when there is room."""
    async with World(folder, seed, padding=3_000) as world:
        attempts = world.history.attempts
        full = {"RESOURCE_EXHAUSTED"}
        await world.until(lambda: any(a.code in full for a in attempts), "a refusal by a full disk")
        world.note("disk full", stops=False)
        await asyncio.sleep(LONG_S)
        if not world.bus.is_alive:
            world.missed.append("the bus did not survive a full disk")
        world.note("kill")
        await world.bus.kill()
        try:
            await world.bus.start()
        except BusEnded:
            world.note("refuses to start on the full disk")
        enlarge(folder, "64m")
        await world.up()
        await world.progress("a full disk")
        if not any(a.outcome is Outcome.ACKED for a in attempts):
            world.missed.append("nothing was ever acknowledged")
        return await world.finish(), world.missed
