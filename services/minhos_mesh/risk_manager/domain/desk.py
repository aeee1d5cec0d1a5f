"""Decides every question with the whole state of risk at hand, and what each decision changes in that state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from minhos_mesh.matching import session_open, trading_day
from minhos_mesh.risk_manager.domain.breaker import AUTOMATIC, Breaker, loss_trips, trip
from minhos_mesh.risk_manager.domain.checks import Case, evaluate
from minhos_mesh.risk_manager.domain.daily import DayPeak, day_of, unrealized_e9
from minhos_mesh.risk_manager.domain.errors import InvalidField, SymbolUnknown, VersionMismatch
from minhos_mesh.risk_manager.domain.exposure import only_reduces, reach_by_symbol
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches, check_limits
from minhos_mesh.risk_manager.domain.projection import LiveOrder, Projection, contradiction
from minhos_mesh.risk_manager.domain.question import AccountView, Evidence, Provenance, Question, Verdict
from minhos_mesh.risk_manager.domain.recent import Approval, RecentApprovals, Repetition, Stage
from minhos_mesh.risk_manager.domain.reservations import Reservation, ReservationBook, unseen_orders
from minhos_mesh.runtime.instruments import InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.symbols import Symbol, SymbolError, parse_symbol


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict with everything that it changes once it is written down."""

    question: Question
    verdict: Verdict
    now_ns: int
    stage: Stage
    approval: Approval | None = None
    reservation: Reservation | None = None
    tripped: Breaker | None = None
    """The breaker, when this question trips it."""
    peak: DayPeak | None = None
    """The highest profit of the day in its stage, when this question raises it."""


@dataclass(slots=True)
class Tally:
    """Counts since the start of the service."""

    checks: int = 0
    refusals: int = 0
    by_check: dict[str, int] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> None:
        """Count an answer."""
        self.checks += 1
        if not verdict.approved:
            self.refusals += 1
        for check in verdict.checks:
            if not check.passed:
                self.by_check[check.code.name] = self.by_check.get(check.code.name, 0) + 1


@dataclass(frozen=True, slots=True)
class Day:
    """The profit of a day as one question sees it, and what it changes."""

    profit_e9: int
    unknown: str | None
    """A symbol whose price is missing."""
    peak: DayPeak | None = None
    tripped: Breaker | None = None


class RiskDesk:
    """The state of risk. `decide` and `watch_own_loss` change nothing; what they decide is taken in once it is on disk."""

    def __init__(
        self,
        *,
        limits: RiskLimits,
        limits_version: int,
        breaker: Breaker,
        specs: Mapping[str, InstrumentSpec],
        approval_ns: int,
        live_venue: bool = False,
        replay: bool = False,
    ) -> None:
        self.limits = limits
        self.limits_version = limits_version
        self.breaker = breaker
        self.switches: Switches | None = None
        """What the state of the system lets through; None until it was heard."""
        self.projection = Projection()
        self.reservations = ReservationBook()
        self.approvals = RecentApprovals()
        self.peaks: dict[Stage, DayPeak] = {}
        self.prices: dict[str, Evidence] = {}
        self.tally = Tally()
        self._late: set[str] = set()
        """Symbols whose newest price was old already when it was heard."""
        self._specs = specs
        self._approval_ns = approval_ns
        self._live_venue = live_venue
        self._replay = replay

    def instrument(self, symbol: str) -> InstrumentSpec:
        """Return the instrument of a symbol. Raises SymbolUnknown."""
        try:
            return spec_for(parse_symbol(symbol), self._specs)
        except (SymbolError, InstrumentError) as error:
            raise SymbolUnknown(symbol, str(error)) from None

    def decide(self, question: Question, wall_ns: int) -> Decision:
        """Answer a question and change nothing: `apply` takes the answer in. Raises InvalidField."""
        stage, now_ns = self._when(question, wall_ns)
        self._check_replacement(question)
        view = question.account if question.account is not None else self._own_view(question)
        evidence = self._evidence(question, stage)
        known = contradiction(view, self.projection)
        day = self._measure_day(question, view, evidence, stage, now_ns, known)
        case = self._case(question, view, evidence, stage, (now_ns, wall_ns), day, known)
        checks = evaluate(case)
        approved = all(check.passed for check in checks)
        verdict = Verdict(
            approved=approved,
            checks=checks,
            approval_id=f"ap-{question.request_id}" if approved and not question.dry_run else "",
            expire_ns=now_ns + self._approval_ns if approved and not question.dry_run else None,
            limits_version=self.limits_version,
        )
        decision = Decision(question=question, verdict=verdict, now_ns=now_ns, stage=stage)
        if question.dry_run:
            return decision
        decision = replace(decision, tripped=day.tripped, peak=day.peak)
        return self._approve(decision, view, wall_ns) if approved else decision

    def apply(self, decision: Decision, wall_ns: int) -> None:
        """Take in what was decided; an approval holds its exposure from this moment on. A dry run changes nothing."""
        if decision.question.dry_run:
            return
        self.reservations.expire(wall_ns)
        self.tally.count(decision.verdict)
        if decision.tripped is not None and not self.breaker.tripped:
            self.breaker = decision.tripped
        if decision.peak is not None:
            self.peaks[decision.stage] = decision.peak
        if decision.approval is not None:
            self.approvals.add(decision.approval)
        if decision.reservation is not None:
            self.reservations.hold(decision.reservation)

    def next_version(self, limits: RiskLimits, expected_version: int | None) -> int:
        """Return the version that limits would have. Raises InvalidField, VersionMismatch."""
        check_limits(limits)
        if expected_version is not None and expected_version != self.limits_version:
            raise VersionMismatch(expected_version, self.limits_version)
        return self.limits_version + 1

    def take_price(self, symbol: str, price: Evidence, wall_ns: int) -> None:
        """Take in a price, unless a newer one is known: market data that starts anew is told its history again.

        A price that is older than orders may be based on when it is heard is kept to be shown, and no loss is judged by it.
        """
        at_ns, known = price.event_time_ns, self.prices.get(symbol)
        if price.provenance is Provenance.REPLAY or known is None or known.provenance is not price.provenance:
            known_ns = None
        else:
            known_ns = known.event_time_ns
        if at_ns is not None and known_ns is not None and at_ns < known_ns:
            return
        self.prices[symbol] = price
        late = at_ns is None or wall_ns - at_ns > self.limits.max_price_age_ns
        (self._late.add if late else self._late.discard)(symbol)

    def price_of(self, symbol: str) -> int | None:
        """Return the newest price known here, 1e-9 units."""
        known = self.prices.get(symbol)
        return known.reference_e9 if known is not None else None

    def multiplier_of(self, symbol: str) -> int | None:
        """Return the value of one point of one contract, None when the instrument is not known."""
        try:
            return self.instrument(symbol).multiplier
        except SymbolUnknown:
            return None

    def day(self, stage: Stage, wall_ns: int) -> date:
        """Return the day of a stage: that of its newest event in a replay, by the wall clock otherwise."""
        if stage.provenance is not Provenance.REPLAY:
            return day_of(wall_ns)
        peak = self.peaks.get(stage)
        known = [day for day in (peak.day if peak is not None else None, self.projection.day) if day is not None]
        return max(known, default=day_of(wall_ns))

    def own_profit(self, day: date) -> tuple[int, str | None]:
        """Return the profit of the day by the published facts and known prices, and a symbol that has no price."""
        held = AccountView(positions=self.projection.positions)
        open_e9, unknown = unrealized_e9(held, self.price_of, self.multiplier_of)
        return self.projection.realized_on_e9(day) + open_e9, unknown

    def watch_own_loss(self, wall_ns: int) -> Day:
        """Measure the day by the published facts, with the breaker when their loss trips it.

        What is held is not measured by a price that was old when it was heard. Not for a replay: there only questions decide, so that the same recording gives the same decisions.
        """
        day = day_of(wall_ns)
        profit_e9, unknown = self.own_profit(day)
        unknown = unknown or self.held_at_late_price()
        return self._measured(Stage(Provenance.UNSPECIFIED, 0), day, wall_ns, profit_e9, unknown)

    def held_at_late_price(self) -> str | None:
        """Return a symbol that is held and whose newest price was old when it was heard; None when there is none."""
        positions = self.projection.positions.items()
        return next((name for name, held in positions if held.quantity and name in self._late), None)

    def _measured(self, stage: Stage, day: date, now_ns: int, profit_e9: int, unknown: str | None) -> Day:
        if unknown is not None:
            return Day(profit_e9, unknown)
        before = self.peaks.get(stage)
        peak = (before or DayPeak(day)).after(day, profit_e9)
        reason = None if self.breaker.tripped else loss_trips(self.limits, profit_e9)
        tripped = trip(self.breaker, AUTOMATIC, reason, now_ns) if reason is not None else None
        return Day(profit_e9, None, peak if peak != before else None, tripped)

    def _when(self, question: Question, wall_ns: int) -> tuple[Stage, int]:
        evidence = question.evidence
        if evidence is None or evidence.provenance is not Provenance.REPLAY:
            return Stage(Provenance.UNSPECIFIED, 0), wall_ns
        if question.decision_time_ns is None:
            raise InvalidField(
                "evidence.decision_time", "unset", "the event time of the decision, since the data is REPLAY"
            )
        return Stage(Provenance.REPLAY, evidence.epoch), question.decision_time_ns

    def _check_replacement(self, question: Question) -> None:
        known = self.projection.live_orders.get(question.order_id) if question.replaces else None
        if known is None:
            return
        if question.terms.symbol != known.symbol:
            raise InvalidField("terms.symbol", question.terms.symbol, f"{known.symbol}, the symbol of the order")
        if question.terms.side is not known.side:
            raise InvalidField("terms.side", question.terms.side.name, f"{known.side.name}, the side of the order")

    def _own_view(self, question: Question) -> AccountView:
        if not question.dry_run:
            raise InvalidField("account", "unset", "the account as its owner sees it, or dry_run = true")
        return self.projection.view()

    def _evidence(self, question: Question, stage: Stage) -> Evidence | None:
        asked, known = question.evidence, self.prices.get(question.terms.symbol)
        if asked is None or stage.provenance is Provenance.REPLAY:
            return asked if asked is not None else known
        if known is None or known.event_time_ns is None or known.event_time_ns <= (asked.event_time_ns or 0):
            return asked
        return replace(known, provenance=asked.provenance)

    def _extra(self, question: Question, view: AccountView, stage: Stage, wall_ns: int) -> tuple[LiveOrder, ...]:
        if stage.provenance is Provenance.REPLAY:
            # The asker serialises its questions and its view is whole; what arrives here by events depends on the moment.
            return ()
        live = tuple(self.projection.live_orders.values())
        open_now = self.reservations.open(wall_ns)
        return unseen_orders(view, open_now, live, self.projection.version, question.order_id)

    def _counted(self, question: Question, view: AccountView, stage: Stage, before: Repetition) -> int:
        """Return the contracts of a replaced order that the view counts already; too few rather than too many.

        Where the view counts its working contracts: the whole order as it was, since what of it is filled is held.
        Where the view leaves them out: what is known to be filled. In a replay only by questions that came before.
        """
        if not question.replaces:
            return 0
        live = None if stage.provenance is Provenance.REPLAY else self.projection.live_orders.get(question.order_id)
        if question.order_id in view.working_order_ids:
            return live.quantity + live.filled_quantity if live is not None else before.smallest
        return min(live.filled_quantity, question.terms.quantity) if live is not None else 0

    def _price_for(self, question: Question, evidence: Evidence | None, stage: Stage, symbol: str) -> int | None:
        if symbol == question.terms.symbol:
            return evidence.reference_e9 if evidence is not None else None
        return None if stage.provenance is Provenance.REPLAY else self.price_of(symbol)

    def _measure_day(
        self,
        question: Question,
        view: AccountView,
        evidence: Evidence | None,
        stage: Stage,
        now_ns: int,
        known: str | None,
    ) -> Day:
        """Measure the day as the asker sees it; peak and breaker follow the published facts alone.

        In a replay they follow the asker, unless it contradicts the facts: events arrive here at moments of their own.
        """
        open_e9, unknown = unrealized_e9(
            view, lambda symbol: self._price_for(question, evidence, stage, symbol), self.multiplier_of
        )
        profit_e9 = view.realized_today_e9 + open_e9
        if stage.provenance is Provenance.REPLAY:
            if not self._replay or known is not None:
                return Day(profit_e9, unknown)
            return self._measured(stage, day_of(now_ns), now_ns, profit_e9, unknown)
        own = self.watch_own_loss(now_ns)
        return Day(profit_e9, unknown, own.peak, own.tripped)

    def _case(
        self,
        question: Question,
        view: AccountView,
        evidence: Evidence | None,
        stage: Stage,
        times: tuple[int, int],
        day: Day,
        known: str | None,
    ) -> Case:
        now_ns, wall_ns = times
        symbol, spec, because = self._known(question.terms.symbol)
        before = self.approvals.before(question, stage, now_ns)
        extra, counted = self._extra(question, view, stage, wall_ns), self._counted(question, view, stage, before)
        own = self.prices.get(question.terms.symbol)
        peak = day.peak or self.peaks.get(stage, DayPeak(day_of(now_ns)))
        return Case(
            terms=question.terms,
            symbol=symbol,
            spec=spec,
            unknown_because=because,
            now_ns=now_ns,
            day=trading_day(now_ns),
            limits=self.limits,
            switches=self.switches,
            breaker=day.tripped or self.breaker,
            evidence=evidence,
            session_open=_is_open(evidence, now_ns),
            orders_last_minute=before.last_minute,
            identical_age_ns=before.identical_age_ns,
            order_known=before.order_known,
            view=view,
            reach=reach_by_symbol(view, extra, question.terms, counted),
            reduces=only_reduces(view, extra, question.terms, counted),
            profit_today_e9=day.profit_e9,
            profit_unknown_for=day.unknown,
            drawdown_e9=peak.drawdown_e9(day_of(now_ns), day.profit_e9),
            contradiction=known,
            live_venue=self._live_venue,
            prices=lambda name: self._price_for(question, evidence, stage, name),
            multipliers=self.multiplier_of,
            own_provenance=own.provenance if own is not None else None,
        )

    def drawdown_e9(self, stage: Stage, day: date, profit_e9: int) -> int:
        """Return how far a profit is below the highest one of its day, 1e-9 units."""
        return self.peaks.get(stage, DayPeak(day)).drawdown_e9(day, profit_e9)

    def _known(self, text: str) -> tuple[Symbol | None, InstrumentSpec | None, str]:
        try:
            symbol = parse_symbol(text)
            return symbol, spec_for(symbol, self._specs), ""
        except (SymbolError, InstrumentError) as error:
            return None, None, str(error)

    def _approve(self, decision: Decision, view: AccountView, wall_ns: int) -> Decision:
        """Add what an approval holds."""
        question = decision.question
        terms = question.terms
        approval = Approval(
            request_id=question.request_id,
            order_id=question.order_id,
            terms=terms,
            time_ns=decision.now_ns,
            stage=decision.stage,
            replaces=question.replaces,
        )
        before = self.approvals.before(question, decision.stage, decision.now_ns).smallest
        reservation = Reservation(
            approval_id=decision.verdict.approval_id,
            order_id=question.order_id,
            symbol=terms.symbol,
            side=terms.side,
            quantity=terms.quantity,
            account_version=view.version,
            expire_ns=wall_ns + self._approval_ns,
            added=max(terms.quantity - before, 0) if question.replaces else 0,
        )
        return replace(decision, approval=approval, reservation=reservation)


def _is_open(evidence: Evidence | None, now_ns: int) -> bool:
    return (evidence is not None and evidence.provenance.always_open) or session_open(now_ns)
