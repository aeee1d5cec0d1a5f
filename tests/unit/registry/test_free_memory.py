"""When the registry gives memory back."""

from __future__ import annotations

from minhos_mesh.registry.free_memory import FIRST_S, GROWTH_BYTES, LAST_S, FreeMemory
from minhos_mesh.runtime.clock import ManualClock

MB = 1_048_576


async def test_memory_is_given_back_when_it_has_grown_and_seldom_when_that_brings_nothing() -> None:
    held, used = [100 * MB], [100 * MB]
    asked: list[int] = []

    def trim() -> None:
        asked.append(held[0])
        held[0] = used[0]

    memory = FreeMemory(ManualClock(), held=lambda: held[0], trim=trim)
    held[0] += GROWTH_BYTES - 1
    await memory.look()
    assert asked == []
    held[0] += 1
    await memory.look()
    assert (asked, held, memory.pause_s) == ([100 * MB + GROWTH_BYTES], [100 * MB], FIRST_S)
    held[0] = used[0] = 300 * MB
    pauses = []
    for _attempt in range(10):
        await memory.look()
        pauses.append(memory.pause_s)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_S
    held[0] = 400 * MB
    await memory.look()
    assert memory.pause_s == FIRST_S
