"""A reader in a process of its own, for the benchmark of the bus: says how long each event was on its way to its handler.

Arguments: what to read (`bus`, `nats` or `redis`), its address, and for the bus how: `all`, `latest` or the name of a durable
consumer, with the seconds that an event takes to be handled. It prints `open`, then one line of JSON for each line that it reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

SHARES = (0.5, 0.99)


class Taken:
    """What came since the last question."""

    def __init__(self) -> None:
        self.waits_ns: list[int] = []
        self.skipped = 0

    def note(self, sent_ns: int) -> None:
        """An event came that was sent at this moment."""
        self.waits_ns.append(time.perf_counter_ns() - sent_ns)

    def told(self) -> str:
        """The answer, after which it begins anew."""
        waits, self.waits_ns = sorted(self.waits_ns), []
        skipped, self.skipped = self.skipped, 0
        at = [waits[min(len(waits) - 1, int(len(waits) * share))] / 1e6 if waits else None for share in SHARES]
        return json.dumps({"count": len(waits), "skipped": skipped, "p50_ms": at[0], "p99_ms": at[1]})


async def read_bus(address: str, taken: Taken, how: str, handling_s: float) -> None:
    """Reads as a service does."""
    from tests.performance.bus_events import sent_ns

    from minhos_api.events.v1 import event_pb2
    from minhos_mesh.runtime.clients import Clients
    from minhos_mesh.runtime.config import MeshConfig
    from minhos_mesh.runtime.context import ServiceContext
    from minhos_mesh.runtime.events import EventClient, Gap, Reading
    from minhos_mesh.runtime.paths import MeshPaths

    def on_gap(gap: Gap) -> None:
        taken.skipped += gap.skipped

    async def handle(event: event_pb2.Event) -> None:
        taken.note(sent_ns(event))
        if handling_s:
            await asyncio.sleep(handling_s)

    paths = MeshPaths(Path(tempfile.gettempdir()))
    clients = Clients({"minhos_api.events.v1.EventBusService": address})
    context = ServiceContext("benchmark", "benchmark-1", MeshConfig(), paths, clients)
    if how in ("all", "latest"):
        reading = Reading(latest_per_subject=how == "latest", on_gap=on_gap, credit=32 if handling_s else 256)
    else:
        reading = Reading(durable=how, credit=256, ack_deadline_s=600)
    await EventClient(context).subscribe_types([], handle, reading).wait_open(20)


async def read_nats(address: str, taken: Taken) -> None:
    """Reads by an ordered consumer."""
    import nats

    async def handle(message: Any) -> None:
        taken.note(int.from_bytes(message.data[:8], "big"))

    connection = await nats.connect(f"nats://{address}")
    await connection.jetstream().subscribe("bench.*", cb=handle, ordered_consumer=True)


async def read_redis(address: str, taken: Taken) -> asyncio.Task[None]:
    """Reads by XREAD that waits."""
    from redis.asyncio import Redis

    client: Any = Redis.from_url(f"redis://{address}")
    last = [newest[0][0] if (newest := await client.xrevrange("bench", count=1)) else b"0"]

    async def read() -> None:
        while True:
            for _, entries in await client.xread({"bench": last[0]}, count=256, block=1_000):
                for last[0], fields in entries:
                    taken.note(int.from_bytes(fields[b"p"][:8], "big"))

    return asyncio.create_task(read())


async def main(what: str, address: str, how: str = "all", handling_s: str = "0") -> None:
    """Reads until its standard input ends."""
    taken = Taken()
    task = None
    if what == "bus":
        await read_bus(address, taken, how, float(handling_s))
    elif what == "nats":
        await read_nats(address, taken)
    else:
        task = await read_redis(address, taken)
    print("open", flush=True)
    questions = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    while await questions.readline():
        print(taken.told(), flush=True)
    if task is not None:
        task.cancel()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    uvloop.run(main(*sys.argv[1:]))
