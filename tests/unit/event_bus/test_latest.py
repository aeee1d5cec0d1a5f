"""What a reader gets that wants only the newest."""

from __future__ import annotations

from minhos_mesh.event_bus.domain.latest import Gap, LatestPerSubject
from minhos_mesh.event_bus.domain.records import StoredEvent


def event(sequence: int, subject: str, event_type: str = "market_data.updated") -> StoredEvent:
    return StoredEvent(sequence, event_type, subject, 0, b"")


def test_only_the_newest_per_type_and_subject_is_kept_and_the_rest_is_counted() -> None:
    latest = LatestPerSubject()
    latest.offer([event(1, "NQ"), event(2, "ES"), event(3, "NQ"), event(4, "NQ", "trade.executed"), event(5, "NQ")])
    events, gap = latest.take(10)
    assert [item.sequence for item in events] == [2, 4, 5]
    assert gap == Gap(1, 3, 2)


def test_a_skip_is_told_once_and_what_was_not_taken_stays() -> None:
    latest = LatestPerSubject()
    latest.offer([event(1, "NQ"), event(2, "NQ"), event(3, "ES")])
    events, gap = latest.take(1)
    assert ([item.sequence for item in events], gap) == ([2], Gap(1, 1, 1))
    latest.offer([event(4, "ES")])
    events, gap = latest.take(1)
    assert ([item.sequence for item in events], gap) == ([4], Gap(3, 3, 1))
    assert len(latest) == 0
