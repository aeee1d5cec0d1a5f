"""How far a replay may go."""

from __future__ import annotations

from minhos_mesh.paper_venue.held_ticks import HeldTicks
from minhos_mesh.runtime.tick_layout import new_ticks
from minhos_mesh.runtime.ticks import TickBatchView


def batch(first: int, count: int) -> TickBatchView:
    return TickBatchView("NQZ26-CME", 3, 1, first, new_ticks(count))


def spans(batches: list[TickBatchView]) -> list[tuple[int, int]]:
    return [(b.first_sequence, b.last_sequence) for b in batches]


def test_nothing_is_released_before_it_is_allowed() -> None:
    held = HeldTicks()
    held.add(batch(1, 10))
    assert held.release(1) == []
    held.allow(2, 5)
    assert held.release(1) == []
    assert len(held) == 10


def test_a_batch_is_cut_where_the_permission_ends() -> None:
    held = HeldTicks()
    held.add(batch(1, 10))
    held.add(batch(11, 5))
    held.allow(1, 4)
    assert spans(held.release(1)) == [(1, 4)]
    held.allow(1, 3)
    assert held.release(1) == []
    held.allow(1, 12)
    assert spans(held.release(1)) == [(5, 10), (11, 12)]
    assert len(held) == 3


def test_ticks_that_come_again_are_held_once() -> None:
    held = HeldTicks()
    held.add(batch(1, 10))
    held.add(batch(6, 10))
    held.allow(1, 99)
    assert spans(held.release(1)) == [(1, 10), (11, 15)]


def test_a_place_is_reached_once_and_only_when_its_ticks_took_effect() -> None:
    held = HeldTicks()
    held.allow(1, 5)
    assert not held.reached(1, 4)
    assert held.reached(1, 5)
    assert not held.reached(1, 5)
    assert not held.reached(2, 9)
    held.allow(1, 6)
    assert held.reached(1, 6)


def test_permission_outlives_a_source_that_began_anew() -> None:
    held = HeldTicks()
    held.add(batch(1, 10))
    held.allow(2, 3)
    held.restart()
    assert len(held) == 0
    held.add(batch(1, 5))
    assert spans(held.release(2)) == [(1, 3)]
