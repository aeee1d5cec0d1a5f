"""Wires the trading engine: store, ledger, the ways to risk, venue, market data and bus, and the three servicers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from minhos_api.brain.v1 import brain_events_pb2
from minhos_api.events.v1 import event_pb2
from minhos_api.market.v1.market_data_provider_service_pb2_grpc import MarketDataProviderServiceStub
from minhos_api.risk.v1.risk_manager_service_pb2_grpc import RiskManagerServiceStub
from minhos_api.trading.v1 import (
    order_service_pb2,
    trading_control_service_pb2,
    trading_events_pb2,
)
from minhos_api.trading.v1 import trading_engine_service_pb2 as engine_pb2
from minhos_api.venue.v1.venue_service_pb2_grpc import VenueServiceStub
from minhos_mesh.runtime import validation
from minhos_mesh.runtime.config import MeshConfig
from minhos_mesh.runtime.context import ServiceContext, ServiceParts
from minhos_mesh.runtime.events import EventClient, Reading
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.money import E9
from minhos_mesh.runtime.outbox import Outbox
from minhos_mesh.runtime.state import StateFollower
from minhos_mesh.runtime.storage import Database
from minhos_mesh.trading_engine.auto_trade import AutoTrade
from minhos_mesh.trading_engine.desk import Desk, DeskRules
from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.account import Account
from minhos_mesh.trading_engine.domain.control import Control, TradingMode
from minhos_mesh.trading_engine.domain.errors import RiskUnavailable
from minhos_mesh.trading_engine.domain.home import stranded
from minhos_mesh.trading_engine.domain.orders import Provenance
from minhos_mesh.trading_engine.domain.signals import OppositePolicy, SignalPolicy
from minhos_mesh.trading_engine.domain.validation import InstrumentSpec
from minhos_mesh.trading_engine.emergency import EmergencyStop
from minhos_mesh.trading_engine.error_table import ERRORS
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.order_conditions import OrderConditions
from minhos_mesh.trading_engine.outgoing import OutboxEvents
from minhos_mesh.trading_engine.ports import VenueInfo
from minhos_mesh.trading_engine.reconcile import CONDITION, Reconciler
from minhos_mesh.trading_engine.remote import RemoteMarket, RemoteRisk, RemoteVenue
from minhos_mesh.trading_engine.replacing import Replacing
from minhos_mesh.trading_engine.service import DEFAULT_ACTOR, ControlView, TradingEngine
from minhos_mesh.trading_engine.servicer import OrderServicer, TradingControlServicer, TradingEngineServicer
from minhos_mesh.trading_engine.signal_desk import SignalDesk, SignalDeskRules
from minhos_mesh.trading_engine.store import MIGRATIONS, Changes, Kept, Store, VenueCursor
from minhos_mesh.trading_engine.translate import fit, signal_from_proto, time_from_proto
from minhos_mesh.trading_engine.venue_feed import ProgressBoard, VenueFeed

_LOG: Final = get_logger("trading_engine")
CONSUMER: Final = "trading_engine"
_VENUE_PATIENCE_S: Final = 3.0
"""How long the start waits for the venue before the engine serves without it, DEGRADED."""
VENUE_CHANGED: Final = "VENUE_CHANGED"
"""Condition: orders or positions are open at another venue than the one to trade at."""
STATE_PATIENCE_S: Final = 5.0
"""How long the start waits for the first state; without it the engine serves and acts on no signal, DEGRADED."""


_WARMED: Final = [
    event_pb2.Event(),
    trading_events_pb2.OrderUpdated(),
    trading_events_pb2.PositionUpdated(),
    trading_events_pb2.TradeExecuted(),
    trading_events_pb2.TradingProgressed(),
    engine_pb2.ExecuteTradeRequest(),
    order_service_pb2.PlaceOrderRequest(),
    trading_control_service_pb2.EmergencyStopRequest(),
]
"""Messages whose rules are compiled before the first order and not on its way."""


class Wiring:
    """All parts of one engine. `start` recovers and begins."""

    def __init__(self, context: ServiceContext, database: Database, kept: Kept) -> None:
        config = context.config
        self.context = context
        self.specs = specs_of(config)
        self.store = Store(database)
        self.events = EventClient(context)
        self.outbox = Outbox(database, self.events)
        self.account = _account(self.specs, kept)
        control = kept.control or Control(mode=TradingMode.MANUAL)
        outgoing = OutboxEvents(self.outbox, self.events, self._view)
        self.ledger = Ledger(self.account, control, self.store, outgoing, context.clock)
        self.ledger.cursor = kept.cursor
        self.ledger.shown_replay = {position.symbol: position for position in kept.replay}
        self.risk = RemoteRisk(context.clients.stub(RiskManagerServiceStub))
        self.market = RemoteMarket(context.clients.stub(MarketDataProviderServiceStub))
        self.state = StateFollower(context)
        self.auto = AutoTrade(self.state, policy_of(config))
        self.home = kept.home
        self.disputed = kept.disputed
        self.stranded = stranded(kept.home, config.engine.venue, kept.open_orders, self.account.positions.values())
        self.venue = RemoteVenue(context.clients.stub(VenueServiceStub), timeout_s=config.engine.venue_timeout_s)
        self._wire_orders()
        self._wire_engine()

    def _wire_orders(self) -> None:
        """Wire the way of orders: desk, reconciliation, the venue's news."""
        context = self.context
        self.progress = ProgressBoard()
        self.reconciler = Reconciler(
            ledger=self.ledger, store=self.store, venue=self.venue, conditions=context.conditions
        )
        self.desk = Desk(
            ledger=self.ledger,
            store=self.store,
            risk=self.risk,
            venue=self.venue,
            rules=DeskRules(
                specs=self.specs,
                venue_live=self._venue_live,
                stranded=self.stranded,
                home=self.home,
                venue=context.config.engine.venue,
            ),
            start=context.tasks.start,
            ask_later=self.reconciler.ask,
        )
        self.reconciler.use(self.desk)
        self.replacing = Replacing(
            ledger=self.ledger,
            store=self.store,
            desk=self.desk,
            risk=self.risk,
            venue=self.venue,
            reconciler=self.reconciler,
        )
        self.feed = VenueFeed(
            ledger=self.ledger,
            venue=self.venue,
            reconciler=self.reconciler,
            progress=self.progress,
            conditions=context.conditions,
            on_info=self._on_info,
        )

    def _wire_engine(self) -> None:
        """Wire what acts and what is served."""
        context = self.context
        self.signals = SignalDesk(
            ledger=self.ledger,
            store=self.store,
            desk=self.desk,
            progress=self.progress,
            auto=self.auto,
            rules=SignalDeskRules(),
            clock=context.clock,
        )
        self.engine = TradingEngine(
            ledger=self.ledger,
            store=self.store,
            desk=self.desk,
            replacing=self.replacing,
            signals=self.signals,
            emergency=EmergencyStop(
                ledger=self.ledger,
                desk=self.desk,
                venue=self.venue,
                reconciler=self.reconciler,
                clock=context.clock,
            ),
            market=self.market,
            specs=self.specs,
            clock=context.clock,
            auto=self.auto,
            venue=lambda: self.feed.info,
            signal_age_ns=int(context.config.risk.max_price_age_s * 1e9),
        )

    async def start(self) -> None:
        """Recover what a former life left, follow the venue and the state, and begin to act on signals."""
        tasks = self.context.tasks
        tasks.start(self.ledger.run(), "ledger")
        self.auto.listen(self.ledger.tell_control)
        self.state.start()
        self.outbox.start(tasks)
        OrderConditions(self.ledger, self.context.conditions, self.disputed)
        tasks.start(self._greet(), "greet")
        if self.stranded:
            _LOG.error("venue.changed", because=self.stranded)
            self.context.conditions.set(VENUE_CHANGED, self.stranded)
        else:
            await self._begin_at_venue()
        with suppress(TimeoutError):  # the follower's condition tells it
            await self.state.wait_first(STATE_PATIENCE_S)
        self.events.subscribe(
            {
                brain_events_pb2.SignalGenerated: self.on_signal,
                brain_events_pb2.AnalysisProgressed: self.on_progress,
            },
            Reading(durable=CONSUMER, from_beginning=True, max_attempts=100, ack_deadline_s=120.0, credit=64),
        )

    async def _begin_at_venue(self) -> None:
        """Take over what is open, follow the venue, and wait a while for its first word."""
        await self._settle_home()
        await self.reconciler.take_over()
        tasks = self.context.tasks
        tasks.start(self.feed.run(), "venue-feed")
        try:
            async with asyncio.timeout(_VENUE_PATIENCE_S):
                await self.feed.reconciled.wait()
        except TimeoutError:
            self.context.conditions.set(CONDITION, "the venue has not answered since the start")
        tasks.start(self.reconciler.run(), "reconciler")

    async def _settle_home(self) -> None:
        """Note the venue where orders will be. An automatic mode that was chosen for another one ends."""
        home, venue = self.home, self.context.config.engine.venue
        if home == venue:
            return
        if home:
            _LOG.warning("venue.changed", home=home, venue=venue)
            self.ledger.cursor = VenueCursor()
            if self.ledger.control.mode is not TradingMode.MANUAL:
                why, at_ns = f"the venue was {home} and is {venue}", self.context.clock.wall_ns()
                mode = TradingMode.MANUAL
                manual = rules.set_mode(self.ledger.control, mode, actor=DEFAULT_ACTOR, reason=why, at_ns=at_ns)
                await self.ledger.set_control(manual)
        await self.ledger.record(Changes(home=venue, cursor=self.ledger.cursor))

    async def _greet(self) -> None:
        try:
            await self.risk.greet()
        except RiskUnavailable as error:
            _LOG.warning("risk.does_not_answer", because=str(error))

    async def on_signal(self, event: event_pb2.Event, told: brain_events_pb2.SignalGenerated) -> None:
        """Act on a signal from the bus."""
        signal = signal_from_proto(told.signal)
        if signal is None:
            _LOG.error("signal.without_provenance", signal_id=told.signal.signal_id, event_id=event.event_id)
            return
        await self.signals.on_signal(signal)

    async def on_progress(self, _event: event_pb2.Event, told: brain_events_pb2.AnalysisProgressed) -> None:
        """Let the venue of a replay follow the brain."""
        at_ns = time_from_proto(told.event_time)
        await self.signals.on_progress(told.symbol, fit(told.epoch), fit(told.through_sequence), at_ns)

    def _view(self, control: Control) -> ControlView:
        return self.engine.view(control)

    def _venue_live(self) -> bool | None:
        return None if self.feed.info is None else self.feed.info.live

    async def _on_info(self, info: VenueInfo) -> None:
        config = self.context.config
        mode = None if config.engine.mode == "auto" else TradingMode[config.engine.mode]
        await self.engine.choose_default_mode(mode, info, Provenance[config.sierra_client.provenance])


@asynccontextmanager
async def build(context: ServiceContext) -> AsyncIterator[ServiceParts]:
    """Open the store, read what is kept, and wire the engine. Raises StorageError when the store cannot be used."""
    path = context.paths.store_file(context.service)
    async with Database(path, migrations=MIGRATIONS, guard=context.fence()) as database:
        kept = await Store(database).load()
        validation.warm(_WARMED)
        wiring = Wiring(context, database, kept)
        servicers: list[Any] = [
            TradingEngineServicer(wiring.engine, wiring.risk),
            OrderServicer(wiring.engine),
            TradingControlServicer(wiring.engine),
        ]
        try:
            yield ServiceParts(servicers=servicers, errors=ERRORS, start=wiring.start)
        finally:
            for log in (wiring.ledger.orders, wiring.ledger.positions, wiring.ledger.controls):
                log.close()


def specs_of(config: MeshConfig) -> dict[str, InstrumentSpec]:
    """What the engine must know of each symbol of the mesh."""
    specs = {}
    for symbol in config.symbols():
        spec = config.spec(symbol)
        specs[symbol] = InstrumentSpec(
            symbol=symbol,
            tick_e9=spec.tick_e9,
            multiplier_e9=spec.multiplier * E9,
            currency=spec.currency,
            tradeable=spec.tradeable,
        )
    return specs


def policy_of(config: MeshConfig) -> SignalPolicy:
    """How signals are acted on, as far as the configuration says; the rest is for the state to say."""
    return SignalPolicy(opposite=OppositePolicy.REVERSE if config.engine.reverse else OppositePolicy.CLOSE)


def _account(specs: dict[str, InstrumentSpec], kept: Kept) -> Account:
    """Fold what is kept into the account; positions of symbols that are no longer configured keep their multiplier."""
    multipliers = {symbol: position.multiplier_e9 for symbol, position in kept.positions.items()}
    multipliers.update({symbol: spec.multiplier_e9 for symbol, spec in specs.items() if symbol not in multipliers})
    account = Account(multipliers)
    for fill in kept.fills:
        account.restore_fill(fill)
    for order in kept.open_orders:
        account.restore(order)
    for symbol, position in kept.positions.items():
        if account.positions.get(symbol) != position:
            _LOG.error("position.differs_from_fills", symbol=symbol, kept=str(position))
    return account
