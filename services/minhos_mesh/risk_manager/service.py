"""Decides in which order the risk manager acts: decide in memory, write it down with its events, then answer."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar

from minhos_mesh.matching import trading_day
from minhos_mesh.risk_manager import store
from minhos_mesh.risk_manager.domain.breaker import Breaker, reset, trip
from minhos_mesh.risk_manager.domain.daily import DayPeak
from minhos_mesh.risk_manager.domain.desk import Decision, RiskDesk
from minhos_mesh.risk_manager.domain.errors import RequestConflict
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches, breaker_loss_e9
from minhos_mesh.risk_manager.domain.metrics import Metrics, measure
from minhos_mesh.risk_manager.domain.projection import OrderFact, TradeFact
from minhos_mesh.risk_manager.domain.question import CheckCode, Evidence, Provenance, Question, Verdict
from minhos_mesh.risk_manager.domain.recent import Stage
from minhos_mesh.risk_manager.domain.sizing import Size, position_size
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.money import format_e9
from minhos_mesh.runtime.storage import Connection, Database, StorageError
from minhos_mesh.runtime.watch import RevisionLog, first_revision

T = TypeVar("T")
Writing = Callable[[Connection], None]
"""Something to be written in the transaction of the connection."""

ANSWERS_KEPT = 20_000
CONFIGURATION = "configuration"
"""Who set the limits that no person has changed."""

_FREE = Stage(Provenance.UNSPECIFIED, 0)
_ACCOUNT_CHECKS = frozenset(
    {CheckCode.POSITION_LIMIT, CheckCode.OPEN_POSITIONS, CheckCode.EXPOSURE, CheckCode.DAILY_LOSS, CheckCode.DRAWDOWN}
)
_LOG = get_logger("risk_manager")


@dataclass(frozen=True, slots=True)
class Alert:
    """A limit that was passed."""

    code: CheckCode
    observed: str
    limit: str
    breaker_tripped: bool


class Announcer(Protocol):
    """Puts events beside what they tell of, into the same transaction."""

    def decided(self, decision: Decision) -> Writing:
        """Tell a decision."""
        ...

    def exceeded(self, alerts: Sequence[Alert], now_ns: int) -> Writing:
        """Tell limits that were passed."""
        ...


class RiskManager:
    """The risk manager as its servicer, its event reader and its price reader see it."""

    def __init__(self, desk: RiskDesk, database: Database, announcer: Announcer, clock: Clock, *, replay: bool) -> None:
        self._desk = desk
        self._database = database
        self._announcer = announcer
        self._clock = clock
        self._replay = replay
        self._stage = _FREE
        self._answers: OrderedDict[str, tuple[str, Verdict]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[tuple[str, Verdict]]] = {}
        self._exceeded: set[CheckCode] = set()
        self._log: RevisionLog[Metrics] = RevisionLog(first_revision(clock), held=1_000)
        self._changing = asyncio.Lock()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception when the disk fails: what is in memory is then ahead of it and must not go on."""

    async def recover(self) -> None:
        """Take up what an earlier life left; the configured limits hold until a person has changed them."""
        loaded = await self._database.read(store.load)
        store.restore(self._desk, loaded)
        known = loaded.limits
        if known is not None and (known.actor != CONFIGURATION or known.limits == self._desk.limits):
            self._desk.limits, self._desk.limits_version = known.limits, known.version
        else:
            self._desk.limits_version = known.version + 1 if known is not None else 1
            limits, version, now_ns = self._desk.limits, self._desk.limits_version, self._clock.wall_ns()
            reason = "read at start"
            await self._write(
                lambda c: store.save_limits(c, limits, version, actor=CONFIGURATION, reason=reason, time_ns=now_ns)
            )
        _LOG.info("risk.recovered", limits_version=self._desk.limits_version, breaker=self._desk.breaker.tripped)

    async def close(self) -> None:
        """End all watches, and wait for the answers that are being written."""
        self._log.close()
        if self._asked:
            await asyncio.wait(list(self._asked.values()))

    async def check(self, question: Question) -> Verdict:
        """Answer a question; an approval is on disk when this returns. Raises RequestConflict, InvalidField."""
        if question.dry_run:
            return self._desk.decide(question, self._clock.wall_ns()).verdict
        content = f"{question.order_id} {question.terms}"
        known = self._answers.get(question.request_id)
        if known is None:
            task = self._asked.get(question.request_id)
            if task is None:
                task = asyncio.create_task(self._answer(question, content), name="risk-answer")
                self._asked[question.request_id] = task
            # A caller that gives up does not stop the answer: it is written down, and the same id gives it again.
            known = await asyncio.shield(task)
        if known[0] != content:
            raise RequestConflict(question.request_id)
        return known[1]

    async def _answer(self, question: Question, content: str) -> tuple[str, Verdict]:
        request_id = question.request_id
        try:
            stored = await self._database.read(lambda c: store.find_answer(c, request_id))
            known = stored if stored is not None else (content, await self._decide(question, content))
            self._answers[request_id] = known
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)
            return known
        finally:
            self._asked.pop(request_id, None)

    async def _decide(self, question: Question, content: str) -> Verdict:
        decision = self._desk.decide(question, self._clock.wall_ns())
        told = self._announcer.decided(decision)
        alerts = self._announcer.exceeded(self._alerts_of(decision), decision.now_ns)
        peaks = dict(self._desk.peaks)

        def write(connection: Connection) -> None:
            store.save_decision(connection, decision, content, peaks)
            told(connection)
            alerts(connection)

        await self._write(write)
        self._changed()
        return decision.verdict

    def _alerts_of(self, decision: Decision) -> list[Alert]:
        """Return the limits of the account that this question found passed and the one before had not."""
        tripped = decision.tripped is not None
        alerts: list[Alert] = []
        for check in decision.verdict.checks:
            if check.code not in _ACCOUNT_CHECKS:
                continue
            trips = tripped and check.code is CheckCode.DAILY_LOSS
            if (not check.passed and check.code not in self._exceeded) or trips:
                alerts.append(Alert(check.code, check.observed, check.limit, trips))
            (self._exceeded.discard if check.passed else self._exceeded.add)(check.code)
        return alerts

    async def set_limits(
        self, limits: RiskLimits, *, expected_version: int | None, request_id: str, actor: str, reason: str
    ) -> tuple[RiskLimits, int]:
        """Replace the limits once per request id. Raises InvalidField, VersionMismatch, RequestConflict."""
        content = json.dumps([asdict(limits), expected_version, actor, reason])
        async with self._changing:
            known = await self._database.read(lambda c: store.find_limits(c, request_id))
            if known is not None:
                if known[0] != content:
                    raise RequestConflict(request_id)
                return known[1], known[2]
            version, now_ns = self._desk.set_limits(limits, expected_version), self._clock.wall_ns()
            await self._write(
                lambda c: store.save_limits(
                    c,
                    limits,
                    version,
                    actor=actor,
                    reason=reason,
                    time_ns=now_ns,
                    request_id=request_id,
                    content=content,
                )
            )
        _LOG.warning("risk.limits_changed", version=version, actor=actor, reason=reason)
        self._changed()
        return limits, version

    def limits(self) -> tuple[RiskLimits, int]:
        """Return the limits and their version."""
        return self._desk.limits, self._desk.limits_version

    async def trip_breaker(self, actor: str, reason: str) -> Breaker:
        """Trip the breaker; it is on disk when this returns. Raises InvalidField."""
        async with self._changing:
            tripped = trip(self._desk.breaker, actor, reason, self._clock.wall_ns())
            if tripped != self._desk.breaker:
                self._desk.breaker = tripped
                await self._write_trip(tripped, [Alert(CheckCode.BREAKER, f"tripped by {actor}", "not tripped", True)])
        return self._desk.breaker

    async def reset_breaker(self, actor: str, reason: str) -> Breaker:
        """Reset the breaker; it is on disk when this returns. Raises BreakerNotTripped, InvalidField."""
        async with self._changing:
            free, now_ns = reset(self._desk.breaker, actor, reason), self._clock.wall_ns()
            await self._write(lambda c: store.save_breaker(c, free, actor=actor, reason=reason, time_ns=now_ns))
            self._desk.breaker = free
        _LOG.warning("risk.breaker_reset", actor=actor, reason=reason)
        self._changed()
        return free

    async def _write_trip(self, breaker: Breaker, alerts: Sequence[Alert]) -> None:
        told = self._announcer.exceeded(alerts, breaker.trip_ns or self._clock.wall_ns())

        def write(connection: Connection) -> None:
            actor, reason, time_ns = breaker.tripped_by, breaker.reason, breaker.trip_ns or 0
            store.save_breaker(connection, breaker, actor=actor, reason=reason, time_ns=time_ns)
            told(connection)

        await self._write(write)
        _LOG.warning("risk.breaker_tripped", by=breaker.tripped_by, reason=breaker.reason)
        self._changed()

    def size(self, symbol: str, *, entry_e9: int, stop_e9: int, risk_e9: int, confidence: float | None) -> Size:
        """Return how many contracts may be taken. Raises SymbolUnknown, InvalidField, MoneyError."""
        spec = self._desk.instrument(symbol)
        held = self._desk.projection.positions.get(symbol)
        return position_size(
            spec,
            self._desk.limits,
            entry_e9=entry_e9,
            stop_e9=stop_e9,
            risk_e9=risk_e9,
            confidence=confidence,
            held=abs(held.quantity) if held is not None else 0,
        )

    def metrics(self) -> Metrics:
        """Return what is seen now."""
        self._desk.reservations.expire(self._clock.wall_ns())
        return measure(self._desk, self._stage, self._clock.wall_ns())

    async def watch(self, after: int | None, heartbeat_s: float) -> AsyncIterator[tuple[int, Metrics | None]]:
        """Give (revision, metrics) at once unless a revision is resumed, then at every change; None as a heartbeat."""
        if after is None:
            after = self._log.newest
            yield after, self.metrics()
        async for revision, metrics in self._log.follow(after, heartbeat_s):
            yield revision, metrics

    # What the bus, the market and the state manager bring.

    async def on_order(self, fact: OrderFact, first_time: Callable[[Connection], bool]) -> None:
        """Take in a change of an order; `first_time` remembers the event in the same transaction."""
        self._desk.projection.book_order(fact)
        self._desk.reservations.see(fact)
        released = (fact.order_id,) if fact.live or fact.done else ()
        await self._write_facts(first_time, released)

    async def on_trade(self, order_id: str, fact: TradeFact, first_time: Callable[[Connection], bool]) -> None:
        """Take in a trade."""
        self._desk.projection.book_trade(fact)
        self._desk.reservations.see_fill(order_id)
        await self._write_facts(first_time, (order_id,))
        await self._watch_loss()

    async def on_price(self, symbol: str, price: Evidence) -> None:
        """Take in the newest price of a symbol."""
        if price.provenance is Provenance.REPLAY:
            self._stage = Stage(Provenance.REPLAY, price.epoch)
        self._desk.prices[symbol] = price
        if symbol in self._desk.projection.positions:
            await self._watch_loss()

    def on_switches(self, switches: Switches) -> None:
        """Take in what the state of the system lets through from now on."""
        if switches != self._desk.switches:
            _LOG.info("risk.switches", trading_enabled=switches.trading_enabled, risk_enabled=switches.risk_enabled)
        self._desk.switches = switches

    async def _write_facts(self, first_time: Callable[[Connection], bool], released: tuple[str, ...]) -> None:
        # What is booked twice changes nothing, so memory may be ahead of an event that comes again after a crash.
        body, peaks = store.projection_body(self._desk.projection), dict(self._desk.peaks)

        def write(connection: Connection) -> None:
            if first_time(connection):
                store.save_projection(connection, body, released)
                store.save_peaks(connection, peaks)

        await self._write(write)
        self._changed()

    async def _watch_loss(self) -> None:
        """Trip the breaker by the published facts; in a replay only questions do, so that it can be repeated."""
        if self._replay:
            return
        now_ns = self._clock.wall_ns()
        profit_e9, unknown = self._desk.own_profit()
        if unknown is None:
            day = trading_day(now_ns)
            self._desk.peaks[_FREE] = self._desk.peaks.get(_FREE, DayPeak(day)).after(day, profit_e9)
        tripped = self._desk.watch_own_loss(now_ns)
        if tripped is not None:
            observed, limit = format_e9(-profit_e9), format_e9(breaker_loss_e9(self._desk.limits))
            await self._write_trip(tripped, [Alert(CheckCode.DAILY_LOSS, f"{observed} lost", limit, True)])

    def _changed(self) -> None:
        self._log.append(self.metrics())

    async def _write(self, write: Writing) -> None:
        try:
            await self._database.write(write)
        except StorageError as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise
