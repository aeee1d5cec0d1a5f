"""Decides how the DTC server is reached and kept: reconnects for ever, settles orders on every connect, says what it does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from minhos_mesh.dtc import client_session, requests
from minhos_mesh.dtc.batches import Batch
from minhos_mesh.dtc.client_session import Refusal
from minhos_mesh.dtc.enums import OrderStatus
from minhos_mesh.dtc.errors import FramingLost, ValueUnreadable
from minhos_mesh.dtc.ledger import OrderLedger
from minhos_mesh.dtc.message import Message
from minhos_mesh.dtc.order_state import OrderState, TrackedOrder, UpdateKind, VenueUpdate
from minhos_mesh.dtc.prices import PriceScale
from minhos_mesh.dtc.reports import (
    BalanceReport,
    Definition,
    FillReport,
    Market,
    historical_fill,
    order_report,
)
from minhos_mesh.dtc.session import (
    Action,
    Close,
    CloseReason,
    LoggedOn,
    Phase,
    Send,
    Step,
    Switch,
    heard,
    log_off,
    tick,
)
from minhos_mesh.dtc.stream import MessageStream, encode
from minhos_mesh.dtc.tables.trading import HISTORICAL_ORDER_FILL_RESPONSE, ORDER_UPDATE
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.sierra_client.domain import backoff_s
from minhos_mesh.sierra_client.dtc_link import Link
from minhos_mesh.sierra_client.dtc_log import ConnectionLog
from minhos_mesh.sierra_client.dtc_market import MarketData
from minhos_mesh.sierra_client.dtc_ports import Journal, NotReady, Watcher
from minhos_mesh.sierra_client.dtc_settings import ConnectionSettings
from minhos_mesh.sierra_client.dtc_settling import DAY_NS, DEADLINE_S, Settling, SettlingFailed
from minhos_mesh.sierra_client.dtc_status import DtcState, DtcStatus

READ_SIZE: Final = 1 << 16
CONNECT_S: Final = 10.0
"""How long a connection may take to open."""
DOUBT_S: Final = 0.25
"""How long reports that came in the wrong order may take to complete each other before the server is asked again."""
ANSWER_S: Final = 2.0
"""How long an order waits for the answer to the one before it."""
CHECK_S: Final = 60.0
"""How often orders that work are compared with what the server lists, though nothing seems wrong."""
FINAL_WAIT_S: Final = 60.0
"""Pause before a server is called again that asked not to be, or that a person must set up differently first."""


class DtcConnection:
    """Runs for ever in run(); orders go through submit, cancel and replace."""

    def __init__(
        self,
        settings: ConnectionSettings,
        ledger: OrderLedger,
        *,
        clock: Clock,
        journal: Journal,
        watcher: Watcher,
        randomness: random.Random | None = None,
        reference_of: Callable[[str], int | None] | None = None,
    ) -> None:
        """`reference_of` gives a recent price of a symbol, by which unscaled fill prices are recognised."""
        self.ledger = ledger
        self.settings = settings
        self._clock = clock
        self._journal = journal
        self._watcher = watcher
        self._random = randomness or random.Random()
        self._reference_of = reference_of or (lambda _: None)
        self._definitions: dict[str, Definition] = {}
        self._cancel_wanted: set[str] = set()
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self._unanswered = ""
        self._news = asyncio.Event()
        self._next_id = 1
        self.balance: BalanceReport | None = None
        self.status = DtcStatus(address=f"{settings.host}:{settings.port}")
        self._log = ConnectionLog(self.status.address)

    # What whoever places orders calls.

    def ready(self) -> bool:
        """Whether an order would be sent now."""
        return self.status.state is DtcState.READY

    async def submit(self, order: TrackedOrder, last_look: Callable[[], None] = lambda: None) -> None:
        """Writes an order down and sends it. Raises NotReady, ValueError for an id used before, and what the journal raises.

        `last_look` is called when it is the order's turn; what it raises is raised here, and nothing was written.

        When this returns the order is on its way; what became of it comes as updates. One order waits for the answer
        to the one before it, so that at most one is without an answer when the connection breaks.
        """
        async with self._turn:
            await self._answered()
            link = self._ready_link()
            encode(requests.submit(order), link.session.encoding)
            last_look()
            self.ledger.placed(order)
            await self._journal.save(self.ledger.take_changed())
            if self._link is not link:
                await self._tell(self.ledger.disconnected(self._clock.wall_ns()))
                return
            link.send(requests.submit(order))
            self._unanswered = order.client_order_id

    async def _answered(self) -> None:
        """Returns once the order before this one was answered, or is known to be unknown. Raises NotReady."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while (before := self.ledger.get(self._unanswered)) and before.state is OrderState.SUBMITTED:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise NotReady(f"the server has not answered order {self._unanswered} in {ANSWER_S:g} s") from None

    async def cancel(self, client_order_id: str) -> None:
        """Asks for a cancel; one that comes before the server has answered the order is sent once it has."""
        link, order = self._ready_link(), self._known(client_order_id)
        if order.state.done:
            return
        if order.server_order_id:
            link.send(requests.cancel(order))
        else:
            self._cancel_wanted.add(client_order_id)

    async def replace(
        self,
        client_order_id: str,
        *,
        quantity: int | None = None,
        limit_price_e9: int | None = None,
        stop_price_e9: int | None = None,
    ) -> None:
        """Asks for a change. Raises NotReady, also while the server has not answered the order."""
        link, order = self._ready_link(), self._known(client_order_id)
        if order.state.done:
            return
        if not order.server_order_id:
            raise NotReady(f"order {client_order_id} has not been answered by the server yet")
        link.send(
            requests.replace(order, quantity=quantity, limit_price_e9=limit_price_e9, stop_price_e9=stop_price_e9)
        )

    def settle(
        self, client_order_id: str, fills: Sequence[FillReport], state: OrderState, text: str
    ) -> tuple[list[TrackedOrder], tuple[VenueUpdate, ...]]:
        """Ends an order by the word of a person: what is to be written down, and told once it is. Needs no connection."""
        told = self.ledger.settle(client_order_id, fills, state, text)
        for fill in fills:
            self._watcher.on_booked(fill)
        return self.ledger.take_changed(), told

    def look_again(self, why: str) -> None:
        """Has orders and positions compared with what the server lists, soon; nothing happens without a connection."""
        link = self._link
        if link is None or not self.ready():
            return
        self._doubt(link, why)
        if link.waits is not None:
            link.waits.reschedule(asyncio.get_running_loop().time() + DOUBT_S)

    async def run(self) -> None:
        """Connects, serves, and connects again for ever; cancel it to stop, which logs off.

        What an earlier life of this process sent and was not answered is unknown until the server has listed its orders.
        """
        failures = 0
        await self._tell(self.ledger.disconnected(self._clock.wall_ns()))
        while True:
            close, was_ready = await self._one_connection()
            self._log.ended(close, was_ready=was_ready)
            failures = 1 if was_ready else failures + 1
            await self._tell(self.ledger.disconnected(self._clock.wall_ns()))
            final = not close.reconnect or close.reason is CloseReason.ENCODING_UNSUPPORTED
            self.status = replace(self.status, refused=close.text if close.not_let_in else "")
            wait_s = FINAL_WAIT_S if final else self._backoff(failures)
            self._say(DtcState.WAITING, f"{close.text}; the next attempt comes in {wait_s:.1f} s")
            await self._clock.sleep_until(self._clock.monotonic() + wait_s)

    def _backoff(self, failures: int) -> float:
        first_s, longest_s = self.settings.first_wait_s, self.settings.longest_wait_s
        return backoff_s(failures, self._random, first_s=first_s, longest_s=longest_s)

    # One connection.

    async def _one_connection(self) -> tuple[Close, bool]:
        settings = self.settings
        self._say(DtcState.CONNECTING, f"connecting to {self.status.address}")
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(settings.host, settings.port, limit=READ_SIZE)
        except (OSError, TimeoutError) as error:
            text = f"{self.status.address} cannot be reached: {str(error) or 'no answer'}"
            return Close(CloseReason.OTHER_SIDE_SILENT, text), False
        step = client_session.begin(settings.session, self._clock.monotonic())
        market = MarketData(settings.market_data, lambda symbol: self.market_of(symbol).scale, depth=settings.depth)
        link = Link(step.session, MessageStream(step.session.encoding), writer, market)
        self._link = link
        self.status = replace(
            self.status, connects=self.status.connects + 1, refusals=(), not_permitted={}, depth_not_permitted={}
        )
        self._say(DtcState.HANDSHAKE, "connected, logging on")
        try:
            self._do(link, step)
            await self._serve(link, reader)
        except SettlingFailed as failed:
            link.close = link.close or Close(failed.reason, str(failed))
        except (ConnectionError, FramingLost) as error:
            link.close = link.close or Close(CloseReason.PROTOCOL_BROKEN, f"the connection broke: {error}")
        except asyncio.CancelledError:
            with suppress(ConnectionError):
                self._do(link, log_off(link.session, "the client stops"))
            raise
        finally:
            self._link = None
            writer.close()
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()
        return link.close or Close(CloseReason.OTHER_SIDE_SILENT, "the server closed the connection"), link.was_ready

    async def _serve(self, link: Link, reader: asyncio.StreamReader) -> None:
        while link.close is None:
            deadline = link.deadline(self._clock.monotonic())
            try:
                async with asyncio.timeout(deadline) as link.waits:
                    data = await reader.read(READ_SIZE)
            except TimeoutError:
                self._on_time(link)
                continue
            finally:
                link.waits = None
            if not data:
                return
            link.session = heard(link.session, self._clock.monotonic())
            link.stream.feed(data)
            await self._take_all(link)
            self._on_time(link)

    async def _take_all(self, link: Link) -> None:
        """Takes every message that is there, writes down what changed, and only then tells it."""
        told: list[VenueUpdate] = []
        try:
            while link.close is None and (message := link.stream.read()) is not None:
                for update in self._take(link, message):
                    told.append(update)
                    if update.kind is UpdateKind.FILLED and update.fill is not None:
                        self._watcher.on_booked(update.fill)
                self._tell_settled(link)
        finally:
            await self._tell(told)
        if link.stream.counts.malformed > link.malformed:
            link.malformed = link.stream.counts.malformed
            self._doubt(link, f"a message could not be read: {link.stream.counts.last_problem}")

    def _take(self, link: Link, message: Message) -> tuple[VenueUpdate, ...]:
        now = self._clock.monotonic()
        self._do(link, client_session.received(link.session, self.settings.session, message, now))
        refused = client_session.refusal(message)
        if refused is not None:
            self._note_refusal(link, refused)
        if link.settling is not None:
            asked = link.settling.take(message)
            if asked is not None:
                link.send_all(asked)
                told = self._order_update(link, message)
                return (*told, *(self._settled(link, link.settling) if link.settling.complete else ()))
        fills = self._fills(link, message) if link.fills else None
        if fills is not None:
            return fills
        if message.layout is ORDER_UPDATE:
            return self._order_update(link, message)
        update, asked_now = link.market.take(message)
        link.send_all(asked_now)
        if update is None:
            self._watcher.on_message(message)
        else:
            self._watcher.on_market(update)
        return ()

    def _order_update(self, link: Link, message: Message) -> tuple[VenueUpdate, ...]:
        if message.layout is not ORDER_UPDATE or message.flag("NoOrders"):
            return ()
        try:
            report = order_report(message, self.market_of)
        except ValueUnreadable as problem:
            ours = self.ledger.knows(message.text("ServerOrderID"), message.text("ClientOrderID"))
            if ours or message.text("Symbol") in self.settings.ticks_e9:
                self._doubt(link, f"an order update could not be read: {problem}")
            return ()
        told = self.ledger.report(report)
        order = self.ledger.get(report.client_order_id)
        if order is not None and order.server_order_id and order.client_order_id in self._cancel_wanted:
            self._cancel_wanted.discard(order.client_order_id)
            if report.status not in {OrderStatus.FILLED, OrderStatus.REJECTED} and not order.state.done:
                link.send(requests.cancel(order))
        if any(update.kind is UpdateKind.BECAME_UNKNOWN for update in told):
            self._doubt(link, "the server does not know an order that it had taken")
        for update in told:
            if update.kind is UpdateKind.TURNED_UP:
                link.send(requests.cancel(update.order))
            if update.kind is UpdateKind.FILLS_MISSING:
                link.missing[update.order.client_order_id] = self._clock.monotonic() + DOUBT_S
        return told

    def _ask_for_fills(self, link: Link, now: float) -> None:
        """Asks for the fills of orders of which the server counts more than it has told, once that has lasted."""
        for client_id in [client_id for client_id, due in link.missing.items() if due <= now]:
            del link.missing[client_id]
            order = self.ledger.get(client_id)
            if order is None or not order.missing_quantity:
                continue
            for server_id in order.server_order_ids:
                link.fills.append(Batch(HISTORICAL_ORDER_FILL_RESPONSE, self._next_id))
                days = (self._clock.wall_ns() - order.submitted_ns) // DAY_NS + 2
                link.send(requests.fills(self._next_id, self.status.account, days, server_id))
                self._next_id += 1

    def _fills(self, link: Link, message: Message) -> tuple[VenueUpdate, ...] | None:
        """Takes an answer about single orders; None for a message that is none."""
        batch = next((batch for batch in link.fills if batch.take(message)), None)
        if batch is None:
            return None
        if not batch.complete:
            return ()
        link.fills.remove(batch)
        if batch.refused is not None:
            self._doubt(link, f"the server does not list the fills of an order: {batch.refused}")
        try:
            return self.ledger.listed_fills([historical_fill(each, self.market_of) for each in batch.messages])
        except ValueUnreadable as problem:
            self._doubt(link, f"a fill could not be read: {problem}")
            return ()

    # Settling: what the server lists is compared with what is known.

    def _begin_settling(self, link: Link, concerned: frozenset[str] | None) -> None:
        now_ns = self._clock.wall_ns()
        oldest_ns = min((order.submitted_ns for order in self.ledger.alive()), default=now_ns)
        account = self.settings.session.trade_account
        link.settling = Settling(
            first_id=self._next_id,
            account=account,
            symbols=tuple(self.settings.ticks_e9),
            oldest_ns=oldest_ns,
            now_ns=now_ns,
            concerned=concerned,
            account_is_ours=self.settings.account_is_ours,
            on_the_way_ns=self.settings.on_the_way_ns,
        )
        link.settle_by = self._clock.monotonic() + DEADLINE_S
        link.send_all(link.settling.begin())

    def _tell_settled(self, link: Link) -> None:
        """Tells what is held once the fills of the same list were told."""
        positions, link.listed = link.listed, None
        permissions = self.status.permissions
        if positions is not None and permissions is not None:
            self._watcher.on_settled(permissions, self.status.account, positions, self.balance)

    def _settled(self, link: Link, settling: Settling) -> tuple[VenueUpdate, ...]:
        self._next_id = settling.next_id
        self._definitions |= settling.definitions
        granted = self.status.permissions
        refused = "" if granted is None else self._watcher.accepts(granted, settling.account)
        if refused:
            raise SettlingFailed(refused)
        listing = settling.listing(self.market_of)
        told = self.ledger.reconcile(listing, settling.concerned)
        self.balance = settling.balance() or self.balance
        link.listed = settling.positions(self.market_of)
        link.settling = None
        unknown = any(order.state in {OrderState.UNKNOWN, OrderState.SUBMITTED} for order in self.ledger.alive())
        link.check_at = self._clock.monotonic() + (self.settings.on_the_way_ns / 1e9 if unknown else CHECK_S)
        self.status = replace(
            self.status,
            account=settling.account,
            positions=dict(listing.positions),
            unknown_symbols=tuple(settling.unknown_symbols),
            refused="",
            settled=self.status.settled + 1,
        )
        permissions, was_ready, link.was_ready = self.status.permissions, link.was_ready, True
        if not was_ready:
            link.send_all(link.market.begin(permissions))
            self.status = replace(self.status, depth_not_permitted=dict(link.market.refused_depth))
        if permissions is not None and not permissions.trading:
            self._say(DtcState.NOT_PERMITTED, "; ".join(permissions.refused()))
        else:
            self._say(DtcState.READY, "; ".join(settling.unreadable))
        if not was_ready:
            self._log.ready(self.status)
        self._log.unreadable(settling.unreadable)
        return told

    def _doubt(self, link: Link, why: str) -> None:
        """Has the server asked again soon."""
        self._log.doubt(why)
        soon = self._clock.monotonic() + DOUBT_S
        link.check_at = soon if link.check_at is None else min(link.check_at, soon)

    def _on_time(self, link: Link) -> None:
        now = self._clock.monotonic()
        self._do(link, tick(link.session, now, self._clock.wall_ns() // 10**9))
        if link.settling is not None and now >= link.settle_by:
            raise SettlingFailed(f"the server has not answered in {DEADLINE_S:g} s: {link.settling.missing()}")
        if link.settling is None:
            self._ask_for_fills(link, now)
        if link.settling is None and link.check_at is not None and now >= link.check_at:
            link.check_at = None
            sent_before_ns = self._clock.wall_ns() - self.settings.on_the_way_ns
            concerned = frozenset(
                order.client_order_id
                for order in self.ledger.alive()
                if order.state is not OrderState.SUBMITTED or order.submitted_ns < sent_before_ns
            )
            self._begin_settling(link, concerned)

    # Small things.

    def _do(self, link: Link, step: Step) -> None:
        link.session = step.session
        for action in step.actions:
            self._act(link, action)

    def _act(self, link: Link, action: Action) -> None:
        if isinstance(action, Send):
            link.write(encode(action.message, action.encoding))
        elif isinstance(action, Switch):
            link.stream.encoding = action.encoding
        elif isinstance(action, Close):
            link.close = action
        elif isinstance(action, LoggedOn):
            granted = client_session.permissions(action.answer)
            self.status = replace(self.status, permissions=granted, encoding=link.session.encoding)
            self._say(DtcState.SETTLING, f"logged on to {granted.server_name}, orders are being compared")
            self._begin_settling(link, None)

    def market_of(self, symbol: str) -> Market:
        """What is known of a symbol of the server. Raises ValueUnreadable for one that is not traded here."""
        tick_e9, known = self.settings.ticks_e9.get(symbol), self._definitions.get(symbol)
        if tick_e9 is None:
            raise ValueUnreadable("Symbol", symbol, f"one of {sorted(self.settings.ticks_e9)}")
        scale = PriceScale(tick_e9) if known is None else PriceScale(tick_e9, known.multiplier)
        return Market(scale, self._reference_of(symbol))

    def _note_refusal(self, link: Link, refused: Refusal) -> None:
        symbol = link.market.refuse(refused)
        not_permitted = {**self.status.not_permitted, symbol: refused.text} if symbol else self.status.not_permitted
        refusals = (*self.status.refusals[-99:], refused)
        depth = dict(link.market.refused_depth)
        self.status = replace(self.status, refusals=refusals, not_permitted=not_permitted, depth_not_permitted=depth)
        self._watcher.on_status(self.status)

    def _ready_link(self) -> Link:
        if self._link is None or not self.ready() or self._link.session.phase is not Phase.READY:
            raise NotReady(f"the DTC server is not ready: {self.status.state.value}, {self.status.reason}")
        return self._link

    def _known(self, client_order_id: str) -> TrackedOrder:
        if (order := self.ledger.get(client_order_id)) is None:
            raise KeyError(client_order_id)
        return order

    async def _tell(self, updates: Iterable[VenueUpdate]) -> None:
        told, changed = list(updates), self.ledger.take_changed()
        if changed:
            await self._journal.save(changed)
        for update in told:
            self._watcher.on_update(update)
        self._news.set()

    def _say(self, state: DtcState, reason: str) -> None:
        self.status = replace(self.status, state=state, reason=reason, since_ns=self._clock.wall_ns())
        self._watcher.on_status(self.status)
