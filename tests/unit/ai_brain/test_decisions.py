from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minhos_mesh.ai_brain.domain.brain import STEP_NS, SymbolBrain, TimedDecision
from minhos_mesh.ai_brain.domain.decide import CLEAR, HIGHEST_CONFIDENCE, WEIGHTS, Told, decide, worth_telling
from minhos_mesh.ai_brain.domain.findings import Action, Analysis, Decision, InsufficientData, MarketView
from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.runtime.bars import MINUTE_NS, BarBuilder
from minhos_mesh.runtime.tick_layout import TickArray, new_ticks

TICK_E9 = 250_000_000
BANDS = (0.5, 0.75)
SHORT = Periods(fast=2, slow=4, rsi=3, volatility=3, volume=3, pattern=4)
START_NS = 1_790_000_040_000_000_000

Walk = Callable[..., TickArray]


def brain(periods: Periods = SHORT, bands: tuple[float, ...] = BANDS, step_ns: int = STEP_NS) -> SymbolBrain:
    return SymbolBrain("NQZ26-CME", TICK_E9, periods, bands, step_ns)


def said(decisions: list[TimedDecision]) -> list[tuple[object, ...]]:
    return [
        (
            one.sequence,
            one.event_time_ns,
            one.quote,
            one.decision.action,
            one.decision.confidence,
            one.decision.target_e9,
        )
        for one in decisions
    ]


def view(score: float, damping: float = 1.0, price_ticks: int = 94_000, swing_e9: int = 3_100_000_000) -> MarketView:
    return MarketView((), score, damping, 30, price_ticks * TICK_E9, swing_e9, None, None)


def decision(action: Action, confidence: float) -> Decision:
    return Decision(action, confidence, None, None, view(0.0))


TICKS = st.lists(
    st.tuples(st.integers(1, 20_000_000_000), st.integers(-25, 25), st.integers(0, 9), st.sampled_from([1, 1, 1, 2])),
    min_size=1,
    max_size=150,
)


@given(rows=TICKS, cuts=st.lists(st.integers(0, 150), max_size=12), step_ns=st.sampled_from([STEP_NS, 7_000_000_000]))
@settings(max_examples=60)
def test_the_same_ticks_in_any_batching_give_the_same_decisions(
    rows: list[tuple[int, int, int, int]], cuts: list[int], step_ns: int
) -> None:
    ticks = new_ticks(len(rows))
    ticks["event_time_ns"] = START_NS + np.cumsum([row[0] for row in rows])
    ticks["price_e9"] = (4_000 + np.cumsum([row[1] for row in rows])) * TICK_E9
    ticks["size"], ticks["kind"] = [row[2] for row in rows], [row[3] for row in rows]
    ticks["bid_e9"] = ticks["price_e9"] - TICK_E9
    ticks["flags"] = np.where(ticks["kind"] == 1, 7, 4)
    whole, cut, single = brain(step_ns=step_ns), brain(step_ns=step_ns), brain(step_ns=step_ns)
    expected = said(whole.add(ticks, 1))
    edges = [0, *sorted(min(edge, len(ticks)) for edge in cuts), len(ticks)]
    in_parts = [told for begin, end in itertools.pairwise(edges) for told in cut.add(ticks[begin:end], begin + 1)]
    one_by_one = [told for index in range(len(ticks)) for told in single.add(ticks[index : index + 1], index + 1)]
    assert said(in_parts) == expected
    assert said(one_by_one) == expected
    assert cut.quote == whole.quote == single.quote
    assert (cut.through_sequence, cut.event_time_ns) == (whole.through_sequence, whole.event_time_ns)
    if whole.indicators.ready:
        assert cut.view() == whole.view() == single.view()


@pytest.mark.parametrize("step_ns", [STEP_NS, 7_000_000_000, 60_000_000_000, 250_000_000])
def test_decisions_fall_on_the_first_tick_of_a_bar_or_step_of_event_time(walk: Walk, step_ns: int) -> None:
    ticks = walk(6_000, seed=3)
    told = brain(step_ns=step_ns).add(ticks, 1)
    assert len(told) > 20
    times = ticks["event_time_ns"].tolist()
    for one in told:
        now, before = times[one.sequence - 1], times[one.sequence - 2]
        assert one.event_time_ns == now
        new_bar = now // MINUTE_NS != before // MINUTE_NS
        assert new_bar or now % MINUTE_NS // step_ns != before % MINUTE_NS // step_ns


def test_every_close_of_a_bar_is_looked_at_even_where_steps_do_not_divide_it(make: Walk) -> None:
    looked: list[int] = []

    class Watched(SymbolBrain):
        def _consider(self, sequence: int) -> TimedDecision | None:
            looked.append(sequence)
            return super()._consider(sequence)

    second = 1_000_000_000
    watched = Watched("NQZ26-CME", TICK_E9, SHORT, BANDS, 40 * second)
    watched.add(make([0, 39 * second, 41 * second, 59 * second, 60 * second, 61 * second], [9] * 6), 1)
    assert looked == [1, 3, 5]


def test_thin_data_says_nothing_and_names_how_much_is_missing(walk: Walk) -> None:
    thin = brain(Periods())
    assert thin.add(walk(20, gap_ns=MINUTE_NS, drift=9.0), 1) == []
    with pytest.raises(InsufficientData, match=r"has \d+ closed bars: 21 are needed") as caught:
        thin.decision()
    assert caught.value.needed == 21
    assert caught.value.bars < 21


def test_hold_is_decided_and_never_told(make: Walk) -> None:
    flat = brain()
    told = flat.add(make([index * MINUTE_NS for index in range(40)], [94_000 + index % 2 for index in range(40)]), 1)
    held = [one for one in told if one.decision.action is Action.HOLD]
    assert held == []
    still = brain()
    assert still.add(make([index * MINUTE_NS for index in range(40)], [94_000] * 40), 1) == []
    assert (still.decision().action, still.decision().target_e9, still.decision().stop_e9) == (Action.HOLD, None, None)


BUY_1, BUY_2, SELL_1 = Told(Action.BUY, 1), Told(Action.BUY, 2), Told(Action.SELL, 1)


@pytest.mark.parametrize(
    ("now", "last", "told"),
    [
        (decision(Action.HOLD, 0.9), None, None),
        (decision(Action.BUY, 0.49), None, None),
        (decision(Action.BUY, 0.5), None, BUY_1),
        (decision(Action.BUY, 0.74), BUY_1, None),
        (decision(Action.BUY, 0.75), BUY_1, BUY_2),
        (decision(Action.BUY, 0.95), BUY_2, None),
        (decision(Action.BUY, 0.6), BUY_2, None),
        (decision(Action.SELL, 0.6), BUY_2, SELL_1),
        (decision(Action.SELL, 0.4), BUY_2, None),
    ],
)
def test_a_direction_is_told_once_and_again_only_in_a_higher_band(
    now: Decision, last: Told | None, told: Told | None
) -> None:
    assert worth_telling(now, last, BANDS) == told


def test_told_decisions_change_direction_or_rise_a_band(walk: Walk) -> None:
    last: Told | None = None
    for one in brain().add(walk(20_000, seed=9), 1):
        now = Told(one.decision.action, sum(one.decision.confidence >= limit for limit in BANDS))
        assert last is None or now.action is not last.action or now.band > last.band
        last = now


@given(
    score=st.floats(-1, 1), damping=st.floats(0.5, 1), price=st.integers(1_000, 200_000), swing=st.integers(0, 10**11)
)
def test_target_and_stop_are_on_the_tick_and_on_the_right_side(
    score: float, damping: float, price: int, swing: int
) -> None:
    made = decide(view(score, damping, price, swing), TICK_E9)
    if abs(score) < CLEAR:
        assert (made.action, made.target_e9, made.stop_e9) == (Action.HOLD, None, None)
        return
    assert made.target_e9 is not None
    assert made.stop_e9 is not None
    assert made.target_e9 % TICK_E9 == made.stop_e9 % TICK_E9 == 0
    price_e9 = price * TICK_E9
    if made.action is Action.BUY:
        assert made.stop_e9 < price_e9 < made.target_e9
    else:
        assert made.target_e9 < price_e9 < made.stop_e9
    assert abs(made.target_e9 - price_e9) >= 2 * abs(made.stop_e9 - price_e9) - 2 * TICK_E9
    assert 0 <= made.confidence <= HIGHEST_CONFIDENCE


def test_weights_share_out_one_whole_score() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert set(WEIGHTS) == set(Analysis)


def test_what_is_not_fresh_is_learnt_from_and_not_told(walk: Walk) -> None:
    ticks = walk(6_000, seed=4)
    fresh_from = int(ticks["event_time_ns"][4_000])
    everything, fresh = brain().add(ticks, 1), brain()
    told = fresh.add(ticks, 1, fresh_from)
    assert everything[0].event_time_ns < fresh_from <= told[0].event_time_ns
    whole = brain()
    whole.add(ticks, 1)
    assert fresh.view() == whole.view()


def test_a_brain_primed_with_bars_sees_what_one_that_saw_all_ticks_sees(walk: Walk) -> None:
    ticks = walk(3_000, seed=6)
    builder, seen = BarBuilder(), brain()
    bars = builder.add(ticks[:2_000], 1)
    seen.add(ticks[:2_000], 1)
    primed = brain()
    primed.prime(bars, builder.open_bar, 2_000, int(ticks["event_time_ns"][1_999]))
    assert (primed.through_sequence, primed.event_time_ns) == (seen.through_sequence, seen.event_time_ns)
    assert primed.view() == seen.view()
    primed.add(ticks[2_000:], 2_001)
    seen.add(ticks[2_000:], 2_001)
    assert primed.view() == seen.view()


def test_what_was_told_before_a_restart_is_not_told_again(walk: Walk) -> None:
    ticks = walk(2_001, seed=6, drift=1.0)
    builder = BarBuilder()
    bars = builder.add(ticks[:2_000], 1)

    def first_told(told: Told | None) -> list[TimedDecision]:
        primed = brain()
        primed.prime(bars, builder.open_bar, 2_000, 1, told)
        return primed.add(ticks[2_000:], 2_001)

    (fresh,) = first_told(None)
    band = sum(fresh.decision.confidence >= limit for limit in BANDS)
    assert fresh.decision.action is Action.BUY
    assert first_told(Told(Action.BUY, band)) == []
    assert len(first_told(Told(Action.SELL, band))) == 1
