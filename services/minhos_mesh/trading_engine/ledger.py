"""Decides how the engine changes: in memory at once and in one order, on disk in the same order, told only once on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.storage import Connection
from minhos_mesh.runtime.watch import RevisionLog, first_revision
from minhos_mesh.trading_engine.domain.account import Account, OrderChange
from minhos_mesh.trading_engine.domain.control import Control
from minhos_mesh.trading_engine.domain.errors import StorageFailed
from minhos_mesh.trading_engine.domain.order_events import OrderCreated, OrderEvent
from minhos_mesh.trading_engine.domain.orders import Order, Provenance
from minhos_mesh.trading_engine.domain.positions import Position
from minhos_mesh.trading_engine.ports import Outgoing, TradingFact
from minhos_mesh.trading_engine.store import Answered, Changes, ReplayPosition, Store, VenueCursor


@dataclass(slots=True)
class _Waiting:
    changes: Changes
    events: list[object] | None
    done: asyncio.Future[bool]


class Ledger:
    """The one place where orders, positions and control change; `shown_*` is the part of them that is on disk.

    `apply` and `set_control` change the memory that decisions are made on and put the step into a queue; the pump
    writes everything that is queued in one transaction. So a step is never on disk before one that it rests on, and
    many steps share one commit. A step that cannot be written ends the process: start and recovery are the same code.
    """

    def __init__(self, account: Account, control: Control, store: Store, outgoing: Outgoing, clock: Clock) -> None:
        self.account = account
        self.control = control
        self.cursor = VenueCursor()
        self.orders: RevisionLog[Order] = RevisionLog(first_revision(clock))
        self.positions: RevisionLog[Position] = RevisionLog(first_revision(clock))
        self.controls: RevisionLog[Control] = RevisionLog(first_revision(clock))
        self.shown_orders: dict[str, Order] = {order.order_id: order for order in account.orders.values()}
        self.shown_positions: dict[str, Position] = dict(account.positions)
        self.shown_control = control
        self.shown_replay: dict[str, ReplayPosition] = {}
        self._store = store
        self._outgoing = outgoing
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._broken: BaseException | None = None
        self._listeners: list[Callable[[Order], None]] = []

    def now_ns(self, provenance: Provenance, decision_ns: int) -> int:
        """Give the time of something that an order goes through: event time in a replay, else the clock's."""
        return decision_ns if provenance is Provenance.REPLAY else self._clock.wall_ns()

    def on_order(self, listener: Callable[[Order], None]) -> None:
        """Call `listener` in memory order after every change of an order, before it is on disk."""
        self._listeners.append(listener)

    async def create(self, event: OrderCreated, changes: Changes | None = None) -> bool:
        """Write a new order down and take it in. False when its request id is known; nothing has changed then.

        The mesh is told of an order from its first change on, which is the answer of risk.
        """
        draft = OrderChange(order=Account.draft(event), event=event)
        written = await self.record(replace(changes or Changes(), orders=(draft,)))
        if written:
            self._changed((self.account.add(event),))
        return written

    def apply(
        self, order_id: str, *events: OrderEvent, cursor: VenueCursor | None = None, answer: Answered | None = None
    ) -> tuple[Order, asyncio.Future[bool] | None]:
        """Apply events to an order in memory; returns it with the future of its step, None when nothing is new.

        Raises UnknownOrder and what the order machine raises; what came before in the same call is recorded then.
        """
        made: list[OrderChange] = []
        try:
            for event in events:
                change = self.account.apply(order_id, event)
                if change is not None:
                    made.append(change)
        finally:
            future = None
            if made or cursor is not None:
                changes = Changes(orders=tuple(made), cursor=self._advance(cursor), answer=answer)
                future = self.record(changes, self._order_facts(made))
            self._changed(made)
        order = self.account.get(order_id)
        if order is None:
            raise StorageFailed(f"order {order_id} was forgotten while it changed")
        return order, future

    async def settle(self, order_id: str, *events: OrderEvent) -> Order:
        """Apply events and wait until they are on disk."""
        order, future = self.apply(order_id, *events)
        if future is not None:
            await future
        return order

    def set_control(
        self, control: Control, facts: Sequence[TradingFact] = (), answer: Answered | None = None
    ) -> asyncio.Future[bool]:
        """Take over a new control at once; the future is done when it is on disk."""
        self.control = control
        told = TradingFact(at_ns=control.changed_ns, control=control)
        return self.record(Changes(control=control, answer=answer), (told, *facts))

    def tell_control(self) -> None:
        """Tell watchers of the control on disk once more, since what it means has changed."""
        self.controls.append(self.shown_control)

    def note_cursor(self, cursor: VenueCursor) -> asyncio.Future[bool]:
        """Remember how far the venue's stream was taken in."""
        return self.record(Changes(cursor=self._advance(cursor)))

    def reach(self, revision: int) -> None:
        """Note in memory how far the venue's stream was taken in; a restart reads again from what was written."""
        if revision > self.cursor.revision:
            self.cursor = replace(self.cursor, revision=revision)

    def record(self, changes: Changes, facts: Sequence[TradingFact] = ()) -> asyncio.Future[bool]:
        """Queue a step to be written. Raises StorageFailed once a step could not be written."""
        if self._broken is not None:
            raise StorageFailed(f"the store failed: {self._broken}")
        events = self._outgoing.prepare(facts) if facts else None
        waiting = _Waiting(changes, events, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return waiting.done

    async def run(self) -> None:
        """Write what is queued until cancelled; what is queued then is written first. Raises what the store raises."""
        try:
            while True:
                await self._wake.wait()
                await self.flush()
        finally:
            if self._broken is None:
                await self.flush()

    async def flush(self) -> None:
        """Write everything that is queued now."""
        while self._queue:
            group = list(self._queue)
            self._queue.clear()
            self._wake.clear()
            try:
                written = await asyncio.shield(
                    asyncio.ensure_future(self._store.write([self._written(waiting) for waiting in group]))
                )
            except Exception as error:
                self._fail(group, error)
                raise
            for waiting, was_written in zip(group, written, strict=True):
                self._tell(waiting, was_written)
        self._wake.clear()

    def _written(self, waiting: _Waiting) -> tuple[Changes, Callable[[Connection], None] | None]:
        """Give what the store writes in one transaction for a step: its changes, and its events into the outbox."""
        events = waiting.events
        if not events:
            return waiting.changes, None
        return waiting.changes, lambda connection: self._outgoing.add(connection, events)

    def _fail(self, group: list[_Waiting], error: Exception) -> None:
        self._broken = error
        for waiting in (*group, *self._queue):
            if not waiting.done.done():
                waiting.done.set_exception(StorageFailed(f"the store failed: {error}"))
                waiting.done.exception()  # marks it as seen: not every step has somebody waiting
        self._queue.clear()

    def _tell(self, waiting: _Waiting, was_written: bool) -> None:
        """Tell watchers of a step that is on disk, then whoever waits for it."""
        if was_written:
            for change in waiting.changes.orders:
                self._show(change)
            if waiting.changes.control is not None:
                self.shown_control = waiting.changes.control
                self.controls.append(waiting.changes.control)
            if waiting.changes.replay is not None:
                self.shown_replay[waiting.changes.replay.symbol] = waiting.changes.replay
        if not waiting.done.done():
            waiting.done.set_result(was_written)

    def _show(self, change: OrderChange) -> None:
        order = change.order
        if order.state.is_terminal:
            self.shown_orders.pop(order.order_id, None)
        else:
            self.shown_orders[order.order_id] = order
        self.orders.append(order)
        if change.booking is not None:
            self.shown_positions[change.booking.position.symbol] = change.booking.position
            self.positions.append(change.booking.position)

    def _changed(self, changes: Sequence[OrderChange]) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change.order)

    def _advance(self, cursor: VenueCursor | None) -> VenueCursor | None:
        if cursor is not None:
            self.cursor = cursor
        return cursor

    def _order_facts(self, changes: Sequence[OrderChange]) -> list[TradingFact]:
        facts = []
        for change in changes:
            order, booking = change.order, change.booking
            signal_id = order.origin.signal_id or ""
            facts.append(TradingFact(at_ns=order.updated_ns, order=order, signal_id=signal_id))
            if booking is not None:
                facts.append(TradingFact(at_ns=booking.fill.at_ns, booking=booking, order=order, signal_id=signal_id))
        return facts
