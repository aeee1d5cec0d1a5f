"""The lease of an instance ends with its stream, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from minhos_mesh.registry.attach_session import hold
from minhos_mesh.registry.attachment import Answer, Attachment, Claim, Said
from minhos_mesh.registry.domain.leases import InstanceKey

KEY = InstanceKey("market_data", "a")


class Instances:
    time_to_live = 5.0

    def __init__(self) -> None:
        self.detached: list[Attachment] = []

    def detach(self, attachment: Attachment) -> None:
        self.detached.append(attachment)


async def test_a_stream_cancelled_while_it_waits_for_its_reader_gives_the_lease_back() -> None:
    reading, unwinding, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    instances = Instances()

    async def said() -> AsyncIterator[Said]:
        yield Claim(KEY, "127.0.0.1", 1, (), {})
        reading.set()
        try:
            await asyncio.Event().wait()
        finally:
            unwinding.set()
            await may_end.wait()

    async def attach(claim: Claim) -> Attachment:
        return Attachment(claim.key, "lease", 1)

    limits = SimpleNamespace(silence=lambda _deadline: contextlib.nullcontext(), beats=lambda: None)
    registry: Any = SimpleNamespace(attach=attach, instances=instances, limits=limits)

    async def stream() -> list[Answer]:
        return [answer async for answer in hold(registry, said(), 1.0)]

    task = asyncio.create_task(stream())
    async with asyncio.timeout(5):
        await reading.wait()
        task.cancel()
        await unwinding.wait()
        task.cancel()
        await asyncio.wait([task])
        may_end.set()
    assert [attachment.key for attachment in instances.detached] == [KEY]
