"""Measures the way of a record from its append to its tick at a reader: writer, Sierra client, market data and reader apart."""

from __future__ import annotations

import asyncio
import json
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import uvloop
from tests.one_service import configured, one_service, path_of_code
from tests.performance.mesh_run import MeshFailed
from tests.performance.results import Metric, Reach, Settings, percentile
from tests.performance.scid_read import trades

from minhos_mesh.runtime.clients import Clients
from minhos_mesh.runtime.market import MarketClient, MarketSubscription
from minhos_mesh.runtime.ticks import TickBatchView
from minhos_mesh.sierra_client.inotify import FolderWatch
from minhos_mesh.sierra_files.layout import EPOCH_SHIFT_US, SUFFIX
from minhos_mesh.sierra_files.reader import ScidFile
from minhos_mesh.sierra_files.writer import ScidWriter

SYMBOL: Final = "NQZ26-CME"
RATES: Final = (500, 2_000)
ROUND_S: Final = 8.0
LATE_S: Final = 20.0
REACH_MS: Final = 20.0
INGEST: Final = "minhos_api.market.v1.MarketDataIngestService"
PROVIDER: Final = "minhos_api.market.v1.MarketDataProviderService"
BARE: Final = "one process that reads the file by inotify"
WAYS: Final = ("inotify", "polled")


async def tail(settings: Settings) -> Sequence[Metric]:
    """For each rate: by inotify, by polling, and beside it the bare reader of the same file."""
    seen: dict[tuple[str, int], list[list[float]]] = {}
    for number in range(settings.rounds):
        for rate in RATES:
            for way in ("bare", *WAYS):
                folder = settings.folder / f"{way}-{rate}-{number}"
                told = await (_bare(folder, rate) if way == "bare" else _mesh(folder, rate, way))
                seen.setdefault((way, rate), []).append(told)
                p50, p99 = percentile(told, 0.5), percentile(told, 0.99)
                settings.say(f"round {number + 1}: {way} at {rate}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return _metrics(seen)


def _metrics(seen: dict[tuple[str, int], list[list[float]]]) -> list[Metric]:
    found = []
    for rate in RATES:
        bare = seen["bare", rate]
        for way in WAYS:
            rounds = seen[way, rate]
            for share, name in ((0.5, "p50"), (0.99, "p99 of all rounds")):
                whole = share > 0.5
                found.append(
                    Metric(
                        f"append -> tick delivered, {way}, {rate}/s, {name}",
                        "ms",
                        [percentile(of, share) for of in rounds],
                        f"{BARE}, {name}",
                        [percentile(of, share) for of in bare],
                        Reach(REACH_MS) if whole else None,
                        over_all=percentile([one for of in rounds for one in of], share) if whole else None,
                        reference_over_all=percentile([one for of in bare for one in of], share) if whole else None,
                    )
                )
    return found


async def _mesh(folder: Path, rate: int, way: str) -> list[float]:
    """Latencies in ms of the ticks of one round."""
    client = {"inotify": way == "inotify"}
    paths = configured(folder, market_data={"symbols": [SYMBOL]}, sierra_client=client)
    file = paths.sierra_dir / f"{SYMBOL}{SUFFIX}"
    ScidWriter.create(file).close()
    async with (
        one_service("market_data", folder) as market,
        one_service("sierra_client", folder, {INGEST: market.address}),
    ):
        return await _round("reader", market.address, file, rate)


async def _bare(folder: Path, rate: int) -> list[float]:
    folder.mkdir(parents=True)
    file = folder / f"{SYMBOL}{SUFFIX}"
    ScidWriter.create(file).close()
    return await _round("bare", str(file), file, rate)


async def _round(role: str, where: str, file: Path, rate: int) -> list[float]:
    count = int(rate * ROUND_S)
    reader = await _child(role, where, str(count))
    assert reader.stdout is not None, "started with a pipe"
    async with asyncio.timeout(LATE_S + ROUND_S):
        await reader.stdout.readline()
        writer = await _child("writer", str(file), str(count), str(rate))
        await writer.wait()
        told: list[float] = json.loads(await reader.stdout.readline())
        await reader.wait()
    if len(told) != count:
        raise MeshFailed(f"{len(told)} of {count} appended records came to the {role}")
    return told


async def _child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), *arguments, stdout=asyncio.subprocess.PIPE, env=path_of_code(),
        limit=1 << 26,
    )  # fmt: skip


def _write(path: Path, count: int, rate: int) -> None:
    """Appends one record at a time; each is stamped with the time at which it is appended."""
    writer, records = ScidWriter.resume(path), trades(count)
    begun, last_us = time.perf_counter(), 0
    for index in range(count):
        wait_s = begun + index / rate - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        last_us = max(last_us + 1, time.time_ns() // 1_000)
        records["time_us"][index] = EPOCH_SHIFT_US + last_us
        writer.append(records[index : index + 1])
    writer.close()


async def _read(address: str, count: int) -> None:
    clients = Clients({PROVIDER: address})
    told: list[float] = []
    async with MarketClient(clients).subscribe([SYMBOL]) as subscription:
        print("ready", flush=True)
        async with asyncio.timeout(LATE_S + ROUND_S):
            await _collect(subscription, count, told)
    await clients.close()
    print(json.dumps(told), flush=True)


async def _collect(subscription: MarketSubscription, count: int, told: list[float]) -> None:
    async for update in subscription:
        if isinstance(update, TickBatchView):
            now_ns = time.time_ns()
            told += ((now_ns - update.ticks["event_time_ns"]) / 1e6).tolist()
            if len(told) >= count:
                return


def _read_bare(path: Path, count: int) -> None:
    """The least that is possible: told by inotify, read, done."""
    watch, told = FolderWatch(path.parent), list[float]()
    waiting = select.poll()
    waiting.register(watch.fileno(), select.POLLIN)
    with ScidFile(path) as file:
        print("ready", flush=True)
        while len(told) < count and waiting.poll(LATE_S * 1e3):
            watch.changed()
            found = file.read(len(told), count)
            now_ns = time.time_ns()
            told += ((now_ns - (found["time_us"] - EPOCH_SHIFT_US) * 1_000) / 1e6).tolist()
    watch.close()
    print(json.dumps(told), flush=True)


def _main(role: str, where: str, count: str, rate: str = "0") -> None:
    if role == "writer":
        _write(Path(where), int(count), int(rate))
    elif role == "bare":
        _read_bare(Path(where), int(count))
    else:
        uvloop.run(_read(where, int(count)))


if __name__ == "__main__":
    np.seterr(all="raise")
    _main(*sys.argv[1:])
