from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minhos_mesh.trading_engine.domain.errors import ImpossibleTransition, OrderIsClosed
from minhos_mesh.trading_engine.domain.order_events import (
    CancelRefused,
    CancelRequested,
    Denied,
    NotAtVenue,
    OrderEvent,
    OutcomeUnknown,
    ReplaceRefused,
    ReplaceRequested,
    RiskApproved,
    decode_event,
    decode_order,
    encode_event,
    encode_order,
)
from minhos_mesh.trading_engine.domain.order_machine import apply, create, replay
from minhos_mesh.trading_engine.domain.orders import Order, OrderState, Reason, RiskCheck

if TYPE_CHECKING:
    from tests.unit.trading_engine.conftest import Builder

S = OrderState
OUR_EVENTS: dict[str, OrderEvent] = {
    "approved": RiskApproved(at_ns=9, approval_id="a"),
    "denied": Denied(at_ns=9, reason=Reason.RISK_REFUSED, message="no"),
    "unknown": OutcomeUnknown(at_ns=9, message="no answer"),
    "not_there": NotAtVenue(at_ns=9, reason=Reason.VENUE_NEVER_SAW, message="never saw it"),
    "cancel": CancelRequested(at_ns=9, reason=Reason.CANCELED_BY_USER, actor="ann"),
    "cancel_refused": CancelRefused(at_ns=9, message="too late"),
    "replace": ReplaceRequested(at_ns=9, request_id="rr", quantity=8, limit_price_e9=None, stop_price_e9=None),
    "replace_refused": ReplaceRefused(at_ns=9, message="no"),
}
NO, DONE, SAME = "impossible", "closed", "same"

# The whole table: each state against each step of our own. A state = where it leads to.
OURS: dict[OrderState, list[OrderState | str]] = {
    S.NEW: [S.SUBMITTING, S.DENIED, SAME, SAME, S.CANCELED, SAME, NO, SAME],
    S.DENIED: [NO, NO, SAME, SAME, DONE, SAME, DONE, SAME],
    S.SUBMITTING: [NO, NO, S.UNKNOWN, S.REJECTED, S.SUBMITTING, SAME, NO, SAME],
    S.WORKING: [NO, NO, SAME, S.CANCELED, S.PENDING_CANCEL, SAME, S.PENDING_REPLACE, SAME],
    S.PARTIALLY_FILLED: [NO, NO, SAME, S.CANCELED, S.PENDING_CANCEL, SAME, S.PENDING_REPLACE, SAME],
    S.PENDING_CANCEL: [NO, NO, SAME, S.CANCELED, SAME, S.WORKING, NO, SAME],
    S.PENDING_REPLACE: [NO, NO, SAME, S.CANCELED, S.PENDING_CANCEL, SAME, NO, S.WORKING],
    S.UNKNOWN: [NO, NO, SAME, S.REJECTED, S.UNKNOWN, SAME, NO, SAME],
    S.FILLED: [NO, NO, SAME, SAME, DONE, SAME, DONE, SAME],
    S.CANCELED: [NO, NO, SAME, SAME, DONE, SAME, DONE, SAME],
    S.REJECTED: [NO, NO, SAME, SAME, DONE, SAME, DONE, SAME],
    S.EXPIRED: [NO, NO, SAME, SAME, DONE, SAME, DONE, SAME],
}
# Each state against each report of the venue: WORKING, FILLED, CANCELED, REJECTED, EXPIRED, UNKNOWN, and SUBMITTING
# for what it has sent on and nobody has answered.
REPORTS = (S.WORKING, S.FILLED, S.CANCELED, S.REJECTED, S.EXPIRED, S.UNKNOWN, S.SUBMITTING)
THEIRS = {
    S.NEW: [S.WORKING, S.WORKING, S.CANCELED, S.REJECTED, S.EXPIRED, S.UNKNOWN, S.NEW],
    S.DENIED: [S.DENIED] * 7,
    S.SUBMITTING: [S.WORKING, S.WORKING, S.CANCELED, S.REJECTED, S.EXPIRED, S.UNKNOWN, S.SUBMITTING],
    S.WORKING: [S.WORKING, S.WORKING, S.CANCELED, S.REJECTED, S.EXPIRED, S.UNKNOWN, S.WORKING],
    S.PARTIALLY_FILLED: [
        S.PARTIALLY_FILLED,
        S.PARTIALLY_FILLED,
        S.CANCELED,
        S.CANCELED,
        S.EXPIRED,
        S.UNKNOWN,
        S.PARTIALLY_FILLED,
    ],
    S.PENDING_CANCEL: [
        S.PENDING_CANCEL,
        S.PENDING_CANCEL,
        S.CANCELED,
        S.REJECTED,
        S.EXPIRED,
        S.UNKNOWN,
        S.PENDING_CANCEL,
    ],
    S.PENDING_REPLACE: [
        S.PENDING_REPLACE,
        S.PENDING_REPLACE,
        S.CANCELED,
        S.REJECTED,
        S.EXPIRED,
        S.UNKNOWN,
        S.PENDING_REPLACE,
    ],
    S.UNKNOWN: [S.WORKING, S.WORKING, S.CANCELED, S.REJECTED, S.EXPIRED, S.UNKNOWN, S.UNKNOWN],
    S.FILLED: [S.FILLED] * 7,
    S.CANCELED: [S.CANCELED] * 7,
    S.REJECTED: [S.REJECTED] * 7,
    S.EXPIRED: [S.EXPIRED] * 7,
}
# Where a fill of one of four contracts, and the last of them, lead to.
FILLS = {
    S.NEW: (S.PARTIALLY_FILLED, S.FILLED),
    S.DENIED: (S.PARTIALLY_FILLED, S.FILLED),
    S.SUBMITTING: (S.PARTIALLY_FILLED, S.FILLED),
    S.WORKING: (S.PARTIALLY_FILLED, S.FILLED),
    S.PARTIALLY_FILLED: (S.PARTIALLY_FILLED, S.FILLED),
    S.PENDING_CANCEL: (S.PENDING_CANCEL, S.FILLED),
    S.PENDING_REPLACE: (S.PENDING_REPLACE, S.FILLED),
    S.UNKNOWN: (S.PARTIALLY_FILLED, S.FILLED),
    S.FILLED: (S.FILLED, S.FILLED),
    S.CANCELED: (S.CANCELED, S.FILLED),
    S.REJECTED: (S.PARTIALLY_FILLED, S.FILLED),
    S.EXPIRED: (S.EXPIRED, S.FILLED),
}


def _in_state(make: Builder, state: OrderState) -> Order:
    if state is S.DENIED:
        return apply(make.order(), OUR_EVENTS["denied"])
    return make.order(state, filled=1 if state is S.PARTIALLY_FILLED else 0)


def test_the_tables_cover_every_state() -> None:
    assert set(OURS) == set(THEIRS) == set(FILLS) == set(OrderState)


@pytest.mark.parametrize("state", OrderState, ids=lambda state: state.value)
@pytest.mark.parametrize("step", list(OUR_EVENTS))
def test_our_own_steps_lead_where_the_table_says(make: Builder, state: OrderState, step: str) -> None:
    order = _in_state(make, state)
    assert order.state is state
    expected = OURS[state][list(OUR_EVENTS).index(step)]
    if expected == NO:
        with pytest.raises(ImpossibleTransition):
            apply(order, OUR_EVENTS[step])
    elif expected == DONE:
        with pytest.raises(OrderIsClosed):
            apply(order, OUR_EVENTS[step])
    elif expected == SAME:
        assert apply(order, OUR_EVENTS[step]) is order
    else:
        after = apply(order, OUR_EVENTS[step])
        assert after.sequence == order.sequence + 1
        assert after.state is (S.CANCELED if state is S.PARTIALLY_FILLED and step == "not_there" else expected)


@pytest.mark.parametrize("state", OrderState, ids=lambda state: state.value)
@pytest.mark.parametrize("reported", REPORTS, ids=lambda state: state.value)
def test_reports_of_the_venue_lead_where_the_table_says(make: Builder, state: OrderState, reported: OrderState) -> None:
    order = _in_state(make, state)
    assert apply(order, make.report(reported)).state is THEIRS[state][REPORTS.index(reported)]


@pytest.mark.parametrize("state", OrderState, ids=lambda state: state.value)
def test_fills_are_booked_in_every_state(make: Builder, state: OrderState) -> None:
    order = _in_state(make, state)
    part = apply(order, make.filled(order, 1))
    whole = apply(order, make.filled(order, 4))
    assert (part.state, whole.state) == FILLS[state]
    assert part.filled_quantity == order.filled_quantity + 1


@pytest.mark.parametrize("state", [S.SUBMITTING, S.WORKING, S.PARTIALLY_FILLED, S.UNKNOWN, S.FILLED, S.CANCELED])
def test_a_repeated_report_changes_nothing(make: Builder, state: OrderState) -> None:
    order = _in_state(make, state)
    report = make.report(S.WORKING, revision=7, filled=order.filled_quantity, venue_order_id="v-1")
    once = apply(order, report)
    assert apply(once, report) is once


def test_an_order_that_the_venue_lost_sight_of_is_unknown_with_its_words_until_the_next_word_on_it(
    make: Builder,
) -> None:
    order = apply(make.order(S.WORKING), make.report(S.WORKING, revision=1, venue_order_id="v-1"))
    lost = apply(order, make.report(S.UNKNOWN, revision=2, message="the connection broke"))
    assert (lost.state, lost.message, lost.state.is_working) == (S.UNKNOWN, "the connection broke", True)
    assert apply(lost, make.report(S.UNKNOWN, revision=2, message="the connection broke")) is lost
    assert apply(lost, make.report(S.WORKING, revision=1)) is lost, "what was said before says nothing now"
    asked = apply(lost, make.report(S.UNKNOWN, revision=3, message="it is not listed"))
    assert asked.message == "it is not listed"
    found = apply(asked, make.report(S.WORKING, revision=4))
    assert (found.state, found.reason, found.message) == (S.WORKING, Reason.NONE, "")
    ended = apply(asked, make.report(S.CANCELED, revision=4, reason=Reason.SETTLED, message="settled by ann: seen"))
    assert (ended.state, ended.reason, ended.message) == (S.CANCELED, Reason.SETTLED, "settled by ann: seen")


def test_a_wish_to_cancel_outlives_that_nobody_knows_the_order(make: Builder) -> None:
    pending = make.order(S.PENDING_CANCEL)
    lost = apply(pending, make.report(S.UNKNOWN, message="the connection broke"))
    assert lost.message == "cancelled by ann; not known: the connection broke"
    again = apply(lost, make.report(S.UNKNOWN, message="it is not listed"))
    assert again.message == "cancelled by ann; not known: it is not listed"
    for after in (apply(again, make.report(S.CANCELED)), apply(again, make.report(S.WORKING))):
        assert (after.reason, after.message) == (Reason.CANCELED_BY_USER, "cancelled by ann")
    late = apply(make.order(S.UNKNOWN), OUR_EVENTS["cancel"])
    assert late.message == "cancelled by ann; not known: no answer"
    assert apply(late, make.report(S.CANCELED)).message == "cancelled by ann"


def test_a_repeated_fill_is_booked_once(make: Builder) -> None:
    order = make.order(S.WORKING)
    fill = make.filled(order, 2)
    once = apply(order, fill)
    assert apply(once, fill) is once
    assert once.filled_quantity == 2


def test_an_older_report_does_not_undo_a_newer_one(make: Builder) -> None:
    order = make.order(S.SUBMITTING)
    newer = apply(order, make.report(S.WORKING, revision=5, limit_price_e9=20))
    assert apply(newer, make.report(S.WORKING, revision=4, limit_price_e9=10)) is newer
    assert newer.terms.limit_price_e9 == 20


def test_a_working_report_behind_a_cancel_does_not_revive_the_order(make: Builder) -> None:
    order = apply(make.order(S.WORKING), make.report(S.CANCELED, revision=5))
    assert apply(order, make.report(S.WORKING, revision=4)).state is S.CANCELED


def test_filled_by_report_waits_for_the_fills_themselves(make: Builder) -> None:
    order = apply(make.order(S.SUBMITTING), make.report(S.FILLED, filled=4))
    assert order.state is S.WORKING
    assert order.misses_fills
    done = apply(order, make.filled(order, 4))
    assert done.state is S.FILLED
    assert not done.misses_fills


def test_a_cancel_before_the_answer_is_remembered_and_keeps_its_reason(make: Builder) -> None:
    order = apply(make.order(S.UNKNOWN), OUR_EVENTS["cancel"])
    assert order.cancel_requested
    working = apply(order, make.report(S.WORKING))
    assert working.state is S.WORKING
    assert working.cancel_requested
    canceled = apply(apply(working, OUR_EVENTS["cancel"]), make.report(S.CANCELED))
    assert canceled.reason is Reason.CANCELED_BY_USER


def test_an_order_given_up_as_never_arrived_comes_back_when_it_turns_up(make: Builder) -> None:
    order = apply(make.order(S.UNKNOWN), OUR_EVENTS["not_there"])
    assert order.state is S.REJECTED
    assert apply(order, make.report(S.WORKING, revision=3)).state is S.WORKING


def test_a_rejection_by_the_venue_stays(make: Builder) -> None:
    order = make.order(S.REJECTED)
    assert apply(order, make.report(S.WORKING, revision=3)).state is S.REJECTED


def test_new_terms_count_only_once_the_venue_has_them(make: Builder) -> None:
    order = apply(make.order(S.WORKING), OUR_EVENTS["replace"])
    assert order.terms.quantity == 4
    still = apply(order, make.report(S.WORKING, quantity=4))
    assert still.state is S.PENDING_REPLACE
    replaced = apply(order, make.report(S.WORKING, quantity=8))
    assert (replaced.state, replaced.terms.quantity, replaced.replace_quantity) == (S.WORKING, 8, None)


def test_a_refused_cancel_and_a_refused_replace_put_the_order_back_to_work(make: Builder) -> None:
    canceling = make.order(S.PENDING_CANCEL, filled=1)
    assert apply(canceling, OUR_EVENTS["cancel_refused"]).state is S.PARTIALLY_FILLED
    replacing = make.order(S.PENDING_REPLACE)
    refused = apply(replacing, OUR_EVENTS["replace_refused"])
    assert (refused.state, refused.replace_quantity, refused.message) == (
        S.WORKING,
        None,
        "the venue refused the change: no",
    )


def test_more_than_ordered_is_booked_and_said(make: Builder) -> None:
    order = make.order(S.WORKING, quantity=1)
    after = apply(order, make.filled(order, 3))
    assert (after.state, after.filled_quantity, after.message) == (S.FILLED, 3, "filled 2 more than ordered")


def test_average_price_is_the_mean_of_the_fills(make: Builder) -> None:
    order = make.order(S.WORKING)
    for quantity in (1, 2):
        order = apply(order, make.filled(order, quantity))
    assert order.average_price_e9 == 23_500 * 10**9
    assert make.order(S.WORKING).average_price_e9 is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), copies=st.integers(1, 3))
def test_any_order_and_repetition_of_facts_ends_the_same(make: Builder, seed: int, copies: int) -> None:
    order = make.order(S.SUBMITTING)
    first, second = make.filled(order, 1), make.filled(order, 2)
    facts: list[OrderEvent] = [
        make.report(S.WORKING, revision=1, venue_order_id="v"),
        first,
        make.report(S.WORKING, revision=2, filled=1),
        second,
        make.report(S.WORKING, revision=3, filled=3),
        make.report(S.CANCELED, revision=4, filled=3),
    ] * copies
    random.Random(seed).shuffle(facts)
    for fact in facts:
        order = apply(order, fact)
    assert (order.state, order.filled_quantity, order.venue_revision) == (S.CANCELED, 3, 4)
    assert not order.misses_fills


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_the_written_history_gives_the_order_again(make: Builder, seed: int) -> None:
    randomness = random.Random(seed)
    created = make.created()
    order, history = create(created), [encode_event(created)]
    reports = [make.report(state, revision=number) for number, state in enumerate(REPORTS[:2] * 3, start=1)]
    checks = (RiskCheck(code="QUANTITY", passed=True, observed="1", limit="5", message="fine"),)
    possible: list[OrderEvent] = [
        RiskApproved(at_ns=3, approval_id="a", checks=checks),
        *OUR_EVENTS.values(),
        *reports,
        *(make.filled(order, 1) for _ in range(4)),
    ]
    for _ in range(12):
        event = randomness.choice(possible)
        try:
            after = apply(order, event)
        except (ImpossibleTransition, OrderIsClosed):
            continue
        if after is not order:
            history.append(encode_event(event))
        order = after
    assert replay([decode_event(kind, body) for kind, body in history]) == order
    assert order.sequence == len(history)
    assert decode_order(encode_order(order)) == order


def test_a_history_without_a_beginning_is_refused() -> None:
    with pytest.raises(ImpossibleTransition):
        replay([OUR_EVENTS["approved"]])
