"""How far a source of ticks runs ahead of what is acknowledged."""

from __future__ import annotations

import asyncio

from minhos_mesh.market_data.source_sessions import ACKNOWLEDGED_BATCHES, ACKNOWLEDGED_S
from minhos_mesh.runtime.ahead import FEWEST, LARGE, LATE_S, MESSAGES, Ahead


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


async def test_fewer_may_be_ahead_while_they_are_taken_late_and_again_as_many_once_they_are_taken_soon() -> None:
    now_s = [0.0]
    ahead = Ahead(now_s=lambda: now_s[0])
    seen = []
    for position in range(1, 8):
        ahead.sent(position)
        now_s[0] += 2 * LATE_S
        ahead.taken(position)
        seen.append(ahead.allowed)
    assert seen == [12, FEWEST, FEWEST, FEWEST, FEWEST, FEWEST, FEWEST]
    for position in range(8, 12):
        ahead.sent(position)
        now_s[0] += ACKNOWLEDGED_S
        ahead.taken(position)
    assert ahead.allowed == MESSAGES


async def test_only_the_newest_message_that_is_acknowledged_says_whether_they_are_taken_late() -> None:
    now_s = [0.0]
    ahead = Ahead(now_s=lambda: now_s[0])
    ahead.sent(1)
    now_s[0] += 2 * LATE_S
    ahead.sent(2)
    ahead.taken(2)
    assert ahead.allowed == MESSAGES


async def test_messages_of_many_ticks_are_not_held_back() -> None:
    ahead = Ahead(messages=1)
    for number in range(5):
        ahead.sent(number * LARGE, LARGE)
        assert (await _asked(ahead)).done()
    assert len(ahead) == 0


def test_an_acknowledgement_that_waited_for_more_is_not_taken_for_a_late_one() -> None:
    assert ACKNOWLEDGED_S < LATE_S
    assert ACKNOWLEDGED_BATCHES <= FEWEST
