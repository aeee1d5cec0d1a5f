"""How the state changes and what is kept with it: one transaction holds state, answer, audit entry and event, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final

from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.storage import Connection, Database
from minhos_mesh.runtime.watch import RevisionLog
from minhos_mesh.state_manager import store
from minhos_mesh.state_manager.domain.audit import UPDATE, AuditEntry, TradingNews
from minhos_mesh.state_manager.domain.errors import RequestConflict, VersionMismatch
from minhos_mesh.state_manager.domain.portfolio import Portfolio, Told, Trade
from minhos_mesh.state_manager.domain.state import (
    Patch,
    State,
    differs,
    online,
    patched,
    released,
    state_to_json,
    stopped,
)
from minhos_mesh.state_manager.ports import Announcer, Receipt

ITSELF: Final = "state_manager"
"""Actor of a change that the state manager makes by itself."""
DIFFERS: Final = "PORTFOLIO_DIFFERS"

_LOG: Final = get_logger("state_manager.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change that a person or a service asks for; `fingerprint` tells one change from another of the same id."""

    request_id: str
    fingerprint: str
    patch: Patch
    expected_version: int | None
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Because:
    actor: str
    reason: str
    cause: Receipt | None = None


class StateManager:
    """The state that holds is the one on disk; readers see a change once it is there."""

    def __init__(
        self, database: Database, state: State, announcer: Announcer, clock: Clock, conditions: Conditions
    ) -> None:
        self.state = state
        self._database = database
        self._announcer = announcer
        self._clock = clock
        self._conditions = conditions
        self._log: RevisionLog[State] = RevisionLog(state.version)

    @classmethod
    async def open(
        cls, database: Database, initial: State, announcer: Announcer, clock: Clock, conditions: Conditions
    ) -> StateManager:
        """Finds the state on disk, or begins with `initial`. Raises StorageError."""

        def find(connection: Connection) -> State:
            found = store.load_state(connection)
            if found is None:
                found = replace(initial, updated_ns=clock.wall_ns())
                store.save_state(connection, found)
            return found

        manager = cls(database, await database.write(find), announcer, clock, conditions)
        manager._tell_contradictions(await database.read(store.find_contradictions))
        return manager

    def close(self) -> None:
        """Ends all readers."""
        self._log.close()

    async def update(self, update: Update) -> State:
        """Changes the state; the same request again gives the first answer.

        Raises VersionMismatch, FieldInvalid, StateConflict, RequestConflict; nothing has changed then.
        """

        def write(connection: Connection) -> tuple[State, bool]:
            known = store.find_answer(connection, update.request_id)
            if known is not None:
                if known[0] != update.fingerprint:
                    raise RequestConflict(update.request_id)
                return known[1], False
            before = _required(store.load_state(connection))
            if update.expected_version is not None and update.expected_version != before.version:
                raise VersionMismatch(update.expected_version, before.version)
            because = _Because(actor=update.actor, reason=update.reason)
            after = self._changed(connection, before, patched(before, update.patch), because)
            store.save_answer(connection, update.request_id, update.fingerprint, after)
            return after, after is not before

        answer, _ = await self._database.write(write, then=lambda result: self._show(result[0]) if result[1] else None)
        return answer

    async def go_online(self, *, auto_trade: bool) -> None:
        """Brings a STARTING system ONLINE; `auto_trade` is what the configuration wants at the very first start."""
        if online(self.state, auto_trade=auto_trade) == self.state:
            return
        because = _Because(actor=ITSELF, reason="the event bus is subscribed")
        await self._apply(lambda state: online(state, auto_trade=auto_trade), because)

    async def take_trade(self, receipt: Receipt, trade: Trade, told: Told) -> None:
        """Takes a fill in once, with what its owner says of the position behind it. Raises FillUnusable."""

        def write(connection: Connection) -> tuple[str, ...] | None:
            if not receipt.is_first(connection):
                return None
            if not store.book(connection, trade):
                _LOG.warning("portfolio.fill_known", fill_id=trade.fill_id, order_id=trade.order_id)
            store.note_told(connection, told)
            store.note_sequence(connection, receipt.sequence)
            return store.find_contradictions(connection)

        await self._database.write(write, then=self._tell_contradictions)

    async def take_position(self, receipt: Receipt, told: Told) -> None:
        """Takes in what its owner says of a position, to hold the projection against it."""

        def write(connection: Connection) -> tuple[str, ...] | None:
            if not receipt.is_first(connection):
                return None
            store.note_told(connection, told)
            store.note_sequence(connection, receipt.sequence)
            return store.find_contradictions(connection)

        await self._database.write(write, then=self._tell_contradictions)

    async def take_news(self, receipt: Receipt, news: TradingNews) -> None:
        """Audits what the trading engine told, and follows its emergency stop unless something newer was heard."""

        def write(connection: Connection) -> State | None:
            if not receipt.is_first(connection):
                return None
            self._audit_news(connection, news)
            store.note_sequence(connection, receipt.sequence)
            if not store.is_newest_trading_news(connection, receipt.sequence):
                return None
            before = _required(store.load_state(connection))
            reason = f"emergency stop: {news.latch_reason}" if news.latched else "the emergency stop is cleared"
            because = _Because(actor=news.actor or ITSELF, reason=reason, cause=receipt)
            after = self._changed(connection, before, stopped(before) if news.latched else released(before), because)
            return None if after is before else after

        await self._database.write(write, then=self._show)

    async def watch(self, after: int | None, heartbeat_s: float) -> AsyncIterator[tuple[int, State | None]]:
        """The state, then each change, or the changes behind a revision; None is a heartbeat.

        A reader that resumes and has missed nothing gets a heartbeat at once, so that it knows that it is heard.
        The revision is the version of the state. Raises MeshError OUT_OF_RANGE when it is no longer held.
        """
        if after is None:
            after = self._log.newest
            yield after, self.state
        elif after == self._log.newest:
            yield after, None
        async for revision, state in self._log.follow(after, heartbeat_s):
            yield revision, state

    async def portfolio(self) -> Portfolio:
        """What the fills taken in amount to."""
        return await self._database.read(store.load_portfolio)

    async def list_trades(
        self, *, symbol: str | None, before: store.TradePosition | None, limit: int
    ) -> tuple[list[Trade], store.TradePosition | None]:
        """A page of fills, the newest first, and where it ended; None when it was the last."""
        found = await self._database.read(lambda c: store.list_trades(c, symbol=symbol, before=before, limit=limit + 1))
        trades = [trade for trade, _ in found[:limit]]
        return trades, found[limit - 1][1] if len(found) > limit else None

    async def list_audit(
        self, *, actor: str | None, action: str | None, before_id: int | None, limit: int
    ) -> tuple[list[AuditEntry], int | None]:
        """A page of the audit log, the newest first, and where it ended; None when it was the last."""
        found = await self._database.read(
            lambda c: store.list_audit(c, actor=actor, action=action, before_id=before_id, limit=limit + 1)
        )
        return found[:limit], found[limit - 1].entry_id if len(found) > limit else None

    async def _apply(self, rule: Callable[[State], State], because: _Because) -> None:
        def write(connection: Connection) -> State | None:
            before = _required(store.load_state(connection))
            after = self._changed(connection, before, rule(before), because)
            return None if after is before else after

        await self._database.write(write, then=self._show)

    def _changed(self, connection: Connection, before: State, wanted: State, because: _Because) -> State:
        """Writes a change with its audit entry and event; the state before, when nothing differs."""
        if not differs(before, wanted):
            return before
        now_ns = self._clock.wall_ns()
        after = replace(wanted, version=before.version + 1, updated_ns=now_ns)
        store.save_state(connection, after)
        entry = AuditEntry(
            at_ns=now_ns,
            actor=because.actor,
            action=UPDATE,
            subject="state",
            before_json=state_to_json(before),
            after_json=state_to_json(after),
            reason=because.reason,
        )
        store.add_audit(connection, entry)
        self._announcer.changed(connection, after, actor=because.actor, reason=because.reason, cause=because.cause)
        return after

    def _audit_news(self, connection: Connection, news: TradingNews) -> None:
        entry = AuditEntry(
            at_ns=news.at_ns,
            actor=news.actor,
            action=news.action,
            subject="trading",
            before_json=store.newest_after_json(connection, news.action),
            after_json=news.after_json,
            reason=news.reason,
        )
        store.add_audit(connection, entry)

    def _show(self, state: State | None) -> None:
        """Shows readers a state that is on disk."""
        if state is None:
            return
        self.state = state
        self._log.append(state)

    def _tell_contradictions(self, symbols: tuple[str, ...] | None) -> None:
        if symbols is None:
            return
        if symbols:
            text = f"the fills of {', '.join(symbols)} do not add up to what the trading engine holds"
            self._conditions.set(DIFFERS, text)
        else:
            self._conditions.clear(DIFFERS)


def _required(state: State | None) -> State:
    if state is None:
        raise RuntimeError("the state is asked for before it was written")
    return state
