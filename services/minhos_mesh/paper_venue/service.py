"""Decides in which order the venue acts: one step of the exchange, then the disk, then whoever waits or watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from minhos_mesh.paper_venue import store
from minhos_mesh.paper_venue.domain.exchange import Exchange
from minhos_mesh.paper_venue.domain.orders import VENUE, Change, OrderRecord
from minhos_mesh.paper_venue.held_ticks import HeldTicks
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection, Database, StorageError
from minhos_mesh.runtime.ticks import TickBatchView
from minhos_mesh.runtime.watch import HELD, RevisionLog
from minhos_mesh.venue.domain.errors import InvalidField, OrderDone, OrderUnknown, RequestConflict, VenueClosing
from minhos_mesh.venue.domain.orders import PROVENANCE_NAMES, REPLAY, Confirmation, FillRecord, Settlement, Submission
from minhos_mesh.venue.domain.views import AccountView, HeldPosition, PositionView, ProgressRecord, VenueStatus

T = TypeVar("T")

_LOG = get_logger("paper_venue")


class PaperVenue:
    """The venue as its servicer, its feed and its event reader see it.

    A step changes memory at once, so that steps never overlap, and is told to nobody before it is on disk.
    """

    def __init__(self, exchange: Exchange, database: Database, clock: Clock) -> None:
        self._exchange = exchange
        self._database = database
        self._clock = clock
        self._log: RevisionLog[Change] = RevisionLog()
        self._held: dict[str, HeldTicks] = {}
        self._requests: dict[str, str] = {}
        self._closing = False
        self.report: Callable[[str, int], Awaitable[None]] = _unheard
        """Told symbol and sequence when ticks of a replay are done with."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception when the disk fails: what is in memory is then ahead of it and must not go on."""

    async def recover(self) -> None:
        """Take up what an earlier life left on disk."""
        loaded = await self._database.read(store.load)
        self._exchange.restore(loaded.orders, loaded.positions)
        self._exchange.revision = loaded.revision
        for symbol, values in loaded.markets.items():
            if symbol in self._exchange.markets:
                store.restore_market(self._exchange.markets[symbol], values)
        self._log = RevisionLog(first=loaded.revision - len(loaded.changes), held=max(HELD, store.CHANGES_KEPT))
        for change in loaded.changes:
            self._log.append(change)
        open_orders = len(self._exchange.open_orders())
        _LOG.info("venue.recovered", orders=len(loaded.orders), open_orders=open_orders, revision=loaded.revision)

    def close(self) -> None:
        """Take no more orders and end all watches."""
        self._closing = True
        self._log.close()

    # What clients ask.

    async def submit(self, submission: Submission) -> OrderRecord:
        """Take an order; it is on disk when this returns."""
        if self._closing:
            raise VenueClosing("paper_venue")
        known = await self._known(submission.client_order_id)
        if known is not None:
            known = self._exchange.same(known, submission)
            await self._settled()
            return known
        record, changes = self._exchange.submit(submission, self._clock.wall_ns())
        await self._commit(changes)
        return record

    async def cancel(self, client_order_id: str) -> OrderRecord:
        """Cancel an order; the cancel is on disk when this returns. Raises OrderUnknown."""
        if await self._known(client_order_id) is None:
            raise OrderUnknown(client_order_id)
        if client_order_id not in self._exchange.orders:
            return await self.order(client_order_id)
        record, changes = self._exchange.cancel(client_order_id, self._clock.wall_ns())
        await self._commit(changes)
        return record

    async def replace(
        self,
        client_order_id: str,
        request_id: str,
        *,
        quantity: int | None,
        limit_price_e9: int | None,
        stop_price_e9: int | None,
    ) -> OrderRecord:
        """Change an order once per request id."""
        content = json.dumps([client_order_id, quantity, limit_price_e9, stop_price_e9])
        known = await self._database.read(lambda c: store.find_request(c, request_id))
        if await self._known(client_order_id) is None:
            raise OrderUnknown(client_order_id)
        known = known or self._requests.get(request_id)
        if known not in (None, content):
            raise RequestConflict(request_id)
        if known == content or client_order_id not in self._exchange.orders:
            return self._changed_before(await self.order(client_order_id), known is not None)
        record, changes = self._exchange.replace(
            client_order_id,
            self._clock.wall_ns(),
            quantity=quantity,
            limit_price_e9=limit_price_e9,
            stop_price_e9=stop_price_e9,
        )
        self._requests[request_id] = content
        try:
            await self._commit(changes, request=(request_id, content))
        finally:
            self._requests.pop(request_id, None)
        return record

    def _changed_before(self, record: OrderRecord, before: bool) -> OrderRecord:
        if not before:
            raise OrderDone(record.client_order_id, record.state.name, "replace it")
        return record

    async def cancel_all(self, symbol: str | None) -> tuple[OrderRecord, ...]:
        """Cancel everything that works, of one symbol when given."""
        records: list[OrderRecord] = []
        changes: list[Change] = []
        for record in self._exchange.open_orders(symbol):
            cancelled, told = self._exchange.cancel(record.client_order_id, self._clock.wall_ns())
            records.append(cancelled)
            changes.extend(told)
        await self._commit(tuple(changes))
        return tuple(records)

    async def settle_unknown(self, settlement: Settlement) -> OrderRecord:
        """Never settles an order by the word of a person. Raises OrderUnknown, OrderDone."""
        record = await self.order(settlement.client_order_id)
        because = "no order of the paper venue is ever UNKNOWN, it fills them itself"
        raise OrderDone(settlement.client_order_id, record.state.name, "settle it", because)

    async def confirm_settlement(self, confirmation: Confirmation) -> OrderRecord:
        """Never has anything in dispute. Raises OrderUnknown, OrderDone."""
        record = await self.order(confirmation.client_order_id)
        because = "no person settles orders of the paper venue"
        raise OrderDone(confirmation.client_order_id, record.state.name, "confirm its settlement", because)

    async def order(self, client_order_id: str) -> OrderRecord:
        """Return an order as it is on disk. Raises OrderUnknown."""
        record = await self._known(client_order_id)
        if record is None:
            raise OrderUnknown(client_order_id)
        await self._settled()
        return record

    async def order_by_venue_id(self, venue_order_id: str) -> OrderRecord:
        """Return an order by the venue's own id. Raises OrderUnknown."""
        prefix, _, client_order_id = venue_order_id.partition("-")
        if prefix != "paper" or not client_order_id:
            raise OrderUnknown(venue_order_id)
        return await self.order(client_order_id)

    async def open_orders(self, symbol: str | None = None) -> tuple[tuple[OrderRecord, ...], int]:
        """Return the working orders and the revision of this view."""
        view = self._exchange.open_orders(symbol), self._exchange.revision
        await self._settled()
        return view

    async def fills(
        self, client_order_id: str | None, after_fill_id: str | None, *, limit: int, after: int | None
    ) -> tuple[list[FillRecord], int | None]:
        """Return a page of fills, behind fill number `after` when given, and the number behind which the next begins.

        Raises InvalidField when `after_fill_id` names no fill.
        """

        def read(connection: Connection) -> list[tuple[int, FillRecord]]:
            start = after or 0
            if after_fill_id is not None and after is None:
                number = store.fill_number(connection, after_fill_id)
                if number is None:
                    raise InvalidField("after_fill_id", repr(after_fill_id), "the id of a fill of this venue")
                start = number
            return store.list_fills(connection, client_order_id, start, limit + 1)

        found = await self._database.read(read)
        return [fill for _, fill in found[:limit]], found[limit - 1][0] if len(found) > limit else None

    async def positions(self) -> list[PositionView]:
        """Return what is held, in alphabetical order of symbol, as it is on disk."""
        held = sorted(self._exchange.positions.items())
        views = [self._position(symbol, each) for symbol, each in held if each.position.quantity]
        await self._settled()
        return views

    def _position(self, symbol: str, held: HeldPosition) -> PositionView:
        return PositionView(
            symbol=symbol,
            quantity=held.position.quantity,
            cost_e9=held.position.cost_e9,
            average_price_e9=held.position.average_price_e9,
            held=held,
            multiplier=self._exchange.multiplier(symbol),
            unrealized_e9=self._exchange.unrealized_e9(symbol),
        )

    async def account(self) -> AccountView:
        """Return the account as it is on disk."""
        account = self._exchange.account()
        await self._settled()
        return account

    def status(self) -> VenueStatus:
        """Return whether orders are taken, why not, the origin of the data per symbol, and the working orders."""
        markets = self._exchange.markets
        closed = [symbol for symbol, market in markets.items() if not market.book.session_open]
        reason = "the venue is going down" if self._closing else ""
        if not reason and closed and len(closed) == len(markets):
            reason = "the session is closed"
        seen = {symbol: market.provenance for symbol, market in markets.items() if market.provenance}
        return VenueStatus(
            venue=VENUE,
            accepting=not reason,
            reason=reason,
            live=False,
            provenance=seen,
            open_orders=len(self._exchange.open_orders()),
        )

    # What watchers are told.

    async def watch(
        self, after: int | None, heartbeat_s: float
    ) -> AsyncIterator[tuple[int, tuple[OrderRecord, ...] | Change | None]]:
        """Give (revision, snapshot) first unless a revision is resumed, then (revision, change), or None as a heartbeat."""
        if after is not None:
            self._log.check(after)
        else:
            orders, after = await self.open_orders()
            yield after, orders
        for progress in self._newest_progress():
            yield after, progress
        async for revision, change in self._log.follow(after, heartbeat_s):
            yield revision, change

    def _newest_progress(self) -> list[ProgressRecord]:
        markets = [m for m in self._exchange.markets.values() if m.provenance == REPLAY and m.sequence]
        return [
            ProgressRecord(symbol=m.symbol, epoch=m.epoch, through_sequence=m.sequence, revision=self._log.newest)
            for m in markets
        ]

    # What the market brings.

    def place(self, symbol: str) -> tuple[int, int] | None:
        """Return epoch and sequence behind which the ticks of a symbol go on; None to begin anew."""
        market = self._exchange.markets[symbol]
        held = self._held.get(symbol)
        newest = max(market.sequence, held.newest if held is not None else 0)
        return (market.epoch, newest) if newest else None

    def on_epoch(self, symbol: str, epoch: int, provenance: int) -> None:
        """Follow a source that began anew."""
        if symbol not in self._exchange.markets:
            return
        market = self._exchange.markets[symbol]
        if (market.epoch, market.provenance) == (epoch, provenance):
            return
        self._exchange.on_epoch(symbol, epoch, provenance)
        if symbol in self._held:
            self._held[symbol].restart()
        _LOG.info("venue.market", symbol=symbol, epoch=epoch, provenance=PROVENANCE_NAMES.get(provenance, "?"))

    async def on_batch(self, batch: TickBatchView) -> None:
        """Take ticks; in a replay they wait until the engine has come so far, and the source with them."""
        if batch.symbol not in self._exchange.markets:
            return
        self.on_epoch(batch.symbol, batch.epoch, batch.provenance)
        if batch.provenance != REPLAY:
            changes = self._exchange.on_ticks(batch.symbol, batch.objects(), self._clock.wall_ns())
            if changes:
                await self._commit(changes)
            return
        held = self._held.setdefault(batch.symbol, HeldTicks())
        held.add(batch)
        await self._advance(batch.symbol)

    def on_snapshot(
        self,
        symbol: str,
        epoch: int,
        provenance: int,
        sequence: int,
        event_time_ns: int,
        quote: tuple[int | None, int | None, int | None, int | None],
    ) -> None:
        """Begin with the last values of a symbol: bid, ask and their sizes at an event time."""
        if symbol in self._exchange.markets:
            self.on_epoch(symbol, epoch, provenance)
            self._exchange.on_snapshot(symbol, sequence, event_time_ns, quote, self._clock.wall_ns())

    async def on_progress(self, symbol: str, epoch: int, through_sequence: int) -> None:
        """Go on in a replay as far as the engine has come, and no further."""
        if symbol not in self._exchange.markets:
            return
        held = self._held.setdefault(symbol, HeldTicks())
        held.allow(epoch, through_sequence)
        await self._advance(symbol)

    async def on_time(self) -> None:
        """Let time pass."""
        changes = self._exchange.on_time(self._clock.wall_ns())
        if changes:
            await self._commit(changes)

    async def _advance(self, symbol: str) -> None:
        market = self._exchange.markets[symbol]
        held = self._held[symbol]
        changes: list[Change] = []
        for batch in held.release(market.epoch):
            changes.extend(self._exchange.on_ticks(symbol, batch.objects(), self._clock.wall_ns()))
        if held.reached(market.epoch, market.sequence):
            changes.extend(self._exchange.progress(symbol))
        if changes:
            await self._commit(tuple(changes))
        await self.report(symbol, market.sequence)

    # Order of memory, disk and telling.

    async def _known(self, client_order_id: str) -> OrderRecord | None:
        record = self._exchange.orders.get(client_order_id)
        if record is None and len(self._exchange.orders) >= store.ORDERS_LOADED:
            found = await self._database.read(lambda c: store.find_order(c, client_order_id))
            return self._exchange.orders.get(client_order_id, found) if found is None else found
        return record

    async def _settled(self) -> None:
        """Return once everything that is in memory now is on disk."""
        if self._exchange.revision > self._log.newest:
            await self._write(_nothing)

    async def _commit(self, changes: tuple[Change, ...], request: tuple[str, str] | None = None) -> None:
        """Write a step and tell it. A step without changes waits for those before it."""
        if not changes and request is None:
            await self._settled()
            return
        exchange = self._exchange
        symbols = store.touched_symbols(changes)
        moved = symbols | {change.symbol for change in changes if isinstance(change, ProgressRecord)}
        commit = store.Commit(
            changes=changes,
            positions={symbol: exchange.positions[symbol] for symbol in symbols},
            markets={symbol: store.market_body(exchange.markets[symbol]) for symbol in moved},
            request=request,
        )

        def told(_: None) -> None:
            for change in changes:
                self._log.append(change)

        await self._write(lambda c: store.save(c, commit), told)

    async def _write(self, fn: Callable[[Connection], None], then: Callable[[None], None] | None = None) -> None:
        try:
            await self._database.write(fn, then=then)
        except StorageError as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise


async def _unheard(_symbol: str, _sequence: int) -> None:
    return None


def _nothing(_: Connection) -> None:
    return None
