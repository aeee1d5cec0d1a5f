"""Each check of a history passes a good one and catches the one thing that it is there for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.faults.bus.checks import ACK_WINDOW_S, CHECKS, figures, violations
from tests.faults.bus.history import (
    Ack,
    Attempt,
    Content,
    Delivery,
    Fault,
    History,
    Kept,
    Left,
    Letter,
    Nack,
    Opened,
    Outcome,
    Rules,
    Told,
)

Harm = Callable[[History], None]


def content(number: int, subject: str = "s") -> Content:
    return Content(f"id{number}", "a.b", subject, f"note {number}")


def kept(number: int, subject: str = "s") -> Kept:
    return Kept(number, content(number, subject), number * 10)


def acked(number: int, at: float) -> Attempt:
    return Attempt(at, at + 0.1, "p", number, content(number), Outcome.ACKED, number)


def delivery(number: int, at: float, attempt: int = 1, session: int = 1, reader: str = "c") -> Delivery:
    return Delivery(at, reader, "m", session, kept(number), attempt)


def good() -> History:
    """Four events: two acknowledged at once, one after two failures, one a dead letter; one reader only listens."""
    return History(
        attempts=[
            replace(acked(1, 1.0), outcome=Outcome.UNKNOWN, sequence=None),
            *(acked(number, 1.0 + number) for number in (1, 2, 3, 4)),
            acked(2, 6.0),
            replace(acked(9, 6.5), outcome=Outcome.REFUSED, sequence=None),
        ],
        deliveries=[
            delivery(1, 10.0),
            delivery(2, 10.1),
            delivery(3, 10.2),
            delivery(3, 10.4, 2),
            delivery(4, 10.5),
            delivery(4, 10.7, 2),
            delivery(4, 11.0, 3, session=2),
            delivery(1, 12.0, session=3, reader="live"),
            delivery(3, 12.1, session=3, reader="live"),
            delivery(4, 12.2, session=3, reader="live"),
        ],
        acks=[Ack(10.05, "c", 1, 1), Ack(10.15, "c", 1, 2), Ack(10.45, "c", 1, 3)],
        nacks=[
            Nack(10.3, "c", 1, 3, "s", "three failed"),
            Nack(10.6, "c", 1, 4, "s", "four failed"),
            Nack(11.1, "c", 2, 4, "s", "four failed again"),
        ],
        left=[Left(10.8, "c", 1, clean=False)],
        opened=[Opened(11.9, "live", 3, 0)],
        told=[Told(12.05, "live", 3, 2, 2, 1)],
        faults=[Fault(30.0, "kill")],
        replays=[[kept(1), kept(2), kept(3), kept(4)]],
        consumers={"c": Rules()},
        journal=[kept(1), kept(2), kept(3), kept(4)],
        letters=[Letter("c", kept(4), ("four failed", "the reader vanished", "four failed again"))],
    )


def test_a_good_history_passes_and_its_figures_say_so() -> None:
    assert violations(good()) == {}
    told = figures(good())
    assert (told["published"], told["acknowledged"], told["sent_again"]) == (5, 4, 2)
    assert (told["delivered"], told["redelivered"], told["dead_letters"]) == (10, 3, 1)
    assert (told["lost"], told["duplicated"], told["skips_told"]) == (0, 0, 1)


def _lose(history: History) -> None:
    del history.journal[1]


def _store_something_else(history: History) -> None:
    history.journal[1] = replace(history.journal[1], content=content(7))


def _lose_the_end_with_retention_far_before(history: History) -> None:
    history.removed_through = 3
    history.journal = history.journal[:3]


def _forget_an_event_of_a_consumer(history: History) -> None:
    del history.acks[1]


def _turn_publisher_order_around(history: History) -> None:
    history.attempts = [replace(a, place=3 - a.place) if a.place in (1, 2) else a for a in history.attempts]


def _deliver_out_of_order(history: History) -> None:
    history.deliveries[0], history.deliveries[1] = history.deliveries[1], history.deliveries[0]


def _deliver_something_else(history: History) -> None:
    history.deliveries[0] = replace(history.deliveries[0], kept=replace(kept(1), store_ns=11))


def _replay_without_one(history: History) -> None:
    del history.replays[0][1]


def _replay_twice(history: History) -> None:
    history.replays[0].insert(2, kept(2))


def _answer_an_id_twice(history: History) -> None:
    history.attempts[5] = replace(history.attempts[5], sequence=5)


def _store_an_id_twice(history: History) -> None:
    history.journal.append(Kept(5, content(2), 50))


def _leave_a_hole(history: History) -> None:
    history.journal[3] = Kept(5, content(4), 50)


def _go_back_in_time(history: History) -> None:
    history.journal[2] = replace(history.journal[2], store_ns=5)


def _try_too_often(history: History) -> None:
    history.deliveries.append(delivery(4, 11.3, 4, session=2))


def _fail_for_ever(history: History) -> None:
    history.nacks += [Nack(20.0 + n, "c", 1, 3, "s", "three failed") for n in range(5)]


def _give_up_without_a_letter(history: History) -> None:
    history.letters.clear()


def _redeliver_what_was_acknowledged(history: History) -> None:
    history.deliveries.insert(2, delivery(1, 10.12))


def _redeliver_long_after_a_kill(history: History) -> None:
    history.left[0] = Left(13.0, "c", 1, clean=False)
    history.faults[0] = Fault(10.05 + ACK_WINDOW_S + 0.1, "kill")
    history.deliveries.append(delivery(1, 40.0, session=2))


def _redeliver_what_is_out(history: History) -> None:
    history.deliveries.append(delivery(4, 11.05, 3, session=2))


def _forget_an_attempt(history: History) -> None:
    history.letters[0] = replace(history.letters[0], errors=("four failed",))


def _invent_an_error(history: History) -> None:
    history.letters[0] = replace(history.letters[0], errors=("four failed", "the reader vanished", "no"))


def _change_a_dead_payload(history: History) -> None:
    history.letters[0] = replace(history.letters[0], kept=replace(kept(4), content=replace(content(4), note="x")))


def _give_up_twice(history: History) -> None:
    history.letters.append(history.letters[0])


def _store_what_was_refused(history: History) -> None:
    history.journal.append(kept(9))


def _deliver_what_nobody_sent(history: History) -> None:
    history.deliveries.append(delivery(8, 20.0))


def _skip_unsaid(history: History) -> None:
    history.told.clear()


def _tell_of_too_many(history: History) -> None:
    history.told[0] = replace(history.told[0], skipped=2)


def _listen_twice(history: History) -> None:
    history.deliveries.append(delivery(4, 12.3, session=3, reader="live"))


CATCHES: list[tuple[str, Harm]] = [
    ("no_acknowledged_event_lost", _lose),
    ("no_acknowledged_event_lost", _store_something_else),
    ("no_acknowledged_event_lost", _lose_the_end_with_retention_far_before),
    ("every_event_settled", _forget_an_event_of_a_consumer),
    ("order_per_subject", _turn_publisher_order_around),
    ("order_per_subject", _deliver_out_of_order),
    ("replay_equals_live", _deliver_something_else),
    ("replay_equals_live", _replay_without_one),
    ("replay_equals_live", _replay_twice),
    ("dedup_holds", _answer_an_id_twice),
    ("dedup_holds", _store_an_id_twice),
    ("dedup_holds", _leave_a_hole),
    ("dedup_holds", _go_back_in_time),
    ("attempts_bounded", _try_too_often),
    ("attempts_bounded", _fail_for_ever),
    ("attempts_bounded", _give_up_without_a_letter),
    ("redelivered_for_a_cause", _redeliver_what_was_acknowledged),
    ("redelivered_for_a_cause", _redeliver_long_after_a_kill),
    ("redelivered_for_a_cause", _redeliver_what_is_out),
    ("dead_letters_complete", _forget_an_attempt),
    ("dead_letters_complete", _invent_an_error),
    ("dead_letters_complete", _change_a_dead_payload),
    ("dead_letters_complete", _give_up_twice),
    ("nothing_unpublished", _store_what_was_refused),
    ("nothing_unpublished", _deliver_what_nobody_sent),
    ("skips_told", _skip_unsaid),
    ("skips_told", _tell_of_too_many),
    ("skips_told", _listen_twice),
]


@pytest.mark.parametrize(("check", "harm"), CATCHES, ids=[f"{name}-{harm.__name__[1:]}" for name, harm in CATCHES])
def test_a_bad_history_is_caught(check: str, harm: Harm) -> None:
    history = copy.deepcopy(good())
    harm(history)
    assert check in violations(history)


def test_every_check_is_known_to_catch_something() -> None:
    assert {check for check, _ in CATCHES} == set(CHECKS)


def test_what_a_kill_may_undo_is_no_violation() -> None:
    history = good()
    history.faults = [Fault(10.5, "kill"), Fault(30.0, "kill")]
    history.deliveries.append(delivery(2, 11.5, session=2))
    history.acks.append(Ack(11.6, "c", 2, 2))
    assert violations(history) == {}


def test_what_was_under_way_to_a_member_that_left_is_no_violation() -> None:
    history = good()
    history.left.append(Left(10.0, "c", 5, clean=True))
    history.deliveries.insert(2, delivery(2, 10.16, session=5))
    assert violations(history) == {}


def test_what_retention_removed_is_no_violation_once_it_is_settled() -> None:
    history = good()
    history.removed_through = 2
    history.journal = history.journal[2:]
    history.replays = [[kept(3), kept(4)]]
    assert violations(history) == {}
    del history.acks[0]
    assert set(violations(history)) == {"every_event_settled"}
    history.told.append(Told(10.0, "c", 1, 1, 1, 1))
    assert violations(history) == {}
