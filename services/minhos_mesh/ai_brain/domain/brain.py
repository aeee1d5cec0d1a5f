"""Decides when a symbol is decided on: at the close of a bar and at fixed steps of event time, never by how ticks are batched."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

from minhos_mesh.ai_brain.domain.decide import Told, decide, look, worth_telling
from minhos_mesh.ai_brain.domain.findings import Decision, InsufficientData, MarketView
from minhos_mesh.ai_brain.domain.indicators import Indicators, Periods, Span
from minhos_mesh.runtime.bars import MINUTE_NS, Bar, BarBuilder
from minhos_mesh.runtime.tick_layout import TickArray, TickFlag

STEP_NS: Final = 5_000_000_000
"""Between bars a symbol is looked at when event time enters a new step of this length, counted from the begin of the bar."""

_QUOTED: Final = (
    ("price_e9", TickFlag.HAS_PRICE),
    ("size", TickFlag.HAS_SIZE),
    ("bid_e9", TickFlag.HAS_BID),
    ("ask_e9", TickFlag.HAS_ASK),
    ("bid_size", TickFlag.HAS_BID_SIZE),
    ("ask_size", TickFlag.HAS_ASK_SIZE),
)


@dataclass(frozen=True, slots=True)
class TimedDecision:
    """A decision worth telling, at one tick."""

    decision: Decision
    sequence: int
    """Tick that led to it."""
    event_time_ns: int
    """Time of that tick."""
    quote: dict[str, int]
    """Last values at that tick by name; absent ones are left out."""


class SymbolBrain:
    """What is known about one symbol within one epoch of its source."""

    def __init__(
        self, symbol: str, tick_e9: int, periods: Periods, thresholds: tuple[float, ...], step_ns: int = STEP_NS
    ) -> None:
        """`thresholds` are the rising confidences at which a decision becomes worth telling again."""
        self.symbol, self.tick_e9, self.thresholds = symbol, tick_e9, thresholds
        self._step_ns, self._steps_of_bar = step_ns, -(-MINUTE_NS // step_ns)
        self.indicators = Indicators(periods)
        self.quote: dict[str, int] = {}
        self.event_time_ns = 0
        self.through_sequence = 0
        self._builder = BarBuilder()
        self._step: int | None = None
        self._told: Told | None = None

    def prime(
        self,
        bars: list[Bar],
        open_bar: Bar | None,
        through_sequence: int = 0,
        event_time_ns: int = 0,
        told: Told | None = None,
    ) -> None:
        """Takes closed bars of the past, the oldest first, and goes on with the open one.

        `through_sequence` and `event_time_ns` are those of the newest tick in them, `told` is what was last told on them.
        """
        for bar in bars:
            self.indicators.close_bar(_span(bar))
        if open_bar is not None:
            self._builder.resume(open_bar)
        if bars or open_bar:
            newest = open_bar or bars[-1]
            self.quote["price_e9"] = newest.close_e9
        self.through_sequence, self.event_time_ns, self._told = through_sequence, event_time_ns, told

    def add(self, ticks: TickArray, first_sequence: int, decide_from_ns: int = 0) -> list[TimedDecision]:
        """Takes ticks in order and returns what is worth telling, in order. The same ticks give the same in any batching.

        Ticks before `decide_from_ns` are learnt from and not decided on: what they would say is no longer news.
        """
        told: list[TimedDecision] = []
        times_ns = ticks["event_time_ns"]
        steps = times_ns // MINUTE_NS * self._steps_of_bar + times_ns % MINUTE_NS // self._step_ns
        starts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(ticks)]
        for begin, end in itertools.pairwise(starts):
            if begin == end:
                continue
            entered = int(steps[begin]) != self._step
            self._step = int(steps[begin])
            if entered:
                self._take(ticks[begin : begin + 1], first_sequence + begin)
                fresh = self.event_time_ns >= decide_from_ns
                said = self._consider(first_sequence + begin) if fresh else None
                if said is not None:
                    told.append(said)
                begin += 1  # noqa: PLW2901 - the rest of the step follows its first tick
            if begin < end:
                self._take(ticks[begin:end], first_sequence + begin)
        return told

    def view(self) -> MarketView:
        """What is seen now. Raises InsufficientData."""
        if not self.indicators.ready or "price_e9" not in self.quote:
            raise InsufficientData(self.symbol, self.indicators.bars, self.indicators.periods.needed)
        return look(self.indicators, self.quote["price_e9"])

    def decision(self) -> Decision:
        """The decision of this moment, told or not. Raises InsufficientData."""
        return decide(self.view(), self.tick_e9)

    def _take(self, ticks: TickArray, first_sequence: int) -> None:
        for bar in self._builder.add(ticks, first_sequence):
            self.indicators.close_bar(_span(bar))
        flags = ticks["flags"]
        for name, bit in _QUOTED:
            having = np.flatnonzero(flags & int(bit))
            if len(having):
                self.quote[name] = int(ticks[name][having[-1]])
        self.event_time_ns = int(ticks["event_time_ns"][-1])
        self.through_sequence = first_sequence + len(ticks) - 1

    def _consider(self, sequence: int) -> TimedDecision | None:
        if not self.indicators.ready or "price_e9" not in self.quote:
            return None
        decision = self.decision()
        told = worth_telling(decision, self._told, self.thresholds)
        if told is None:
            return None
        self._told = told
        return TimedDecision(decision, sequence, self.event_time_ns, dict(self.quote))


def _span(bar: Bar) -> Span:
    return Span(bar.high_e9, bar.low_e9, bar.close_e9, bar.volume)
