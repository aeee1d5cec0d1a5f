"""Decides how facts, prices and the state of the system reach the risk manager, and how its decisions reach the bus."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from minhos_api.events.v1 import event_pb2
from minhos_api.trading.v1 import trading_events_pb2
from minhos_mesh.risk_manager import translate
from minhos_mesh.risk_manager.domain.desk import Decision
from minhos_mesh.risk_manager.domain.limits import Switches
from minhos_mesh.risk_manager.service import Alert, RiskManager, Writing
from minhos_mesh.runtime.events import EventClient, PayloadHandler, Reading
from minhos_mesh.runtime.inbox import Inbox
from minhos_mesh.runtime.market import MarketClient, MarketKind, MarketQuote, Snapshot
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.state import StateFollower, StateView
from minhos_mesh.runtime.storage import Connection

CONSUMER = "risk_manager"
ATTEMPTS = 100
"""How often a fact is tried: a projection must not lose one because the service died over it a few times."""
ACCOUNT = "account"
"""Subject of events about the whole account."""


class OutboxAnnouncer:
    """Publishes decisions through the outbox of the risk manager's own database."""

    def __init__(self, events: EventClient, outbox: Outbox) -> None:
        self._events = events
        self._outbox = outbox

    def decided(self, decision: Decision) -> Writing:
        """Tell a decision, under the id of its order."""
        question = decision.question
        event = self._events.event(
            translate.result_event(decision),
            subject=question.terms.symbol,
            time_ns=decision.now_ns,
            correlation_id=question.order_id,
        )
        return self._adding([event])

    def exceeded(self, alerts: Sequence[Alert], now_ns: int) -> Writing:
        """Tell limits that were passed."""
        return self._adding(
            [self._events.event(translate.threshold_event(a), subject=ACCOUNT, time_ns=now_ns) for a in alerts]
        )

    def _adding(self, events: list[event_pb2.Event]) -> Writing:
        def add(connection: Connection) -> None:
            self._outbox.add(connection, events)

        return add


def follow_account(risk: RiskManager, events: EventClient) -> None:
    """Read what happens to orders and positions, from the first event on, each once."""
    inbox = Inbox(CONSUMER)

    async def updated(event: event_pb2.Event, payload: trading_events_pb2.OrderUpdated) -> None:
        await risk.on_order(translate.order_fact(payload.order), lambda c: inbox.take(c, event))

    async def executed(event: event_pb2.Event, payload: trading_events_pb2.TradeExecuted) -> None:
        order_id = payload.fill.order_id
        await risk.on_trade(order_id, translate.trade_fact(payload), lambda c: inbox.take(c, event))

    handlers: dict[type[Message], PayloadHandler] = {
        trading_events_pb2.OrderUpdated: updated,
        trading_events_pb2.TradeExecuted: executed,
    }
    events.subscribe(handlers, Reading(durable=CONSUMER, from_beginning=True, max_attempts=ATTEMPTS))


async def follow_prices(risk: RiskManager, market: MarketClient, symbols: tuple[str, ...]) -> None:
    """Read the newest price of each symbol until cancelled."""
    async with market.subscribe(symbols, {MarketKind.QUOTES}) as subscription:
        async for update in subscription:
            quote = update.quote if isinstance(update, Snapshot) else update
            if isinstance(quote, MarketQuote):
                await risk.on_price(quote.symbol, translate.price_from_quote(quote))


def follow_state(risk: RiskManager, state: StateFollower) -> None:
    """Take over what the state of the system lets through, now and at every change."""

    def heard(view: StateView) -> None:
        switches = Switches(
            trading_enabled=view.trading_enabled, risk_enabled=view.risk_enabled, system_state=view.system_state
        )
        risk.on_switches(switches)

    state.listen(heard)
    state.start()
