"""Which answers of a reader are late, and which are about something that it never had."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.event_bus.domain.given import RecentlyGiven


@given(st.lists(st.integers(1, 50)), st.integers(1, 10))
def test_what_was_given_is_always_known(sequences: list[int], remembered: int) -> None:
    given_ = RecentlyGiven(remembered)
    for sequence in sequences:
        given_.add(sequence)
    assert all(sequence in given_ for sequence in sequences)


def test_what_was_never_given_is_not_known() -> None:
    given_ = RecentlyGiven()
    given_.add(3)
    given_.add(5)
    assert [sequence for sequence in range(7) if sequence in given_] == [3, 5]


def test_only_what_is_older_than_all_that_is_remembered_is_taken_for_late() -> None:
    given_ = RecentlyGiven(2)
    for sequence in (10, 20, 30):
        given_.add(sequence)
    assert [sequence for sequence in (0, 5, 10, 15, 20, 25, 30) if sequence in given_] == [5, 10, 20, 30]
