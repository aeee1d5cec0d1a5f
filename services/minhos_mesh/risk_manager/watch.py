"""Decides what is looked at every second: whether prices are fresh enough for orders, and whether limits leave room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from minhos_mesh.risk_manager.domain.desk import RiskDesk
from minhos_mesh.risk_manager.domain.stops import GRACE_NS, is_fresh, quiet_sentence
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions

FEED_QUIET: Final = "FEED_QUIET"
"""Condition while no order of a symbol would pass because its newest price is too old, in an open session."""
LOOK_S: Final = 1.0


class StopsWatch:
    """Looks by the clock at what no event tells: that a price has become old, and that a day has ended."""

    def __init__(
        self,
        desk: RiskDesk,
        symbols: Iterable[str],
        clock: Clock,
        conditions: Conditions,
        look_at_losses: Callable[[], None],
    ) -> None:
        """Symbols whose instrument is not tradeable are not looked at. Raises SymbolUnknown."""
        self._desk, self._clock, self._conditions = desk, clock, conditions
        self._symbols = frozenset(symbol for symbol in symbols if desk.instrument(symbol).tradeable)
        self._look_at_losses = look_at_losses
        self._began_ns = clock.wall_ns()
        self._begun: set[str] = set()
        """Symbols that have had a fresh price since the start."""

    def look(self) -> None:
        """Sets and clears what is held for it."""
        now_ns = self._clock.wall_ns()
        limits, prices = self._desk.limits, self._desk.prices
        self._begun |= {symbol for symbol in self._symbols if is_fresh(prices.get(symbol), limits, now_ns)}
        looked_at = self._symbols if now_ns - self._began_ns >= GRACE_NS else self._begun
        sentence = quiet_sentence(self._desk, looked_at, now_ns)
        if sentence is None:
            self._conditions.clear(FEED_QUIET)
        else:
            self._conditions.set(FEED_QUIET, sentence)
        self._look_at_losses()

    async def run(self) -> None:
        """Looks once a second until cancelled."""
        due = self._clock.monotonic()
        while True:
            due = max(due + LOOK_S, self._clock.monotonic())
            await self._clock.sleep_until(due)
            self.look()
