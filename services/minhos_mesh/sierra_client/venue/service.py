"""Decides how a DTC server is traded on: an order is on disk before it is sent, and told to nobody before its news are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Final

from minhos_mesh.dtc.order_state import UpdateKind
from minhos_mesh.dtc.reports import PositionReport
from minhos_mesh.matching import Side
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.sierra_client.dtc_ports import NotReady
from minhos_mesh.sierra_client.venue import store
from minhos_mesh.sierra_client.venue.core import VenueCore
from minhos_mesh.sierra_client.venue.domain import Asked, Change, OrderRecord, check_change, dtc_id_of, tracked_of
from minhos_mesh.sierra_client.venue.settling import SETTLED_AS, check_settlement, settled_fills
from minhos_mesh.sierra_client.venue.views import VENUE
from minhos_mesh.venue.domain.errors import (
    InvalidField,
    OrderDone,
    OrderUnknown,
    OutcomeUnknown,
    ProvenanceRefused,
    RequestConflict,
    SymbolUnknown,
    VenueClosing,
    VenueNotReady,
)
from minhos_mesh.venue.domain.orders import (
    LIVE,
    PROVENANCE_NAMES,
    REPLAY,
    WOULD_GROW,
    Confirmation,
    FillRecord,
    OrderReason,
    OrderState,
    Settlement,
    Submission,
    check_terms,
)
from minhos_mesh.venue.domain.views import AccountView, PositionView, VenueStatus

ANSWER_S: Final = 0.5
"""How long an order waits for the first word of the server before it is told as PENDING."""
LATEST_S: Final = 2.0
"""An order that has waited longer for its turn is not sent any more."""
CHANGE_S: Final = 1.5
"""How long a cancel or a change waits for its outcome; less than the deadline of those who ask."""
POSITIONS_S: Final = 0.5
"""How long a question about positions waits for the server's word on the last fill."""

_LOG: Final = get_logger("sierra_client.venue")
_ENDED: Final = frozenset({UpdateKind.CANCELED, UpdateKind.REJECTED, UpdateKind.BECAME_UNKNOWN})


class OnlyReduces(Exception):
    """Expected: an order may only reduce a position and would not; it is told as REJECTED."""


class DtcVenue:
    """The venue as its servicer sees it."""

    def __init__(self, core: VenueCore) -> None:
        self.core = core
        self.book = core.book
        self._under_way: dict[str, asyncio.Task[OrderRecord | Exception]] = {}
        self._turn = asyncio.Lock()
        self._closing = False

    def close(self) -> None:
        """Takes no more orders and ends all watches."""
        self._closing = True
        self.core.log.close()

    # What clients ask.

    async def submit(self, submission: Submission) -> OrderRecord:
        """Takes an order; it is on disk when this returns, and mostly answered by the server."""
        if self._closing:
            raise VenueClosing("sierra_client")
        client_order_id = submission.client_order_id
        task = self._under_way.get(client_order_id)
        if task is None:
            known = await self._known(client_order_id)
            task = self._under_way.get(client_order_id)
            if known is not None and task is None:
                submission.check_same(known.asked.terms, known.asked.reduce_only)
                await self.core.written()
                return self.book.orders.get(client_order_id, known)
        if task is None:
            task = self.core.start(self._submit(submission), f"order {client_order_id}")
            self._under_way[client_order_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(client_order_id, None))
        record = await _result(task)
        submission.check_same(record.asked.terms, record.asked.reduce_only)
        return record

    async def _submit(self, submission: Submission) -> OrderRecord | Exception:
        """The order as it stands, or why it was not taken: a task of ours must not fail for what a client did."""
        try:
            return await self._taken(submission)
        except (VenueNotReady, SymbolUnknown, InvalidField, ProvenanceRefused, RequestConflict, ValueError) as refused:
            return refused

    async def _taken(self, submission: Submission) -> OrderRecord:
        symbol, connection = submission.terms.symbol, self.core.ready()
        self._check(submission)
        asked = Asked(
            client_order_id=submission.client_order_id,
            number=self.book.next_number(),
            dtc_id=dtc_id_of(submission.client_order_id),
            terms=submission.terms,
            provenance=submission.provenance,
            reduce_only=submission.reduce_only,
            create_ns=self.core.clock.wall_ns(),
        )
        other = self.book.of_dtc_id(asked.dtc_id)
        if other is not None:
            raise RequestConflict(asked.client_order_id)
        order = tracked_of(asked, self.core.settings.names[symbol], self.core.account.name, asked.create_ns)
        with self.core.waits(asked.dtc_id, None) as answered:
            try:
                await connection.submit(order, lambda: self._last_look(asked))
            except OnlyReduces:
                await self.core.commit(self.book.refuse(asked, WOULD_GROW))
                return self.book.orders[asked.client_order_id]
            except NotReady as away:
                raise self.core.not_ready(str(away)) from None
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await answered
        await self.core.written()
        return self.book.orders[asked.client_order_id]

    def _last_look(self, asked: Asked) -> None:
        """Called right before an order is written down, when it is its turn. Raises OnlyReduces, VenueNotReady."""
        terms = asked.terms
        waited_s = (self.core.clock.wall_ns() - asked.create_ns) / 1e9
        if waited_s > LATEST_S:
            because = f"the order would have been sent {waited_s:.1f} s late, behind others that were not answered"
            raise self.core.not_ready(because)
        if asked.reduce_only and not self._reduces(terms.symbol, terms.side, terms.quantity, asked.number):
            raise OnlyReduces
        self.book.note_asked(asked)

    def _reduces(self, symbol: str, side: Side, quantity: int, number: int) -> bool:
        held = self.core.account.possible(self.core.settings.names[symbol])
        return self.book.reduces(symbol, side, quantity, held, number)

    def _check(self, submission: Submission) -> None:
        terms, server = submission.terms, self.core.server
        spec = self.book.spec(terms.symbol)
        unknown = self.core.settings.names.get(terms.symbol) in self.core.status.unknown_symbols
        if spec is None or unknown:
            known = [
                name
                for name in self.book.symbols
                if self.core.settings.names[name] not in self.core.status.unknown_symbols
            ]
            raise SymbolUnknown(terms.symbol, tuple(known))
        check_terms(terms, spec, self.core.reference_of(terms.symbol))
        seen = PROVENANCE_NAMES.get(submission.provenance, "unknown")
        if submission.provenance == REPLAY:
            raise ProvenanceRefused(seen, "a server that trades now has nothing to do with a replay")
        if server is not None and server.live and submission.provenance != LIVE:
            raise ProvenanceRefused(seen, f"there may be money behind account {server.account}, which takes LIVE only")
        if server is not None and server.simulated and submission.provenance == LIVE:
            raise ProvenanceRefused(seen, "the server is a simulator")

    async def cancel(self, client_order_id: str, reason: OrderReason = OrderReason.REQUESTED) -> OrderRecord:
        """Cancels an order; returns it as it stands when that takes its time. Raises OrderUnknown, OrderDone, VenueNotReady."""
        record = await self.order(client_order_id)
        if record.state.done:
            return record
        connection = self.core.ready()
        await self.core.commit(self.book.wants_cancel(client_order_id, reason))
        dtc_id = record.asked.dtc_id
        with self.core.waits(dtc_id, _ENDED | {UpdateKind.CANCEL_REFUSED}) as outcome:
            try:
                await connection.cancel(dtc_id)
            except NotReady as away:
                raise self.core.not_ready(str(away)) from None
            with suppress(TimeoutError):
                async with asyncio.timeout(CHANGE_S):
                    update = await outcome
                    if update.kind is UpdateKind.CANCEL_REFUSED and not update.order.state.done:
                        raise OrderDone(client_order_id, record.state.name, "cancel it", update.text)
        return await self.order(client_order_id)

    async def cancel_all(self, symbol: str | None) -> tuple[OrderRecord, ...]:
        """Cancels everything that works, of one symbol when given; returns what is cancelled by then."""
        ids = [record.client_order_id for record in self.book.open_orders(symbol)]
        if ids:
            self.core.ready()
        ended = await asyncio.gather(*(self.cancel(each) for each in ids), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException) and not isinstance(each, OrderDone):
                raise each
        return tuple(each for each in ended if isinstance(each, OrderRecord) and each.state is OrderState.CANCELED)

    async def replace(
        self,
        client_order_id: str,
        request_id: str,
        *,
        quantity: int | None,
        limit_price_e9: int | None,
        stop_price_e9: int | None,
    ) -> OrderRecord:
        """Changes an order once per request id.

        Raises OrderUnknown, OrderDone, InvalidField, MoneyError, RequestConflict, VenueNotReady, OutcomeUnknown.
        """
        record = await self.order(client_order_id)
        content = json.dumps([client_order_id, quantity, limit_price_e9, stop_price_e9])
        async with self._turn:
            if await self.core.database.read(lambda c: store.was_requested(c, request_id, content)):
                return await self.order(client_order_id)
            record = await self.order(client_order_id)
            self._check_change(record, quantity, limit_price_e9, stop_price_e9)
            connection = self.core.ready()
            await self.core.write(lambda c: store.remember_request(c, request_id, content))
            kinds = _ENDED | {UpdateKind.REPLACED, UpdateKind.REPLACE_REFUSED}
            with self.core.waits(record.asked.dtc_id, kinds) as outcome:
                try:
                    await connection.replace(
                        record.asked.dtc_id,
                        quantity=quantity,
                        limit_price_e9=limit_price_e9,
                        stop_price_e9=stop_price_e9,
                    )
                    async with asyncio.timeout(CHANGE_S):
                        update = await outcome
                except NotReady as away:
                    raise self.core.not_ready(str(away)) from None
                except TimeoutError:
                    raise OutcomeUnknown(client_order_id, "replace it") from None
        if update.kind is UpdateKind.BECAME_UNKNOWN:
            raise OutcomeUnknown(client_order_id, "replace it")
        if update.kind is not UpdateKind.REPLACED:
            raise OrderDone(client_order_id, update.order.state.name, "replace it", update.text)
        return await self.order(client_order_id)

    def _check_change(
        self, record: OrderRecord, quantity: int | None, limit_price_e9: int | None, stop_price_e9: int | None
    ) -> None:
        old, client_order_id = record.terms, record.client_order_id
        if record.state.done or record.state is OrderState.UNKNOWN:
            raise OrderDone(client_order_id, record.state.name, "replace it", record.message)
        spec = self.book.spec(old.symbol)
        if spec is None:
            raise SymbolUnknown(old.symbol, self.book.symbols)
        terms = replace(
            old,
            quantity=old.quantity if quantity is None else quantity,
            limit_price_e9=old.limit_price_e9 if limit_price_e9 is None else limit_price_e9,
            stop_price_e9=old.stop_price_e9 if stop_price_e9 is None else stop_price_e9,
        )
        if terms.quantity <= record.filled_quantity:
            wanted = f"lower it to {terms.quantity}, {record.filled_quantity} are filled"
            raise OrderDone(client_order_id, record.state.name, wanted)
        check_terms(terms, spec, self.core.reference_of(old.symbol), path="")
        check_change(old, limit_price_e9, stop_price_e9)
        left = terms.quantity - record.filled_quantity
        grows = terms.quantity > old.quantity
        if record.asked.reduce_only and grows and not self._reduces(old.symbol, old.side, left, record.asked.number):
            raise OrderDone(client_order_id, record.state.name, f"raise it to {terms.quantity}", WOULD_GROW)

    async def settle_unknown(self, settlement: Settlement) -> OrderRecord:
        """Ends an order that is UNKNOWN by the word of a person, once per request id; needs no connection.

        Raises OrderUnknown, OrderDone for an order that is not UNKNOWN or cannot have ended so, InvalidField, MoneyError,
        RequestConflict.
        """
        client_order_id, content = settlement.client_order_id, json.dumps(asdict(settlement), default=str)
        async with self._turn:
            if await self.core.database.read(lambda c: store.was_requested(c, settlement.request_id, content)):
                return await self.order(client_order_id)
            record = await self.order(client_order_id)
            tracked = self.core.tracked(record.asked.dtc_id)
            if record.state is not OrderState.UNKNOWN or tracked is None:
                because = "a person settles only what nobody else can tell"
                raise OrderDone(client_order_id, record.state.name, "settle it", because)
            now_ns = self.core.clock.wall_ns()
            spec, reference_e9 = self.book.spec(record.terms.symbol), self.core.reference_of(record.terms.symbol)
            check_settlement(settlement, record, tracked, spec, reference_e9, now_ns)
            fills = settled_fills(settlement, tracked, now_ns)
            state = SETTLED_AS[settlement.outcome]
            text = f"settled by {settlement.actor}: {settlement.reason}"
            await self.core.settle(tracked.client_order_id, fills, state, text, (settlement.request_id, content))
        _LOG.warning(
            "venue.order_settled",
            order=client_order_id,
            outcome=settlement.outcome.value,
            quantity=settlement.quantity,
            actor=settlement.actor,
            reason=settlement.reason,
            request_id=settlement.request_id,
        )
        return await self.order(client_order_id)

    async def confirm_settlement(self, confirmation: Confirmation) -> OrderRecord:
        """Ends the dispute about an order by the word of a person, once per request id; needs no connection.

        Raises OrderUnknown, OrderDone for an order of which nothing is in dispute, RequestConflict.
        """
        client_order_id, content = confirmation.client_order_id, json.dumps(asdict(confirmation))
        async with self._turn:
            if await self.core.database.read(lambda c: store.was_requested(c, confirmation.request_id, content)):
                return await self.order(client_order_id)
            record = await self.order(client_order_id)
            if not record.dispute:
                because = "nothing of it is in dispute"
                raise OrderDone(client_order_id, record.state.name, "confirm its settlement", because)
            await self.core.confirm(record.asked.dtc_id, (confirmation.request_id, content))
        _LOG.warning("venue.settlement_confirmed", dispute=record.dispute, **asdict(confirmation))
        return await self.order(client_order_id)

    async def order(self, client_order_id: str) -> OrderRecord:
        """An order as it is on disk. Raises OrderUnknown, and OutcomeUnknown while it waits to be sent."""
        if await self._known(client_order_id) is None:
            await self._not_under_way(client_order_id)
        await self.core.written()
        record = await self._known(client_order_id)
        if record is None:
            raise OrderUnknown(client_order_id)
        return record

    async def _not_under_way(self, client_order_id: str) -> None:
        """Returns when an order that is waiting for its turn was sent; raises when it never was, or still waits."""
        task = self._under_way.get(client_order_id)
        if task is not None:
            await asyncio.wait({task}, timeout=CHANGE_S)
            if not task.done():
                raise OutcomeUnknown(client_order_id, "send it")
        if client_order_id not in self.book.orders:
            raise OrderUnknown(client_order_id)

    async def order_by_venue_id(self, venue_order_id: str) -> OrderRecord:
        """An order by the venue's own id. Raises OrderUnknown."""
        prefix, _, dtc_id = venue_order_id.partition(":")
        asked = self.book.of_dtc_id(dtc_id) if prefix == "dtc" else None
        client_order_id = None if asked is None else asked.client_order_id
        if client_order_id is None and prefix == "dtc" and self.core.older:
            client_order_id = await self.core.database.read(lambda c: store.client_id_of(c, dtc_id))
        if client_order_id is None:
            raise OrderUnknown(venue_order_id)
        return await self.order(client_order_id)

    async def open_orders(self, symbol: str | None = None) -> tuple[tuple[OrderRecord, ...], int]:
        """The orders that work, or of which that is not known, and the revision of this view."""
        view = self.book.open_orders(symbol), self.book.revision
        await self.core.written()
        return view

    async def fills(
        self, client_order_id: str | None, after_fill_id: str | None, *, limit: int, after: int | None
    ) -> tuple[list[FillRecord], int | None]:
        """A page of fills, behind fill number `after` when given, and the number behind which the next begins.

        Raises InvalidField when `after_fill_id` names no fill.
        """

        def read(connection: Connection) -> list[tuple[int, FillRecord]]:
            begin = after or 0
            if after_fill_id is not None and after is None:
                number = store.fill_number(connection, after_fill_id)
                if number is None:
                    raise InvalidField("after_fill_id", repr(after_fill_id), "the id of a fill of this venue")
                begin = number
            return store.list_fills(connection, client_order_id, begin, limit + 1)

        await self.core.written()
        found = await self.core.database.read(read)
        return [fill for _, fill in found[:limit]], found[limit - 1][0] if len(found) > limit else None

    async def positions(self) -> list[PositionView]:
        """What is held, by the server's word, in alphabetical order of symbol. Raises VenueNotReady."""
        self.core.reached()
        with suppress(TimeoutError):
            async with asyncio.timeout(POSITIONS_S):
                while not self.core.account.current:
                    moved = self.core.accounts_moved
                    await moved.wait()
        await self.core.written()
        views = [self._position(name, report) for name, report in self.core.account.told.items()]
        return sorted(views, key=lambda view: view.symbol)

    def _position(self, name: str, report: PositionReport) -> PositionView:
        symbol = self.core.canonical.get(name, name)
        held, spec = self.book.positions.get(symbol), self.book.spec(symbol)
        average_e9 = report.average_price_e9
        cost_e9 = (average_e9 or 0) * report.quantity
        if held is not None and held.position.quantity == report.quantity:  # then our own sum is exact
            cost_e9, average_e9 = held.position.cost_e9, held.position.average_price_e9
        return PositionView(
            symbol=symbol,
            quantity=report.quantity,
            cost_e9=cost_e9,
            average_price_e9=average_e9,
            held=held,
            multiplier=spec.multiplier if spec else 1,
        )

    async def account(self) -> AccountView:
        """The account by the server's word. Raises VenueNotReady."""
        server = self.core.reached()
        balance = self.core.account.balance
        if balance is None or balance.cash_e9 is None:
            raise self.core.not_ready("the server does not tell the balance of the account")
        await self.core.written()
        return AccountView(
            account_id=self.core.account.name,
            currency=balance.currency,
            cash_e9=balance.cash_e9,
            equity_e9=balance.cash_e9 + (balance.open_profit_e9 or 0),
            commission_e9=self.book.commission_paid_e9,
            live=server.live,
        )

    def status(self) -> VenueStatus:
        """Whether orders are taken, why not, whether there may be money behind it, data by symbol, open orders.

        Raises VenueNotReady before the first logon: until then nobody knows whose money it is.
        """
        server = self.core.server
        if server is None:
            raise self.core.not_ready(self.core.status.reason or "it has not been reached yet")
        ready = self.core.can_send() and not self._closing
        reason = "" if ready else self.core.status.reason or self.core.status.state.value
        seen = dict.fromkeys(self.book.symbols, self.book.provenance)
        return VenueStatus(
            venue=VENUE,
            accepting=ready,
            reason=reason,
            live=server.live,
            provenance=seen,
            open_orders=len(self.book.open_orders()),
        )

    async def watch(
        self, after: int | None, heartbeat_s: float
    ) -> AsyncIterator[tuple[int, tuple[OrderRecord, ...] | Change | None]]:
        """(revision, snapshot) first unless a revision is resumed, then (revision, change), or None as a heartbeat."""
        if after is not None:
            self.core.log.check(after)
        else:
            orders, after = await self.open_orders()
            yield after, orders
        async for revision, change in self.core.log.follow(after, heartbeat_s):
            yield revision, change

    async def _known(self, client_order_id: str) -> OrderRecord | None:
        record = self.book.orders.get(client_order_id)
        if record is None and self.core.older:
            found = await self.core.database.read(lambda c: store.find_order(c, client_order_id))
            return self.book.orders.get(client_order_id, found) if found is None else found
        return record


async def _result(task: asyncio.Task[OrderRecord | Exception]) -> OrderRecord:
    outcome = await asyncio.shield(task)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
