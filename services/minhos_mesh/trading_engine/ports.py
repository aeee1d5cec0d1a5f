"""Decides what the engine asks of risk, venue and market data, so that each can be another one, or a fake."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from minhos_mesh.runtime.storage import Connection
from minhos_mesh.trading_engine.domain.control import Control, EmergencyLatch
from minhos_mesh.trading_engine.domain.errors import VenueUnavailable
from minhos_mesh.trading_engine.domain.order_events import VenueReported
from minhos_mesh.trading_engine.domain.orders import (
    Fill,
    Order,
    OrderState,
    OrderTerms,
    Provenance,
    Reason,
    RiskCheck,
)
from minhos_mesh.trading_engine.domain.positions import Booking, Position

UNANSWERED: Final = "the venue has sent it on and has not been answered"
"""Why it is not known what became of an order that the venue waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The market that an order was decided on. Prices in 1e-9 units, None when not known."""

    provenance: Provenance
    decision_ns: int
    event_ns: int
    sequence: int
    epoch: int
    last_e9: int | None = None
    bid_e9: int | None = None
    ask_e9: int | None = None

    @property
    def reference_e9(self) -> int | None:
        """A price to judge scales by."""
        return self.last_e9 or self.bid_e9 or self.ask_e9


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """The account as the engine sees it at the moment of a question."""

    positions: tuple[Position, ...]
    working_buy: Mapping[str, int]
    working_sell: Mapping[str, int]
    net_today_e9: int
    version: int
    working_order_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskQuestion:
    """Whether an order may be sent, or a working one become what `terms` say. `request_id` has at most 64 characters."""

    request_id: str
    order_id: str
    terms: OrderTerms
    account: AccountView
    evidence: Evidence
    replaces: bool = False
    """The order works already: what it has working and reserved is exchanged for the whole of `terms`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskAnswer:
    """The decision with every check that was made."""

    approved: bool
    approval_id: str
    checks: tuple[RiskCheck, ...]


class Risk(Protocol):
    """The risk manager. No answer means no."""

    async def check(self, question: RiskQuestion) -> RiskAnswer:
        """Ask about one order. Raises RiskUnavailable, RiskConflict."""
        ...


class VenueRefused(Exception):
    """Expected: the venue answered and will not do it; nothing has changed there."""


class VenueConflict(VenueUnavailable):
    """Expected: the venue knows the id of a request with other content; how the order stands is to be asked."""


class VenueKnowsNothing(Exception):
    """Expected: the venue says for certain that it never took this order."""


class VenuePositionLost(Exception):
    """Expected: the venue's stream cannot be resumed there; take everything anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueView:
    """An order as the venue tells it, UNKNOWN where it does not know itself what became of it."""

    order_id: str
    report: VenueReported

    @property
    def settled(self) -> VenueReported:
        """The report to somebody who has waited for an answer: what nobody has answered by then is not known."""
        if self.report.state is not OrderState.SUBMITTING:
            return self.report
        return replace(self.report, state=OrderState.UNKNOWN, reason=Reason.OUTCOME_UNKNOWN, message=UNANSWERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueProgress:
    """How far the venue has gone in the market of a replay; everything up to there came before it."""

    symbol: str
    epoch: int
    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueNews:
    """One message of the venue's stream; at most one of its parts is set besides the revision."""

    revision: int
    snapshot: tuple[VenueView, ...] | None = None
    order: VenueView | None = None
    fill: Fill | None = None
    progress: VenueProgress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueInfo:
    """Who the venue is."""

    name: str
    live: bool
    provenance: Mapping[str, Provenance]


class Venue(Protocol):
    """A place that executes orders. Every method raises VenueUnavailable when there is no answer."""

    async def info(self) -> VenueInfo:
        """Ask who the venue is."""
        ...

    async def submit(self, order: Order) -> VenueView:
        """Send an order under its own id; safe to repeat. Raises VenueRefused."""
        ...

    async def cancel(self, order_id: str) -> VenueView:
        """Cancel an order. Raises VenueRefused, VenueKnowsNothing."""
        ...

    async def cancel_all(self) -> Sequence[VenueView]:
        """Cancel everything that works."""
        ...

    async def replace(self, order: Order, request_id: str) -> VenueView:
        """Send the terms that an order is PENDING_REPLACE for. Raises VenueRefused, VenueKnowsNothing, VenueConflict."""
        ...

    async def get(self, order_id: str) -> VenueView:
        """Ask how an order stands, UNKNOWN when the venue does not know it either. Raises VenueKnowsNothing."""
        ...

    async def open_orders(self) -> tuple[Sequence[VenueView], int]:
        """List what works, with the revision that the view is of."""
        ...

    def fills(self, *, order_id: str | None = None, after_fill_id: str | None = None) -> AsyncGenerator[Fill]:
        """List fills, the oldest first, of one order or behind a fill."""
        ...

    async def positions(self) -> Mapping[str, int]:
        """List the signed contracts that the venue sees, by symbol, without zeros."""
        ...

    def watch(self, after_revision: int | None) -> AsyncGenerator[VenueNews]:
        """Follow orders and fills behind a revision. Raises VenuePositionLost."""
        ...


class Market(Protocol):
    """Where prices come from."""

    async def quote(self, symbol: str, *, within_s: float) -> Evidence | None:
        """Ask for the last values; None before the first tick. Raises MarketDataUnavailable, after `within_s` at the latest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingFact:
    """Something that has happened and is told to the mesh; exactly one part is set besides when and why."""

    at_ns: int
    order: Order | None = None
    booking: Booking | None = None
    signal_id: str = ""
    control: Control | None = None
    latch: EmergencyLatch | None = None
    progress: VenueProgress | None = None


class Outgoing(Protocol):
    """The way of facts to the mesh; they are written with the step that made them."""

    def prepare(self, facts: Sequence[TradingFact]) -> list[object]:
        """Make the events of these facts."""
        ...

    def add(self, connection: Connection, events: Sequence[object]) -> None:
        """Write events into the transaction of the step."""
        ...
