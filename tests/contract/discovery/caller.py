"""A stock gRPC client that resolves by xDS and knows nothing of this project; driven by JSON lines on standard input.

python caller.py CONTROL_PLANE ZONE
"""

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
        self.begun: list[asyncio.Task[tuple[str, float]]] = []
        self.running = False
        self.seen: list[tuple[float, float, str]] = []

    async def call(
        self,
        path: str,
        timeout: float = 5.0,
        wait: bool = False,
        metadata: dict[str, str] | None = None,
        target: str = "",
    ) -> tuple[str, float]:
        target = target or f"xds:///{path.split('/')[1]}"
        if target not in self.channels:
            self.channels[target] = grpc.aio.insecure_channel(target)
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channels[target].unary_unary(path)
        start = time.monotonic()
        try:
            call = method(b"", timeout=timeout, wait_for_ready=wait, metadata=tuple((metadata or {}).items()))
            await call
            who = str(dict(await call.trailing_metadata()).get("served-by", "?"))
        except grpc.aio.AioRpcError as error:
            who = f"{error.code().name}: {error.details()}"
        return who, time.monotonic() - start

    async def keep_calling(self, pause: float, **given: Any) -> None:
        while self.running:
            start = time.monotonic()
            who, took = await self.call(**given)
            self.seen.append((start, took, who))
            if pause:
                await asyncio.sleep(pause)

    async def until(self, wanted: str, limit: float = 5.0, **given: Any) -> dict[str, Any]:
        end, tried = time.monotonic() + limit, 0
        who = "nobody"
        while time.monotonic() < end:
            who, _took = await self.call(**given)
            tried += 1
            if who.startswith(wanted):
                return {"at": time.monotonic(), "who": who, "tried": tried}
            await asyncio.sleep(0.001)
        return {"at": None, "who": who, "tried": tried}

    async def handle(self, op: str, **given: Any) -> Any:
        if op == "call":
            count = given.pop("n", 1)
            return [await self.call(**given) for _ in range(count)]
        if op == "count":
            count = given.pop("n", 1)
            return collections.Counter([(await self.call(**given))[0] for _ in range(count)])
        if op == "at_once":
            count = given.pop("n", 1)
            return [who for who, _took in await asyncio.gather(*(self.call(**given) for _ in range(count)))]
        if op == "begin":
            self.begun.append(asyncio.create_task(self.call(**given)))
            return {}
        if op == "finish":
            begun, self.begun = self.begun, []
            return await asyncio.gather(*begun)
        if op == "until":
            return await self.until(**given)
        if op == "start":
            workers, pause = given.pop("workers", 2), given.pop("pause", 0.0)
            self.running, self.seen = True, []
            self.load = [asyncio.create_task(self.keep_calling(pause, **given)) for _ in range(workers)]
            return {}
        self.running = False
        await asyncio.gather(*self.load)
        return self.report()

    def report(self) -> dict[str, Any]:
        """How many calls each answered (or how they failed), with the first and last time that one began and that one ended."""
        first: dict[str, float] = {}
        last: dict[str, float] = {}
        ended: dict[str, float] = {}
        for start, took, who in self.seen:
            first[who] = min(first.get(who, start), start)
            last[who] = max(last.get(who, 0.0), start)
            ended[who] = max(ended.get(who, 0.0), start + took)
        by = collections.Counter(who for _start, _took, who in self.seen)
        longest = max((took for _start, took, _who in self.seen), default=0.0)
        return {"by": by, "first": first, "last": last, "ended": ended, "longest": longest}


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
                {"server_uri": sys.argv[1], "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
            ],
            "node": {"id": "stock-client", "locality": {"zone": sys.argv[2]}},
        }
    )
    asyncio.run(main())
