"""Decides in which order the risk manager acts: decide, write it down with its events, take it into memory, then answer."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from minhos_mesh.risk_manager import store
from minhos_mesh.risk_manager.domain.breaker import Breaker, reset, sentence, trip
from minhos_mesh.risk_manager.domain.desk import Decision, RiskDesk
from minhos_mesh.risk_manager.domain.errors import RequestConflict, RiskError
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches, breaker_loss_e9
from minhos_mesh.risk_manager.domain.metrics import Metrics, measure
from minhos_mesh.risk_manager.domain.projection import OrderFact, Projection, TradeFact
from minhos_mesh.risk_manager.domain.question import CheckCode, Evidence, Provenance, Question, Verdict
from minhos_mesh.risk_manager.domain.recent import Stage
from minhos_mesh.risk_manager.domain.sizing import Size, position_size
from minhos_mesh.risk_manager.domain.stops import losses_passed
from minhos_mesh.runtime.clock import Clock
from minhos_mesh.runtime.conditions import Conditions
from minhos_mesh.runtime.log import get_logger
from minhos_mesh.runtime.money import MoneyError, format_e9
from minhos_mesh.runtime.storage import Connection, Database, StorageError
from minhos_mesh.runtime.watch import RevisionLog, first_revision

T = TypeVar("T")
Writing = Callable[[Connection], None]
"""Something to be written in the transaction of the connection."""

ANSWERS_KEPT = 20_000
PRICE_TOLD_S = 1.0
"""What only a price changed is told at most once in this time, as the contract says."""
FAILURES_TOLERATED = 2
"""Steps in a row that may fail by a defect before the service calls itself DEGRADED."""
STEPS_FAIL = "RISK_STEPS_FAIL"
"""Condition while every step fails by a defect."""
BREAKER_TRIPPED = "BREAKER_TRIPPED"
"""Condition from the moment the breaker trips until a person resets it, over restarts too."""
LOSS_LIMIT_PASSED = "LOSS_LIMIT_PASSED"
"""Condition while losses of the day let nothing but reductions pass and the breaker is not tripped, which says more."""
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
    """The risk manager as its servicer, its event reader and its price reader see it.

    One step at a time: it is decided on what memory holds, written down, and only then taken into memory. A step that
    cannot be written raises and leaves memory as it was.
    """

    def __init__(
        self,
        desk: RiskDesk,
        database: Database,
        announcer: Announcer,
        clock: Clock,
        conditions: Conditions,
        *,
        replay: bool,
    ) -> None:
        self._desk = desk
        self._database = database
        self._announcer = announcer
        self._clock = clock
        self._conditions = conditions
        self._replay = replay
        self._stage = _FREE
        self._answers: OrderedDict[str, tuple[str, Verdict]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[tuple[str, Verdict]]] = {}
        self._exceeded: frozenset[CheckCode] = frozenset()
        self._log: RevisionLog[Metrics] = RevisionLog(first_revision(clock), held=1_000)
        self._stepping = asyncio.Lock()
        self._steps: set[asyncio.Task[Any]] = set()
        self._failures = 0
        self._price_news: asyncio.TimerHandle | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception when the disk fails: the process ends and starts again from what is on it."""

    async def recover(self) -> None:
        """Take up what an earlier life left; the configured limits hold until a person has changed them."""
        loaded = await self._database.read(store.load)
        store.restore(self._desk, loaded)
        known = loaded.limits
        if known is not None and (known.actor != CONFIGURATION or known.limits == self._desk.limits):
            self._desk.limits, self._desk.limits_version = known.limits, known.version
        else:
            limits, version = self._desk.limits, known.version + 1 if known is not None else 1
            now_ns, reason = self._clock.wall_ns(), "read at start"
            await self._write(
                lambda c: store.save_limits(c, limits, version, actor=CONFIGURATION, reason=reason, time_ns=now_ns)
            )
            self._desk.limits_version = version
        self.look_at_losses()
        _LOG.info("risk.recovered", limits_version=self._desk.limits_version, breaker=self._desk.breaker.tripped)

    async def close(self) -> None:
        """End all watches, and wait for the answers that are being written."""
        self._log.close()
        if self._price_news is not None:
            self._price_news.cancel()
        if self._steps or self._asked:
            await asyncio.wait([*self._steps, *self._asked.values()])

    # What callers ask and change.

    async def check(self, question: Question) -> Verdict:
        """Answer a question; an approval is on disk when this returns. Raises RequestConflict, InvalidField."""
        if question.dry_run:
            return self._desk.decide(question, self._clock.wall_ns()).verdict
        content = f"{question.order_id} {question.terms}{' replaces' if question.replaces else ''}"
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
            stored = self._database.glance(lambda c: store.find_answer(c, request_id))
            known = stored if stored is not None else (content, await self._alone(self._decide(question, content)))
            self._answers[request_id] = known
            if len(self._answers) > ANSWERS_KEPT:
                self._answers.popitem(last=False)
            return known
        finally:
            self._asked.pop(request_id, None)

    async def _decide(self, question: Question, content: str) -> Verdict:
        wall_ns = self._clock.wall_ns()
        decision = self._desk.decide(question, wall_ns)
        told = self._announcer.decided(decision)
        alerts, exceeded = self._alerts_of(decision)
        exceeding = self._announcer.exceeded(alerts, decision.now_ns)

        def write(connection: Connection) -> None:
            store.save_decision(connection, decision, content)
            told(connection)
            exceeding(connection)

        await self._write(write)
        self._desk.apply(decision, wall_ns)
        self._exceeded = exceeded
        if decision.tripped is not None:
            _LOG.warning("risk.breaker_tripped", by=decision.tripped.tripped_by, reason=decision.tripped.reason)
        self._changed()
        return decision.verdict

    def _alerts_of(self, decision: Decision) -> tuple[list[Alert], frozenset[CheckCode]]:
        """Return the limits of the account that this question found passed and the one before had not, and all of them.

        A view that contradicts the published facts says nothing of the account.
        """
        tripped, exceeded = decision.tripped is not None, set(self._exceeded)
        checks = {check.code: check for check in decision.verdict.checks}
        if not checks[CheckCode.ACCOUNT_VIEW].passed and not tripped:
            return [], self._exceeded
        alerts: list[Alert] = []
        for check in checks.values():
            if check.code not in _ACCOUNT_CHECKS:
                continue
            trips = tripped and check.code is CheckCode.DAILY_LOSS
            if (not check.passed and check.code not in exceeded) or trips:
                alerts.append(Alert(check.code, check.observed, check.limit, trips))
            (exceeded.discard if check.passed else exceeded.add)(check.code)
        return alerts, frozenset(exceeded)

    async def set_limits(
        self, limits: RiskLimits, *, expected_version: int | None, request_id: str, actor: str, reason: str
    ) -> tuple[RiskLimits, int]:
        """Replace the limits once per request id. Raises InvalidField, VersionMismatch, RequestConflict."""
        return await self._step(self._set_limits(limits, expected_version, request_id, actor, reason))

    async def _set_limits(
        self, limits: RiskLimits, expected_version: int | None, request_id: str, actor: str, reason: str
    ) -> tuple[RiskLimits, int]:
        content = json.dumps([asdict(limits), expected_version])
        known = await self._database.read(lambda c: store.find_limits(c, request_id))
        if known is not None:
            if known[0] != content:
                raise RequestConflict(request_id)
            return known[1], known[2]
        version, now_ns = self._desk.next_version(limits, expected_version), self._clock.wall_ns()
        kept = {"actor": actor, "reason": reason, "request_id": request_id, "content": content}
        await self._write(lambda c: store.save_limits(c, limits, version, time_ns=now_ns, **kept))
        self._desk.limits, self._desk.limits_version = limits, version
        _LOG.warning("risk.limits_changed", version=version, actor=actor, reason=reason)
        self._changed()
        return limits, version

    def limits(self) -> tuple[RiskLimits, int]:
        """Return the limits and their version."""
        return self._desk.limits, self._desk.limits_version

    async def trip_breaker(self, request_id: str, actor: str, reason: str) -> Breaker:
        """Trip the breaker once per request id; it is on disk when this returns. Raises InvalidField, RequestConflict."""
        return await self._step(self._trip(request_id, actor, reason))

    async def _trip(self, request_id: str, actor: str, reason: str) -> Breaker:
        known = await self._answered(request_id, "trip")
        if known is not None:
            return known
        before = self._desk.breaker
        tripped = trip(before, actor, reason, self._clock.wall_ns())
        alerts = [Alert(CheckCode.BREAKER, f"tripped by {actor}", "not tripped", True)] if tripped != before else []
        await self._write_trip(tripped, alerts, lambda c: store.save_request(c, request_id, "trip", tripped))
        return tripped

    async def reset_breaker(self, request_id: str, actor: str, reason: str) -> Breaker:
        """Reset the breaker once per request id; it is on disk when this returns.

        Raises BreakerNotTripped, InvalidField, RequestConflict.
        """
        return await self._step(self._reset(request_id, actor, reason))

    async def _reset(self, request_id: str, actor: str, reason: str) -> Breaker:
        known = await self._answered(request_id, "reset")
        if known is not None:
            return known
        free, now_ns = reset(self._desk.breaker, actor, reason), self._clock.wall_ns()

        def write(connection: Connection) -> None:
            store.save_breaker(connection, free, actor=actor, reason=reason, time_ns=now_ns)
            store.save_request(connection, request_id, "reset", free)

        await self._write(write)
        self._desk.breaker = free
        _LOG.warning("risk.breaker_reset", actor=actor, reason=reason)
        self._changed()
        return free

    async def _answered(self, request_id: str, content: str) -> Breaker | None:
        known = await self._database.read(lambda c: store.find_request(c, request_id))
        if known is not None and known[0] != content:
            raise RequestConflict(request_id)
        return known[1] if known is not None else None

    async def _write_trip(self, breaker: Breaker, alerts: Sequence[Alert], beside: Writing) -> None:
        """Write down a breaker that is tripped; without alerts it was so before."""
        told = self._announcer.exceeded(alerts, breaker.trip_ns or self._clock.wall_ns())

        def write(connection: Connection) -> None:
            beside(connection)
            if alerts:
                actor, reason, time_ns = breaker.tripped_by, breaker.reason, breaker.trip_ns or 0
                store.save_breaker(connection, breaker, actor=actor, reason=reason, time_ns=time_ns)
                told(connection)

        await self._write(write)
        if alerts:
            self._desk.breaker = breaker
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
            held=held.quantity if held is not None else 0,
        )

    def view(self) -> tuple[Metrics, int]:
        """Return what is seen now, and the revision of the newest change that it holds."""
        return self._measure(), self._log.newest

    async def watch(self, after: int | None, heartbeat_s: float) -> AsyncIterator[tuple[int, Metrics | None]]:
        """Give (revision, metrics) at once unless a revision is resumed, then at every change; None as a heartbeat."""
        if after is None:
            metrics, after = self.view()
            yield after, metrics
        async for revision, changed in self._log.follow(after, heartbeat_s):
            yield revision, changed

    # What the bus, the market and the state manager bring.

    async def on_order(self, fact: OrderFact, first_time: Callable[[Connection], bool]) -> None:
        """Take in a change of an order; `first_time` remembers the event in the same transaction."""
        await self._step(self._book_order(fact, first_time))

    async def _book_order(self, fact: OrderFact, first_time: Callable[[Connection], bool]) -> None:
        projection = self._desk.projection.copy()
        projection.book_order(fact)
        released = (fact.order_id,) if self._desk.reservations.released_by(fact) else ()
        await self._write_facts(projection, first_time, released)
        self._desk.reservations.see(fact)
        self._changed()

    async def on_trade(self, order_id: str, fact: TradeFact, first_time: Callable[[Connection], bool]) -> None:
        """Take in a trade."""
        await self._step(self._book_trade(order_id, fact, first_time))

    async def _book_trade(self, order_id: str, fact: TradeFact, first_time: Callable[[Connection], bool]) -> None:
        projection = self._desk.projection.copy()
        projection.book_trade(fact)
        released = (order_id,) if self._desk.reservations.released_by_fill(order_id) else ()
        await self._write_facts(projection, first_time, released)
        self._desk.reservations.see_fill(order_id)
        self._changed()
        await self._watch_loss()

    async def on_price(self, symbol: str, price: Evidence) -> None:
        """Take in the newest price of a symbol."""
        if price.provenance is Provenance.REPLAY:
            self._stage = Stage(Provenance.REPLAY, price.epoch)
        self._desk.take_price(symbol, price, self._clock.wall_ns())
        if symbol not in self._desk.projection.positions:
            return
        if self._price_news is None:
            self._price_news = asyncio.get_running_loop().call_later(PRICE_TOLD_S, self._tell_price)
        if self._replay:
            return
        day = self._desk.watch_own_loss(self._clock.wall_ns())
        if day.peak is not None or day.tripped is not None:
            await self._step(self._watch_loss())

    def on_switches(self, switches: Switches) -> None:
        """Take in what the state of the system lets through from now on."""
        if switches != self._desk.switches:
            _LOG.info("risk.switches", **asdict(switches))
        self._desk.switches = switches

    async def _write_facts(
        self, projection: Projection, first_time: Callable[[Connection], bool], released: tuple[str, ...]
    ) -> None:
        """Write a projection down, then take it in; what is booked twice changes nothing."""
        body = store.projection_body(projection)

        def write(connection: Connection) -> None:
            if first_time(connection):
                store.save_projection(connection, body, released)

        await self._write(write)
        self._desk.projection = projection

    async def _watch_loss(self) -> None:
        """Keep the peak and trip the breaker by the published facts; in a replay only questions do, so that it can be repeated."""
        if self._replay:
            return
        day = self._desk.watch_own_loss(self._clock.wall_ns())
        peak, tripped = day.peak, day.tripped
        if peak is not None:
            await self._write(lambda c: store.save_peak(c, _FREE, peak))
            self._desk.peaks[_FREE] = peak
        if tripped is not None:
            observed, limit = format_e9(-day.profit_e9), format_e9(breaker_loss_e9(self._desk.limits))
            alert = Alert(CheckCode.DAILY_LOSS, f"{observed} lost", limit, True)
            await self._write_trip(tripped, [alert], lambda c: None)

    # Order of memory, disk and telling.

    async def _step(self, step: Coroutine[Any, Any, T]) -> T:
        """Run a step behind those before it, to its end even when its caller gives up."""
        task = asyncio.create_task(self._alone(step), name="risk-step")
        self._steps.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._steps.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.info("risk.step_failed", error=repr(error))

    async def _alone(self, step: Coroutine[Any, Any, T]) -> T:
        async with self._stepping:
            try:
                result = await step
            except (RiskError, MoneyError, StorageError):
                raise
            except Exception as defect:
                self._failures += 1
                if self._failures > FAILURES_TOLERATED:
                    self._conditions.set(STEPS_FAIL, f"{self._failures} steps in a row failed by a defect: {defect!r}")
                raise
            self._failures = 0
            self._conditions.clear(STEPS_FAIL)
            return result

    def _tell_price(self) -> None:
        self._price_news = None
        self._changed()

    def look_at_losses(self) -> None:
        """Say as a condition what of the account lets only reductions pass now: the breaker, or the losses of the day."""
        self._say_losses(self._measure())

    def _measure(self) -> Metrics:
        return measure(self._desk, self._stage, self._clock.wall_ns())

    def _say_losses(self, seen: Metrics) -> None:
        breaker, passed = seen.breaker, None
        if breaker.tripped:
            self._conditions.set(BREAKER_TRIPPED, sentence(breaker))
        else:
            self._conditions.clear(BREAKER_TRIPPED)
            passed = losses_passed(self._desk, self._stage, seen)
        if passed is None:
            self._conditions.clear(LOSS_LIMIT_PASSED)
        else:
            self._conditions.set(LOSS_LIMIT_PASSED, passed)

    def _changed(self) -> None:
        seen = self._measure()
        self._say_losses(seen)
        self._log.append(seen)

    async def _write(self, write: Writing) -> None:
        try:
            await self._database.write(write)
        except StorageError as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise
