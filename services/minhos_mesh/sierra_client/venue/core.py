"""Decides what the news of the connection make of the venue: written down first, told then, and what is wrong in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from minhos_mesh.dtc.client_session import Permissions
from minhos_mesh.dtc.depth_updates import BookUpdate
from minhos_mesh.dtc.errors import ValueUnreadable
from minhos_mesh.dtc.market_updates import MarketUpdate
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.order_state import OrderState as Tracked
from minhos_mesh.dtc.order_state import TrackedOrder, UpdateKind, VenueUpdate
from minhos_mesh.dtc.reports import BalanceReport, FillReport, PositionReport, balance_report, position_report
from minhos_mesh.dtc.tables.reference import ACCOUNT_BALANCE_UPDATE
from minhos_mesh.dtc.tables.trading import POSITION_UPDATE
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection, Database, StorageError
from minhos_mesh.runtime.watch import HELD, RevisionLog
from minhos_mesh.sierra_client import dtc_view
from minhos_mesh.sierra_client.dtc_connection import DtcConnection
from minhos_mesh.sierra_client.dtc_ports import NotReady
from minhos_mesh.sierra_client.dtc_status import DtcState, DtcStatus
from minhos_mesh.sierra_client.venue import store
from minhos_mesh.sierra_client.venue.account import ServerAccount
from minhos_mesh.sierra_client.venue.book import Step, VenueBook
from minhos_mesh.sierra_client.venue.domain import Change, OrderRecord
from minhos_mesh.sierra_client.venue.views import VENUE, Server, VenueSettings, other_server, server_of
from minhos_mesh.venue.domain.errors import VenueNotReady
from minhos_mesh.venue.domain.orders import SIMULATED, OrderReason, OrderState

POSITION_DUE_S: Final = 1.0
"""When the server's word on the position behind a fill is missed."""
ASK_AGAIN_S: Final = 3.0
"""How long it is waited for before it is asked for once more."""
DIFFERS_S: Final = 1.0
"""How long a position may be other than our fills make it before that is told."""

_LOG = get_logger("sierra_client.venue")


@dataclass(slots=True, eq=False)
class _Waiting:
    """Somebody who waits for what becomes of one order."""

    kinds: frozenset[UpdateKind] | None
    """None for the next news of any kind."""
    future: asyncio.Future[VenueUpdate]


class Waits:
    """Notes a wait for news of one order, and forgets it in the end."""

    def __init__(self, waiting: dict[str, list[_Waiting]], dtc_id: str, kinds: frozenset[UpdateKind] | None) -> None:
        self._all, self._dtc_id = waiting, dtc_id
        self._one = _Waiting(kinds, asyncio.get_running_loop().create_future())

    def __enter__(self) -> asyncio.Future[VenueUpdate]:
        self._all.setdefault(self._dtc_id, []).append(self._one)
        return self._one.future

    def __exit__(self, *_: object) -> None:
        rest = self._all[self._dtc_id]
        rest.remove(self._one)
        if not rest:
            del self._all[self._dtc_id]


class VenueCore:
    """Book, account and server of one venue; the journal and the watcher of its connection."""

    def __init__(
        self,
        settings: VenueSettings,
        database: Database,
        clock: Clock,
        *,
        start: Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]],
        reference_of: Callable[[str], int | None],
    ) -> None:
        """`reference_of` gives a recent price of a canonical symbol. `start` owns what goes on behind an answer."""
        self.settings = settings
        self.book = VenueBook(settings.specs, commission_e9=settings.commission_e9)
        self.account = ServerAccount()
        self.server: Server | None = None
        """Who the server is; None before the first logon of this life."""
        self.other_server = ""
        """Why the server that answers is not the one that has the orders; empty when it is."""
        self.carried: dict[str, int] | None = None
        """Contracts that were held before the first order, by canonical symbol; None before the first logon ever."""
        self.status = DtcStatus(address="")
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception when the disk fails: what is in memory is then ahead of it and must not go on."""
        self.canonical = {name: symbol for symbol, name in settings.names.items()}
        self.database = database
        self.clock = clock
        self.start = start
        self.reference_of = reference_of
        self.on_change: Callable[[], None] = lambda: None
        """Called when the connection, the account or an unknown order changed."""
        self.on_market_update: Callable[[MarketUpdate | BookUpdate], None] = lambda _: None
        """Called with each trade, quote and order book."""
        self.log: RevisionLog[Change] = RevisionLog()
        self._waiting: dict[str, list[_Waiting]] = {}
        self.accounts_moved = asyncio.Event()
        self.older = False
        self._identity = ""
        self._differs_since: float | None = None
        self._booked_at = 0.0
        self._asking = False
        self._some_unknown = False
        self._connection: DtcConnection | None = None

    async def recover(self) -> list[TrackedOrder]:
        """Takes up what an earlier life left on disk; returns the orders for the ledger of the connection."""
        loaded = await self.database.read(store.load)
        self.book.restore(loaded.records, loaded.positions, loaded.revision)
        self.log = RevisionLog(first=loaded.revision - len(loaded.changes), held=max(HELD, store.CHANGES_KEPT))
        for change in loaded.changes:
            self.log.append(change)
        self._some_unknown = bool(self._unknown())
        self.older = len(loaded.records) >= store.ORDERS_LOADED
        self.account.ours = {
            self.settings.names.get(symbol, symbol): held.position.quantity for symbol, held in loaded.positions.items()
        }
        self._identity = loaded.facts.get(store.SERVER, "")
        self.carried = json.loads(loaded.facts[store.CARRIED]) if store.CARRIED in loaded.facts else None
        open_orders = len(self.book.open_orders())
        _LOG.info("venue.recovered", orders=len(loaded.records), open_orders=open_orders, revision=loaded.revision)
        return loaded.tracked

    def use(self, connection: DtcConnection) -> None:
        """Names the connection over which orders go; it names this one as its journal and watcher."""
        self._connection = connection

    # What the connection tells; it is the journal of `DtcConnection` and its watcher.

    async def save(self, orders: Sequence[TrackedOrder]) -> None:
        """Writes orders as they stand with what that makes of them for watchers; raises StorageError."""
        await self.commit(self.book.take(orders, self.clock.wall_ns()), store.tracked_rows(orders))

    def accepts(self, permissions: Permissions, account: str) -> str:
        """Why this server and account cannot be those that have the orders, for people; empty when they can."""
        server = self._server_of(permissions, account)
        kept, formerly = self._identity, self.settings.formerly
        self.other_server = other_server(kept, server, formerly, self.book.open_told()) if kept else ""
        return self.other_server

    def _server_of(self, permissions: Permissions, account: str) -> Server:
        simulated = self.settings.account_is_simulated
        return server_of(permissions, account, self.status.address, account_is_simulated=simulated)

    def on_settled(
        self,
        permissions: Permissions,
        account: str,
        positions: Sequence[PositionReport],
        balance: BalanceReport | None,
    ) -> None:
        """Every order was compared with what the server lists."""
        server = self._server_of(permissions, account)
        self.server = server
        self.book.provenance = SIMULATED if server.simulated else self.settings.provenance
        self.account.settled(account, positions, balance)
        self._moved()
        held = {self.canonical.get(each.symbol, each.symbol): each.quantity for each in positions if each.quantity}
        if self.carried is None:
            ours = {symbol: view.position.quantity for symbol, view in self.book.positions.items()}
            self.carried = {symbol: held.get(symbol, 0) - ours.get(symbol, 0) for symbol in {*held, *ours}}
        if self._identity != server.identity:
            self._identity = server.identity
            facts = {store.SERVER: server.identity, store.CARRIED: json.dumps(self.carried)}
            self.start(self.write(lambda c: store.note_facts(c, facts)), "note the server")
        self._cancel_growing()

    def on_booked(self, fill: FillReport) -> None:
        """An execution of an order of ours is in memory; it is written down next."""
        self.account.booked(fill)
        self._booked_at = self.clock.monotonic()
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_later(POSITION_DUE_S, self._ask_positions)
        self._look_for_differences()

    def on_update(self, update: VenueUpdate) -> None:
        """An order of ours changed; it is written down."""
        if update.kind in {UpdateKind.CONTRADICTION, UpdateKind.TURNED_UP} or (
            update.kind is UpdateKind.DISPUTED and update.text
        ):
            _LOG.error(f"venue.{update.kind.value.lower()}", order=update.order.client_order_id, problem=update.text)
        for waiting in list(self._waiting.get(update.order.client_order_id, ())):
            wanted = waiting.kinds is None or update.kind in waiting.kinds or update.order.state.done
            if wanted and not waiting.future.done():
                waiting.future.set_result(update)
        if update.kind is UpdateKind.FILLED:
            self._cancel_growing()
        if update.order.state is Tracked.UNKNOWN or self._some_unknown or update.kind is UpdateKind.DISPUTED:
            self._some_unknown = bool(self._unknown())
            self.on_change()

    def on_status(self, status: DtcStatus) -> None:
        """The connection is doing something else."""
        self.status = status
        self.on_change()

    def on_market(self, update: MarketUpdate | BookUpdate) -> None:
        """A trade, a quote or the order book of a symbol that was asked for."""
        self.on_market_update(update)

    def on_message(self, message: Message) -> None:
        """A message that is about no order of ours and no market."""
        try:
            if message.layout is POSITION_UPDATE and self._connection is not None:
                report = position_report(message, self._connection.market_of)
                if report is not None:
                    self.account.position(report)
                    self._moved()
                    self._cancel_growing()
            elif message.layout is ACCOUNT_BALANCE_UPDATE:
                balance = balance_report(message)
                if balance is not None:
                    self.account.note_balance(balance)
        except ValueUnreadable as problem:
            _LOG.warning("venue.message_unreadable", message=message.name, problem=str(problem))

    def problems(self, *, trades: bool) -> dict[str, str]:
        """What is wrong, a sentence by code; `trades` where orders are meant to go here."""
        status, found = self.status, dict[str, str]()
        if self.other_server:
            found[dtc_view.SERVER_CHANGED] = self.other_server
        elif status.refused:
            found[dtc_view.NOT_LET_IN] = f"{status.address}: {status.refused}"
        elif status.state is DtcState.NOT_PERMITTED:
            if trades:
                found[dtc_view.TRADING_REFUSED] = f"{status.address}: {status.reason}"
        elif status.state is not DtcState.READY:
            found[dtc_view.AWAY] = f"{status.address} cannot be traded on ({status.state.value}): {status.reason}"
        unknown = self._unknown()
        if unknown and status.state is DtcState.READY:
            found[dtc_view.ORDERS_UNKNOWN] = (
                f"what became of {len(unknown)} order{'s' if len(unknown) > 1 else ''} is not known, the first is {unknown[0]}"
            )
        if self.book.disputed:
            first = self.book.orders[next(iter(self.book.disputed))]
            count = len(self.book.disputed)
            more = f" (the first of {count} orders)" if count > 1 else ""
            found[dtc_view.SETTLED_OTHERWISE] = f"order {first.client_order_id}{more}: {first.dispute}"
        differences = self._differences()
        if differences:
            found[dtc_view.POSITION_DIFFERS] = "; ".join(differences)
        return found

    def _unknown(self) -> list[str]:
        return [each.client_order_id for each in self.book.open_orders() if each.state is OrderState.UNKNOWN]

    def _differences(self) -> list[str]:
        """Positions that our fills have not explained for a while, where nobody else should trade on the account."""
        since = self._differs_since
        if since is None or self.clock.monotonic() < since + DIFFERS_S or self.status.state is not DtcState.READY:
            return []
        return [
            f"{self.canonical.get(name, name)} is {theirs} at the server, and our orders make it {ours}"
            for name, (theirs, ours) in self._unexplained().items()
        ]

    def _unexplained(self) -> dict[str, tuple[int, int]]:
        """What the server tells of a position and what our fills make it, by its name, where that differs."""
        if not self.settings.account_is_ours or self.carried is None:
            return {}
        carried = {self.settings.names.get(symbol, symbol): held for symbol, held in self.carried.items()}
        names = sorted({*carried, *self.account.ours, *self.account.told})
        pairs = {n: (self.account.quantity(n), carried.get(n, 0) + self.account.ours.get(n, 0)) for n in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _ask_positions(self) -> None:
        """Asks for positions when the server's word on the last fill has not come, or came before we knew of that."""
        if self.account.current or self._connection is None:
            self._asking = False
            return
        wait_s = self._booked_at + POSITION_DUE_S - self.clock.monotonic()
        if wait_s <= 0:
            self._connection.look_again("the server has not told the position behind a fill")
            wait_s = ASK_AGAIN_S
        asyncio.get_running_loop().call_later(wait_s, self._ask_positions)

    def _look_for_differences(self) -> None:
        """A late word of the server makes a difference for a moment; what lasts longer is told."""
        if not self._unexplained():
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = self.clock.monotonic()
            asyncio.get_running_loop().call_later(DIFFERS_S + 0.1, self.on_change)

    # Order of memory, disk and telling.

    def _cancel_growing(self) -> None:
        """Has orders cancelled that may only reduce and would no longer, since others were filled first."""
        for symbol, name in self.settings.names.items():
            for record in self.book.growing(symbol, self.account.possible(name)):
                step = self.book.wants_cancel(record.client_order_id, OrderReason.REDUCE_ONLY)
                self.start(self._cancel_quietly(record, step), f"reduce only {record.client_order_id}")

    async def _cancel_quietly(self, record: OrderRecord, step: Step) -> None:
        await self.commit(step)
        if self._connection is not None:
            with suppress(NotReady):  # it is cancelled when the orders are compared again
                await self._connection.cancel(record.asked.dtc_id)

    def tracked(self, dtc_id: str) -> TrackedOrder | None:
        """An order as the server has told it."""
        return None if self._connection is None else self._connection.ledger.get(dtc_id)

    def can_send(self) -> bool:
        """Whether an order would be sent now."""
        return self._connection is not None and self._connection.ready()

    def not_ready(self, because: str) -> VenueNotReady:
        """Why nothing was sent."""
        return VenueNotReady(VENUE, "the DTC server", self.status.state.value, because)

    def ready(self) -> DtcConnection:
        """The connection when an order can be sent over it. Raises VenueNotReady."""
        connection = self._connection
        if connection is None or not connection.ready() or self.server is None:
            raise self.not_ready(self.status.reason or "it is being reached")
        return connection

    def reached(self) -> Server:
        """Who the server is, while it tells what is held. Raises VenueNotReady."""
        if self.server is None or self.status.state not in {DtcState.READY, DtcState.NOT_PERMITTED}:
            raise self.not_ready(self.status.reason or "it is being reached")
        return self.server

    def waits(self, dtc_id: str, kinds: frozenset[UpdateKind] | None) -> Waits:
        """A future of the next news of an order, of some kinds or of any; to be used in a `with`."""
        return Waits(self._waiting, dtc_id, kinds)

    def _moved(self) -> None:
        self.accounts_moved.set()
        self.accounts_moved = asyncio.Event()
        self._look_for_differences()
        self.on_change()

    async def written(self) -> None:
        """Returns once everything that is in memory now is on disk."""
        if self.book.revision > self.log.newest:
            await self.write(_nothing)

    async def settle(
        self, dtc_id: str, fills: Sequence[FillReport], state: Tracked, text: str, request: tuple[str, str]
    ) -> None:
        """Ends an order by the word of a person; written down with the id and content of the request, and told then."""
        if self._connection is None:
            raise self.not_ready("it is being set up")
        changed, told = self._connection.settle(dtc_id, fills, state, text)
        await self._take_word(changed, told, request)
        self._connection.look_again("a person has settled an order")

    async def confirm(self, dtc_id: str, request: tuple[str, str]) -> None:
        """Ends the dispute about an order by the word of a person; written down with the request, and told then."""
        if self._connection is None:
            raise self.not_ready("it is being set up")
        told, changed = self._connection.ledger.confirm(dtc_id), self._connection.ledger.take_changed()
        await self._take_word(changed, told, request)

    async def _take_word(
        self, changed: Sequence[TrackedOrder], told: Sequence[VenueUpdate], request: tuple[str, str]
    ) -> None:
        """Writes down what the word of a person has changed, with their request, and tells it then."""
        step = self.book.take(changed, self.clock.wall_ns())
        await self.commit(step, store.tracked_rows(changed), request)
        for update in told:
            self.on_update(update)

    async def commit(
        self,
        step: Step,
        tracked: Mapping[str, TrackedOrder] | None = None,
        request: tuple[str, str] | None = None,
    ) -> None:
        """Writes a step and tells it; with it goes a request that must not be done twice."""
        records = {asked.client_order_id: self.book.orders[asked.client_order_id] for asked in step.asked}

        def tell(_: None) -> None:
            for change in step.changes:
                self.log.append(change)

        def save(connection: Connection) -> None:
            if request is not None:
                store.remember_request(connection, *request)
            store.save(connection, step, records, tracked or {})

        await self.write(save, tell)

    async def write(self, fn: Callable[[Connection], Any], then: Callable[[Any], None] | None = None) -> None:
        """Writes, and calls `then` in the order of the commits. Raises StorageError, which ends the process too."""
        try:
            await self.database.write(fn, then=then)
        except StorageError as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise


def _nothing(_: Connection) -> None:
    return None
