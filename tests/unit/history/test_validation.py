from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minhos_mesh.history.domain import validation
from minhos_mesh.history.domain.validation import Reason, Rules, judge
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

NOW = 1_700_000_000_000_000_000
RULES = Rules(tick_e9=250_000_000, stale_after_ns=1_000, future_after_ns=10_000)
GOOD = {
    "event_time_ns": NOW,
    "price_e9": 100_250_000_000,
    "bid_e9": 100_000_000_000,
    "ask_e9": 100_250_000_000,
    "size": 2,
    "flags": 15,
    "kind": 1,
    "side": 1,
}


def _ticks(*rows: dict[str, int]) -> TickArray:
    ticks = new_ticks(len(rows))
    for index, row in enumerate(rows):
        for name, value in (GOOD | row).items():
            ticks[name][index] = value
    return ticks


BAD: list[tuple[str, dict[str, int], Reason]] = [
    ("no time", {"event_time_ns": 0}, Reason.MALFORMED),
    ("negative time", {"event_time_ns": -1}, Reason.MALFORMED),
    ("no kind", {"kind": 0}, Reason.MALFORMED),
    ("unknown kind", {"kind": 9}, Reason.MALFORMED),
    ("trade without price", {"flags": 14}, Reason.MALFORMED),
    ("quote without bid and ask", {"kind": 2, "flags": 3}, Reason.MALFORMED),
    ("price zero", {"price_e9": 0}, Reason.NON_POSITIVE_PRICE),
    ("price negative", {"price_e9": -250_000_000}, Reason.NON_POSITIVE_PRICE),
    ("bid zero", {"bid_e9": 0}, Reason.NON_POSITIVE_PRICE),
    ("ask negative", {"ask_e9": -(2**63)}, Reason.NON_POSITIVE_PRICE),
    ("price off the tick", {"price_e9": 100_250_000_001}, Reason.OFF_TICK),
    ("bid off the tick", {"bid_e9": 100_100_000_000}, Reason.OFF_TICK),
    ("price off by the scale", {"price_e9": 100}, Reason.OFF_TICK),
    ("crossed", {"bid_e9": 100_500_000_000}, Reason.CROSSED),
    ("crossed quote", {"kind": 2, "flags": 12, "bid_e9": 100_500_000_000}, Reason.CROSSED),
    ("size zero", {"size": 0}, Reason.ZERO_SIZE),
    ("a day ahead", {"event_time_ns": NOW + 20_001}, Reason.FUTURE),
    ("a little late", {"event_time_ns": NOW - 1_000}, Reason.OUT_OF_ORDER),
    ("much too late", {"event_time_ns": NOW - 1_001}, Reason.STALE),
]
FINE: list[tuple[str, dict[str, int]]] = [
    ("locked", {"bid_e9": 100_250_000_000}),
    ("a value whose bit is off is not read", {"flags": 1, "bid_e9": -5, "ask_e9": 7, "size": 0}),
    ("quote with one side", {"kind": 2, "flags": 4, "price_e9": 0}),
    ("the same time again", {"event_time_ns": NOW}),
    ("no side", {"side": 0}),
]


@pytest.mark.parametrize("others", [0, 5], ids=["alone", "among others"])
@pytest.mark.parametrize(("row", "reason"), [(row, reason) for _, row, reason in BAD], ids=[name for name, _, _ in BAD])
def test_bad_tick_is_refused_with_its_reason(row: dict[str, int], reason: Reason, others: int) -> None:
    verdict = judge(_ticks(*[{}] * others, row), NOW, RULES, NOW + 10_000)
    assert verdict.rejected == {reason: 1}
    assert verdict.accepted is not None
    assert verdict.accepted.tolist() == [True] * others + [False]


@pytest.mark.parametrize("others", [0, 5], ids=["alone", "among others"])
@pytest.mark.parametrize("row", [row for _, row in FINE], ids=[name for name, _ in FINE])
def test_good_tick_is_accepted(row: dict[str, int], others: int) -> None:
    verdict = judge(_ticks(*[{}] * others, row), NOW, RULES, NOW)
    assert verdict.accepted is None
    assert not verdict.rejected


def test_a_refused_tick_of_the_far_future_does_not_hold_up_those_behind_it() -> None:
    verdict = judge(_ticks({}, {"event_time_ns": NOW * 2}, {}, {}), NOW, RULES, NOW)
    assert verdict.rejected == {Reason.FUTURE: 1}


_ROW = st.fixed_dictionaries(
    {
        "event_time_ns": st.integers(NOW - 1_500, NOW + 1_500) | st.sampled_from([0, NOW + 30_000]),
        "price_e9": st.sampled_from([0, -250_000_000, 250_000_000, 500_000_000, 7]),
        "bid_e9": st.sampled_from([0, 250_000_000, 500_000_000, 8]),
        "ask_e9": st.sampled_from([250_000_000, 500_000_000]),
        "size": st.integers(0, 2),
        "flags": st.integers(0, 255),
        "kind": st.integers(0, 3),
    }
)


@given(rows=st.lists(_ROW, min_size=3, max_size=30), wall=st.sampled_from([NOW, NOW + 20_000]))
def test_judging_a_batch_at_once_equals_judging_one_by_one(rows: list[dict[str, int]], wall: int) -> None:
    ticks = _ticks(*rows)
    at_once, one_by_one = judge(ticks, NOW, RULES, wall), validation._judge_few(ticks, NOW, RULES, wall)
    assert dict(at_once.rejected) == dict(one_by_one.rejected)
    everything = np.ones(len(ticks), np.bool_)
    masks = [everything if verdict.accepted is None else verdict.accepted for verdict in (at_once, one_by_one)]
    assert masks[0].tolist() == masks[1].tolist()
    assert len(ticks) == int(masks[0].sum()) + sum(at_once.rejected.values())


STEP = RULES.tick_e9


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "event_time_ns": st.integers(NOW - 2, NOW + 4),
                "price_e9": st.sampled_from([STEP, STEP + 1, 0]),
                "bid_e9": st.sampled_from([STEP, 401 * STEP, 402 * STEP]),
                "size": st.just(0),
                "flags": st.sampled_from([3, 14, 15]),
                "kind": st.just(2),
            },
        ),
        min_size=3,
        max_size=12,
    )
)
def test_a_batch_is_judged_as_its_ticks_one_by_one_whether_plain_or_not(rows: list[dict[str, int]]) -> None:
    ticks, newest, accepted = _ticks(*rows), NOW, []
    for index in range(len(rows)):
        one = judge(ticks[index : index + 1], newest, RULES, NOW + 10_000)
        accepted.append(one.accepted is None)
        newest = int(ticks["event_time_ns"][index]) if accepted[-1] else newest
    whole = judge(ticks, NOW, RULES, NOW + 10_000)
    assert ([True] * len(rows) if whole.accepted is None else whole.accepted.tolist()) == accepted
