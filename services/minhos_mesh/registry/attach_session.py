"""Decides the course of one attach stream: hello first, then heartbeats and a goodbye; the stream is the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from minhos_mesh.registry.attach_limits import HELLO_SECONDS, AttachLimits, SilentStream
from minhos_mesh.registry.attachment import Answer, Attachment, Beat, BeatTaken, Claim, Goodbye, Granted, Said
from minhos_mesh.registry.service import Registry


class MessageOutOfPlace(Exception):
    """Expected: a message came that is not allowed at that point of the stream."""

    def __init__(self, field: str, seen: str, allowed: str) -> None:
        super().__init__(f"{field} is {seen!r}: allowed is {allowed}")
        self.field = field
        self.seen = seen
        self.allowed = allowed


async def hold(registry: Registry, said: AsyncIterator[Said], heartbeat_seconds: float) -> AsyncGenerator[Answer, None]:
    """Holds the lease of one instance for as long as its stream lives.

    Raises MessageOutOfPlace, ContractViolation, TooMuch, InstanceHeld or StaleToken.
    """
    claim = await _first(registry.limits, said)
    attachment = await registry.attach(claim)
    reader = asyncio.create_task(_read(registry, attachment, said), name="attach-reader")
    try:
        yield Granted(attachment.lease_id, attachment.token, registry.instances.time_to_live, heartbeat_seconds)
        while (answer := await attachment.next_answer()) is not None:
            yield answer
    finally:
        reader.cancel()
        try:
            await asyncio.gather(reader, return_exceptions=True)
        finally:
            # Also when this stream is cancelled while it waits: a lease must not outlive its stream.
            registry.instances.detach(attachment)


async def _first(limits: AttachLimits, said: AsyncIterator[Said]) -> Claim:
    stream: SilentStream | None = None
    try:
        async with asyncio.timeout(HELLO_SECONDS) as deadline:
            with limits.silence(deadline) as stream:
                first = await anext(said, None)
    except TimeoutError:
        if stream is not None and stream.gave_way:
            raise stream.too_many() from None
        raise MessageOutOfPlace("message", f"nothing for {HELLO_SECONDS:g} s", "a hello at once") from None
    if not isinstance(first, Claim):
        raise MessageOutOfPlace("message", _name(first), "hello as the first message")
    return first


async def _read(registry: Registry, attachment: Attachment, said: AsyncIterator[Said]) -> None:
    """Takes in what the instance says until its stream ends, and ends the attachment with the reason."""
    beats = registry.limits.beats()
    try:
        async for message in said:
            if isinstance(message, Beat):
                registry.limits.check_beat(beats)
                attachment.answer(BeatTaken(registry.instances.beat(attachment, message)))
            elif isinstance(message, Goodbye):
                await registry.leave(attachment, message.reason)
                break
            else:
                raise MessageOutOfPlace("message", _name(message), "heartbeat or goodbye after the first message")
    except Exception as error:  # noqa: BLE001 - handed to the stream, which ends with it
        attachment.end(error)
    else:
        attachment.end(None)


def _name(message: Said | None) -> str:
    names = {Claim: "hello", Beat: "heartbeat", Goodbye: "goodbye"}
    return "nothing" if message is None else names[type(message)]
