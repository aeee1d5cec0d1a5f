"""A stock gRPC client that resolves by xDS and knows nothing of this project; driven by JSON lines on standard input."""

from __future__ import annotations

import asyncio
import collections
import json
import os
import sys
import time
from typing import Any

import grpc


class Caller:
    def __init__(self) -> None:
        self.channels: dict[str, grpc.aio.Channel] = {}
        self.load: list[asyncio.Task[None]] = []
        self.running = False
        self.seen: list[tuple[float, float, str]] = []

    async def call(self, path: str, timeout: float, wait: bool) -> tuple[str, float]:
        contract = path.split("/")[1]
        if contract not in self.channels:
            self.channels[contract] = grpc.aio.insecure_channel(f"xds:///{contract}")
        start = time.monotonic()
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channels[contract].unary_unary(path)
        call = method(b"", timeout=timeout, wait_for_ready=wait)
        try:
            await call
            who = dict(await call.trailing_metadata()).get("served-by", "?")
        except grpc.aio.AioRpcError as error:
            who = f"{error.code().name}: {error.details()}"
        return str(who), time.monotonic() - start

    async def keep_calling(self, path: str, timeout: float, wait: bool) -> None:
        while self.running:
            start = time.monotonic()
            who, took = await self.call(path, timeout, wait)
            self.seen.append((start, took, who))

    async def until(self, path: str, wanted: str, limit: float) -> dict[str, Any]:
        end = time.monotonic() + limit
        who = "nobody"
        while time.monotonic() < end:
            who, _took = await self.call(path, 1.0, False)
            if who.startswith(wanted):
                return {"at": time.monotonic(), "who": who}
            await asyncio.sleep(0.001)
        return {"at": None, "who": who}

    async def handle(self, op: str, **given: Any) -> Any:
        if op == "call":
            count = given.pop("n", 1)
            return [await self.call(**given) for _ in range(count)]
        if op == "until":
            return await self.until(**given)
        if op == "start":
            workers = given.pop("workers", 2)
            self.running, self.seen = True, []
            self.load = [asyncio.create_task(self.keep_calling(**given)) for _ in range(workers)]
            return {}
        self.running = False
        await asyncio.gather(*self.load)
        last: dict[str, float] = {}
        for start, _took, who in self.seen:
            last[who] = max(last.get(who, 0.0), start)
        by = collections.Counter(who for _start, _took, who in self.seen)
        return {"by": by, "last": last, "longest": max((took for _s, took, _w in self.seen), default=0.0)}


async def main() -> None:
    caller, reader = Caller(), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := await reader.readline():
        print(json.dumps(await caller.handle(**json.loads(line))), flush=True)
    for channel in caller.channels.values():
        await channel.close()


if __name__ == "__main__":
    os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps(
        {
            "xds_servers": [
                {"server_uri": address, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
                for address in sys.argv[1:]
            ],
            "node": {"id": "stock-client", "locality": {"zone": "local"}},
        }
    )
    asyncio.run(main())
