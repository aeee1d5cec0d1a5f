"""Decides what becomes of market data: each symbol has its brain, what is worth telling is told once, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from minhos_mesh.ai_brain.domain.brain import STEP_NS, SymbolBrain, TimedDecision
from minhos_mesh.ai_brain.domain.decide import Told
from minhos_mesh.ai_brain.domain.findings import Decision, MarketView, StalePrice
from minhos_mesh.ai_brain.domain.indicators import Periods
from minhos_mesh.runtime.bars import Bar
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.tick_layout import TickArray
from minhos_mesh.runtime.watch import RevisionLog, first_revision

SIGNALS_HELD: Final = 1_000
"""Published signals that are held for lists; all of them stand in the journal of the bus."""
PROGRESS_TICKS: Final = 512
"""In a replay progress is told at least this often, for others wait for it; thinking about more at once would hold up heartbeats."""

_LOG: Final = get_logger("ai_brain")


class UnknownSymbol(Exception):
    """Expected: the mesh has no such symbol."""

    def __init__(self, symbol: str, known: Sequence[str]) -> None:
        super().__init__(f"symbol {symbol!r} is not configured: known are {', '.join(known)}")
        self.symbol, self.known = symbol, ", ".join(known)


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A decision as it is told."""

    symbol: str
    epoch: int
    provenance: int
    """Value of the contract's enum Provenance."""
    timed: TimedDecision

    @property
    def signal_id(self) -> str:
        """The same data gives the same id."""
        return f"{self.symbol}:{self.epoch:x}:{self.timed.sequence}"


@dataclass(frozen=True, slots=True)
class Progressed:
    """All signals up to this tick were told."""

    symbol: str
    epoch: int
    through_sequence: int
    event_time_ns: int


@dataclass(frozen=True, slots=True)
class AnalysisRecord:
    """What is seen in a market at the close of a bar."""

    symbol: str
    epoch: int
    provenance: int
    view: MarketView
    quote: Mapping[str, int]
    event_time_ns: int
    sequence: int


Fact = SignalRecord | Progressed | AnalysisRecord


class SaidSignal(Protocol):
    """A signal in the words of the contract, as it is held for those who ask."""

    @property
    def signal_id(self) -> str:
        """Its id."""

    @property
    def symbol(self) -> str:
        """Its symbol."""


S = TypeVar("S", bound=SaidSignal)


@dataclass(frozen=True, slots=True)
class PastSignal(Generic[S]):
    """A signal that was told in an earlier life of the brain."""

    said: S
    epoch: int
    told: Told


class Teller(Protocol):
    """Brings facts to the rest of the mesh."""

    async def tell(self, facts: Sequence[Fact]) -> None:
        """Returns once all of them are stored, in order."""
        ...


@dataclass(slots=True)
class Counters:
    """How far the brain has come with a symbol."""

    epoch: int = 0
    provenance: int = 0
    through_sequence: int = 0
    ticks: int = 0
    gaps: int = 0
    signals: int = 0
    told_sequence: int = 0


class Brain(Generic[S]):
    """All symbols of the mesh."""

    def __init__(
        self,
        ticks_e9: Mapping[str, int],
        *,
        primary: str,
        periods: Periods,
        thresholds: tuple[float, ...],
        max_price_age_s: float,
        replay: bool,
        clock: Clock,
        teller: Teller,
        say: Callable[[SignalRecord], S],
        step_ns: int = STEP_NS,
    ) -> None:
        """`ticks_e9` gives the tick of each symbol in 1e-9 units; `thresholds` the confidences worth telling."""
        self._say, self._step_ns = say, step_ns
        self._ticks_e9, self._primary = dict(ticks_e9), primary
        self._periods, self._thresholds = periods, thresholds
        self._max_price_age_s, self._replay = max_price_age_s, replay
        self._clock, self._teller = clock, teller
        self._brains = {symbol: self._new(symbol) for symbol in ticks_e9}
        self.counters = {symbol: Counters() for symbol in ticks_e9}
        self.signals: RevisionLog[S] = RevisionLog(first_revision(clock), SIGNALS_HELD)
        self.held: deque[S] = deque(maxlen=SIGNALS_HELD)
        self._past: dict[str, PastSignal[S]] = {}

    def recall(self, past: Sequence[PastSignal[S]]) -> None:
        """Holds what was told before, the oldest first; what still stands is not told again in its epoch.

        A replay tells everything from the first tick again, under the same ids.
        """
        known = {said.signal_id for said in self.held}
        earlier = [signal.said for signal in past if signal.said.signal_id not in known]
        self.held = deque((*earlier, *self.held), SIGNALS_HELD)
        self._past = {signal.said.symbol: signal for signal in past}

    def begin(self, symbol: str, epoch: int, provenance: int) -> None:
        """A new epoch: nothing of before counts."""
        self._brains[symbol] = self._new(symbol)
        self.counters[symbol] = Counters(epoch=epoch, provenance=provenance)

    def prime(
        self,
        symbol: str,
        epoch: int,
        provenance: int,
        through_sequence: int,
        event_time_ns: int,
        bars: Sequence[Bar],
        open_bar: Bar | None,
    ) -> None:
        """Begins with the bars of the past; sequence and time are those of the newest tick in them."""
        self.begin(symbol, epoch, provenance)
        past = self._past.get(symbol)
        told = past.told if past is not None and past.epoch == epoch else None
        self._brains[symbol].prime(list(bars), open_bar, through_sequence, event_time_ns, told)
        self.counters[symbol].through_sequence = through_sequence
        _LOG.info("brain.primed", symbol=symbol, bars=len(bars), epoch=epoch, through_sequence=through_sequence)

    def gap(self, symbol: str) -> None:
        """Ticks are missing; said and counted."""
        self.counters[symbol].gaps += 1

    async def add(self, symbol: str, epoch: int, provenance: int, ticks: TickArray, first_sequence: int) -> None:
        """Takes ticks in order and returns once everything worth telling about them is stored."""
        counters = self.counters[symbol]
        if counters.epoch != epoch:
            self.begin(symbol, epoch, provenance)
            counters = self.counters[symbol]
        counters.provenance = provenance
        for begin in range(0, len(ticks), PROGRESS_TICKS):
            part = ticks[begin : begin + PROGRESS_TICKS]
            await self._add_part(symbol, counters, part, first_sequence + begin)
            # History is told to nobody, so nothing else would let heartbeats through between two parts.
            await asyncio.sleep(0)

    async def _add_part(self, symbol: str, counters: Counters, ticks: TickArray, first_sequence: int) -> None:
        brain = self._brains[symbol]
        bars = brain.indicators.bars
        told = [
            SignalRecord(symbol, counters.epoch, counters.provenance, timed)
            for timed in brain.add(ticks, first_sequence, self._decide_from_ns())
        ]
        counters.ticks += len(ticks)
        counters.through_sequence = brain.through_sequence
        facts: list[Fact] = list(told)
        if self._replay:
            facts.append(Progressed(symbol, counters.epoch, brain.through_sequence, brain.event_time_ns))
        elif brain.indicators.bars > bars and brain.indicators.ready and brain.event_time_ns >= self._decide_from_ns():
            facts.append(self._analysis(symbol, counters, brain))
        if facts:
            await self._teller.tell(facts)
        for record in told:
            counters.signals += 1
            said = self._say(record)
            if all(said.signal_id != held.signal_id for held in self.held):
                self.held.append(said)
            self.signals.append(said)
        counters.told_sequence = brain.through_sequence

    def view(self, symbol: str | None) -> AnalysisRecord:
        """What is seen now. Raises UnknownSymbol, InsufficientData, StalePrice."""
        name, brain = self._find(symbol)
        brain.view()
        self._check_fresh(brain)
        return self._analysis(name, self.counters[name], brain)

    def generate(self, symbol: str | None) -> SignalRecord:
        """The decision of this moment, which is not told. Raises UnknownSymbol, InsufficientData, StalePrice."""
        name, brain = self._find(symbol)
        decision: Decision = brain.decision()
        self._check_fresh(brain)
        counters = self.counters[name]
        timed = TimedDecision(decision, brain.through_sequence, brain.event_time_ns, dict(brain.quote))
        return SignalRecord(name, counters.epoch, counters.provenance, timed)

    def current(self, symbol: str | None) -> S | None:
        """The newest told signal of a symbol. Raises UnknownSymbol."""
        name, _ = self._find(symbol)
        return next((said for said in reversed(self.held) if said.symbol == name), None)

    def known(self, symbol: str) -> str:
        """The symbol, when the mesh has it. Raises UnknownSymbol."""
        return self._find(symbol)[0]

    def bars(self, symbol: str) -> int:
        """Closed bars behind the indicators of a symbol."""
        return self._brains[symbol].indicators.bars

    def event_time_ns(self, symbol: str) -> int:
        """Time of the newest tick of a symbol; 0 before the first."""
        return self._brains[symbol].event_time_ns

    def _find(self, symbol: str | None) -> tuple[str, SymbolBrain]:
        name = symbol or self._primary
        if name not in self._brains:
            raise UnknownSymbol(name, sorted(self._brains))
        return name, self._brains[name]

    def _decide_from_ns(self) -> int:
        return 0 if self._replay else self._clock.wall_ns() - int(self._max_price_age_s * 1e9)

    def _check_fresh(self, brain: SymbolBrain) -> None:
        if self._replay:
            return
        age_s = (self._clock.wall_ns() - brain.event_time_ns) / 1e9
        if age_s > self._max_price_age_s:
            raise StalePrice(brain.symbol, age_s, self._max_price_age_s)

    def _analysis(self, symbol: str, counters: Counters, brain: SymbolBrain) -> AnalysisRecord:
        return AnalysisRecord(
            symbol,
            counters.epoch,
            counters.provenance,
            brain.view(),
            dict(brain.quote),
            brain.event_time_ns,
            brain.through_sequence,
        )

    def _new(self, symbol: str) -> SymbolBrain:
        return SymbolBrain(symbol, self._ticks_e9[symbol], self._periods, self._thresholds, self._step_ns)
