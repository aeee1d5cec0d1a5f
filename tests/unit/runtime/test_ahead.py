"""How far a source of ticks runs ahead of what is acknowledged."""

from __future__ import annotations

import asyncio

from minhos_mesh.runtime.ahead import MESSAGES, Ahead


async def _asked(ahead: Ahead) -> asyncio.Task[None]:
    """Somebody who waits for room, if there is none."""
    task = asyncio.create_task(ahead.room())
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_there_is_room_until_so_many_messages_are_on_their_way_and_again_when_one_was_taken_whole() -> None:
    ahead = Ahead()
    for number in range(MESSAGES):
        assert (await _asked(ahead)).done()
        ahead.sent(10 * (number + 1))
    waiting = await _asked(ahead)
    ahead.taken(9)
    assert len(ahead) == MESSAGES
    assert not waiting.done(), "the first message holds ten records"
    ahead.taken(25)
    assert len(ahead) == MESSAGES - 2
    await asyncio.wait_for(waiting, 5)


async def test_nobody_waits_for_room_on_a_stream_that_has_ended() -> None:
    ahead = Ahead(messages=1)
    ahead.sent(1)
    waiting = await _asked(ahead)
    ahead.end()
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(ahead.room(), 5)
