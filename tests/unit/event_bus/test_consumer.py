"""What members of a durable consumer get: order per subject, at least once, bounded attempts, dead letters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.event_bus.domain.consumer import LONGEST_RUN, Consumer, Delivery
from minhos_mesh.event_bus.domain.errors import ConsumerConflict, NotDelivered
from minhos_mesh.event_bus.domain.patterns import ALL
from minhos_mesh.event_bus.domain.records import ConsumerState, StoredEvent
from minhos_mesh.event_bus.domain.redelivery import RedeliveryPolicy

SECOND = 1_000_000_000
TENTH = SECOND // 10


def make_consumer(max_attempts: int = 3, state: ConsumerState | None = None) -> Consumer:
    return Consumer(state or ConsumerState("c", ALL, max_attempts, 30 * SECOND, 0), lambda: 7)


def event(sequence: int, subject: str = "NQ", size: int = 1) -> StoredEvent:
    return StoredEvent(sequence, "trade.executed", subject, 0, b"x" * size)


def sequences(deliveries: list[Delivery]) -> list[int]:
    return [delivery.event.sequence for delivery in deliveries]


def joined(consumer: Consumer, *names: str, credit: int = 100) -> Consumer:
    for name in names:
        consumer.join(name)
        consumer.grant(name, credit)
    return consumer


def test_nothing_goes_out_without_credit() -> None:
    consumer = make_consumer()
    consumer.join("a")
    consumer.offer(event(1))
    assert consumer.take(0) == []
    consumer.grant("a", 1)
    assert sequences(consumer.take(0)) == [1]


def test_credit_bounds_what_goes_out() -> None:
    consumer = joined(make_consumer(), "a", credit=2)
    for sequence in range(1, 5):
        consumer.offer(event(sequence, f"S{sequence}"))
    assert sequences(consumer.take(0)) == [1, 2]
    consumer.ack("a", 1, 0)
    assert consumer.take(0) == []
    consumer.grant("a", 1)
    assert sequences(consumer.take(0)) == [3]


def test_a_subject_is_at_one_member_and_nothing_more_of_it_goes_out_before_it_is_settled() -> None:
    consumer = joined(make_consumer(), "a", "b")
    consumer.offer(event(1))
    consumer.offer(event(2))
    first = consumer.take(0)
    assert {delivery.member for delivery in first} == {"a"}
    consumer.offer(event(3))
    consumer.ack("a", 1, 0)
    assert consumer.take(0) == []
    consumer.ack("a", 2, 0)
    assert sequences(consumer.take(0)) == [3]


def test_members_share_the_subjects() -> None:
    consumer = joined(make_consumer(), "a", "b")
    for sequence in range(1, 9):
        consumer.offer(event(sequence, f"S{sequence}"))
    members = [delivery.member for delivery in consumer.take(0)]
    assert members.count("a") == members.count("b") == 4


def test_a_run_is_bounded_in_number_and_bytes() -> None:
    consumer = joined(make_consumer(), "a")
    for sequence in range(1, 50):
        consumer.offer(event(sequence))
    assert len(consumer.take(0)) == LONGEST_RUN
    consumer = joined(make_consumer(), "a")
    for sequence in range(1, 5):
        consumer.offer(event(sequence, size=200_000))
    assert sequences(consumer.take(0)) == [1]


def test_a_failed_event_comes_again_on_schedule_and_holds_its_subject_only() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.offer(event(2))
    consumer.offer(event(3, "ES"))
    assert sequences(consumer.take(0)) == [1, 2, 3]
    consumer.nack("a", 1, "broken", 0)
    consumer.ack("a", 3, 0)
    consumer.offer(event(4, "ES"))
    assert sequences(consumer.take(0)) == [4]
    assert consumer.wake_at() == TENTH
    assert consumer.take(TENTH - 1) == []
    again = consumer.take(TENTH)
    assert [(d.event.sequence, d.attempt) for d in again] == [(1, 2), (2, 1)]
    assert consumer.redelivered == 2


def test_the_last_attempt_makes_a_dead_letter_with_every_error_and_frees_the_subject() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.offer(event(2))
    now = 0
    for attempt in (1, 2, 3):
        taken = consumer.take(now)
        assert (taken[0].event.sequence, taken[0].attempt) == (1, attempt)
        consumer.nack("a", 1, f"error {attempt}", now)
        now += 10 * SECOND
    assert sequences(consumer.take(now)) == [2]
    ((letter,), _) = consumer.take_letters()
    assert [failure.error for failure in letter.failures] == ["error 1", "error 2", "error 3"]
    assert (letter.event.sequence, letter.consumer, letter.dead_time_ns) == (1, "c", 7)
    assert consumer.take_letters()[0] == []


def test_an_event_without_an_answer_fails_at_its_deadline() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.take(0)
    assert consumer.wake_at() == 30 * SECOND
    assert consumer.take(30 * SECOND) == []
    assert consumer.failed == 1
    assert sequences(consumer.take(30 * SECOND + TENTH)) == [1]
    consumer.ack("a", 1, 31 * SECOND)
    assert consumer.unsettled == 0


def test_the_deadline_of_a_run_begins_anew_with_each_answer() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.offer(event(2))
    consumer.take(0)
    consumer.ack("a", 1, 29 * SECOND)
    consumer.take(31 * SECOND)
    assert consumer.failed == 0
    consumer.take(60 * SECOND)
    assert consumer.failed == 1


def test_a_late_answer_is_counted_and_settles_nothing() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.take(0)
    consumer.take(30 * SECOND)
    consumer.ack("a", 1, 30 * SECOND)
    assert (consumer.late, consumer.unsettled) == (1, 1)


def test_an_answer_to_what_was_never_delivered_is_refused() -> None:
    consumer = joined(make_consumer(), "a", credit=1)
    consumer.offer(event(1))
    consumer.offer(event(2, "ES"))
    consumer.take(0)
    for sequence in (0, 2, 99):
        with pytest.raises(NotDelivered, match=str(sequence)):
            consumer.ack("a", sequence, 0)
        with pytest.raises(NotDelivered):
            consumer.nack("a", sequence, "no", 0)


def test_what_was_out_at_a_member_that_left_cleanly_goes_to_another_without_an_attempt_lost() -> None:
    consumer = joined(make_consumer(), "a")
    consumer.offer(event(1))
    consumer.offer(event(2, "ES"))
    consumer.take(0)
    joined(consumer, "b")
    consumer.leave("a", 0, clean=True)
    assert [(d.member, d.event.sequence, d.attempt) for d in consumer.take(0)] == [("b", 1, 1), ("b", 2, 1)]


def test_a_member_that_vanished_is_blamed_for_the_oldest_event_only() -> None:
    consumer = joined(make_consumer(), "a", "b")
    consumer.leave("b", 0, clean=True)
    for sequence, subject in ((1, "NQ"), (2, "NQ"), (3, "ES")):
        consumer.offer(event(sequence, subject))
    consumer.take(0)
    joined(consumer, "c")
    consumer.leave("a", 0, clean=False)
    assert consumer.failed == 1
    assert sequences(consumer.take(0)) == [3]
    assert [(d.event.sequence, d.attempt) for d in consumer.take(TENTH)] == [(1, 2), (2, 1)]


def test_a_member_that_retires_gets_nothing_more_and_only_what_it_was_sent_counts() -> None:
    consumer = joined(make_consumer(), "a")
    for sequence, subject in ((1, "NQ"), (2, "NQ"), (3, "ES"), (4, "ES")):
        consumer.offer(event(sequence, subject))
    consumer.take(0)
    consumer.retire("a", [1, 2])
    consumer.offer(event(5, "YM"))
    assert consumer.take(0) == []
    joined(consumer, "b")
    assert [(d.member, d.event.sequence, d.attempt) for d in consumer.take(0)] == [("b", n, 1) for n in (1, 2, 5)]
    consumer.leave("a", 0, clean=False)
    assert [(d.event.sequence, d.attempt) for d in consumer.take(TENTH)] == [(3, 2), (4, 1)]
    assert consumer.failed == 1


def test_a_second_member_of_one_name_is_refused() -> None:
    consumer = joined(make_consumer(), "a")
    with pytest.raises(ConsumerConflict, match="a of consumer c is connected already"):
        consumer.join("a")


def test_what_is_remembered_brings_back_exactly_what_is_not_settled() -> None:
    consumer = joined(make_consumer(), "a")
    events = {sequence: event(sequence, f"S{sequence % 2}") for sequence in range(1, 7)}
    for item in events.values():
        consumer.offer(item)
    consumer.take(0)
    consumer.ack("a", 3, 0)
    consumer.nack("a", 2, "broken", 0)
    state = consumer.remembered()
    again = make_consumer(state=state)
    for sequence, failures in state.unsettled:
        again.offer(events[sequence], failures)
    joined(again, "a")
    assert [(d.event.sequence, d.attempt) for d in again.take(0)] == [(1, 1), (2, 2), (4, 1), (5, 1), (6, 1)]
    assert again.position == 6


@pytest.mark.parametrize(("failures", "delay"), [(1, TENTH), (2, 2 * TENTH), (3, 4 * TENTH), (40, 60 * SECOND)])
def test_the_delay_doubles_up_to_a_minute(failures: int, delay: int) -> None:
    assert RedeliveryPolicy().delay_ns(failures) == delay


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), failure_share=st.floats(0, 0.6), subjects=st.integers(1, 4))
def test_every_event_is_settled_or_dead_in_order_per_subject_whatever_members_do(
    seed: int, failure_share: float, subjects: int
) -> None:
    """Members obey the rule of runs: after a failure the rest of that subject in the same message is not handled."""
    rng = random.Random(seed)
    consumer = joined(make_consumer(), "a", "b", credit=5)
    handled: dict[str, list[int]] = {}
    attempts: dict[int, int] = {}
    dead: list[int] = []
    now, offered = 0, 0
    while True:
        for _ in range(rng.randint(0, 5)):
            if offered < 60:
                offered += 1
                consumer.offer(event(offered, f"S{rng.randrange(subjects)}"))
        dropped: set[tuple[str, str]] = set()
        for delivery in consumer.take(now):
            lane = (delivery.member, delivery.event.subject)
            if lane in dropped or delivery.member not in consumer.members:
                continue
            sequence = delivery.event.sequence
            attempts[sequence] = attempts.get(sequence, 0) + 1
            if rng.random() < failure_share:
                consumer.nack(delivery.member, sequence, "no", now)
                dropped.add(lane)
            else:
                handled.setdefault(delivery.event.subject, []).append(sequence)
                consumer.ack(delivery.member, sequence, now)
        for name in ("a", "b"):
            consumer.grant(name, rng.randint(1, 5))
            if rng.random() < 0.1:
                consumer.leave(name, now, clean=rng.random() < 0.5)
                joined(consumer, name, credit=5)
        dead += [letter.event.sequence for letter in consumer.take_letters()[0]]
        now += rng.choice((0, TENTH, SECOND))
        if offered == 60 and not consumer.unsettled:
            break
    for order in handled.values():
        assert order == sorted(order)
    assert sorted([*dead, *(sequence for order in handled.values() for sequence in order)]) == list(range(1, 61))
    assert max(attempts.values()) <= 3
