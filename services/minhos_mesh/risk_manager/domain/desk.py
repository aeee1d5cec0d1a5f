"""Decides every question with the whole state of risk at hand, and what each decision changes in that state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from minhos_mesh.matching import session_open, trading_day
from minhos_mesh.risk_manager.domain.breaker import AUTOMATIC, Breaker, loss_trips, trip
from minhos_mesh.risk_manager.domain.checks import Case, evaluate
from minhos_mesh.risk_manager.domain.daily import DayPeak, unrealized_e9
from minhos_mesh.risk_manager.domain.errors import InvalidField, SymbolUnknown, VersionMismatch
from minhos_mesh.risk_manager.domain.exposure import only_reduces, reach_by_symbol
from minhos_mesh.risk_manager.domain.limits import RiskLimits, Switches, check_limits
from minhos_mesh.risk_manager.domain.projection import LiveOrder, Projection, contradiction
from minhos_mesh.risk_manager.domain.question import AccountView, Evidence, Provenance, Question, Verdict
from minhos_mesh.risk_manager.domain.recent import Approval, RecentApprovals, Stage
from minhos_mesh.risk_manager.domain.reservations import Reservation, ReservationBook, unseen_orders
from minhos_mesh.runtime.instruments import InstrumentError, InstrumentSpec, spec_for
from minhos_mesh.runtime.symbols import Symbol, SymbolError, parse_symbol


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict with everything that it changed."""

    question: Question
    verdict: Verdict
    now_ns: int
    approval: Approval | None = None
    reservation: Reservation | None = None
    tripped: Breaker | None = None
    """The breaker, when this question tripped it."""


@dataclass(slots=True)
class Tally:
    """Counts since the start of the service."""

    checks: int = 0
    refusals: int = 0
    by_check: dict[str, int] = field(default_factory=dict)


class RiskDesk:
    """The state of risk; every method is a step that either happens whole or raises and changes nothing."""

    def __init__(
        self,
        *,
        limits: RiskLimits,
        limits_version: int,
        breaker: Breaker,
        specs: Mapping[str, InstrumentSpec],
        approval_ns: int,
        live_venue: bool = False,
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
        self._specs = specs
        self._approval_ns = approval_ns
        self._live_venue = live_venue

    def instrument(self, symbol: str) -> InstrumentSpec:
        """Return the instrument of a symbol. Raises SymbolUnknown."""
        try:
            return spec_for(parse_symbol(symbol), self._specs)
        except (SymbolError, InstrumentError) as error:
            raise SymbolUnknown(symbol, str(error)) from None

    def decide(self, question: Question, wall_ns: int) -> Decision:
        """Answer a question; an approval holds its exposure from this moment on. Raises InvalidField."""
        stage, now_ns = self._when(question, wall_ns)
        self.reservations.expire(wall_ns)
        view = question.account if question.account is not None else self._own_view(question)
        evidence = self._evidence(question, stage)
        extra = self._extra(question, view, stage)
        tripped, profit_e9, unknown = self._measure_day(question, view, evidence, stage, now_ns)
        case = self._case(question, view, evidence, extra, stage, now_ns, profit_e9, unknown)
        checks = evaluate(case)
        approved = all(check.passed for check in checks)
        verdict = Verdict(
            approved=approved,
            checks=checks,
            approval_id=f"ap-{question.request_id}" if approved and not question.dry_run else "",
            expire_ns=now_ns + self._approval_ns if approved and not question.dry_run else None,
            limits_version=self.limits_version,
        )
        return self._settle(
            Decision(question=question, verdict=verdict, now_ns=now_ns, tripped=tripped), stage, view, wall_ns
        )

    def set_limits(self, limits: RiskLimits, expected_version: int | None) -> int:
        """Replace the limits and return their version. Raises InvalidField, VersionMismatch."""
        check_limits(limits)
        if expected_version is not None and expected_version != self.limits_version:
            raise VersionMismatch(expected_version, self.limits_version)
        self.limits, self.limits_version = limits, self.limits_version + 1
        return self.limits_version

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

    def own_profit(self) -> tuple[int, str | None]:
        """Return the profit of the day by the published facts and known prices, and a symbol that has no price."""
        open_e9, unknown = unrealized_e9(self.projection.view(), self.price_of, self.multiplier_of)
        return self.projection.realized_today_e9 + open_e9, unknown

    def watch_own_loss(self, wall_ns: int) -> Breaker | None:
        """Trip the breaker when the published facts show too large a loss; return it when this call tripped it.

        Not for a replay: there only questions decide, so that the same recording gives the same decisions.
        """
        self.projection.begin_day(trading_day(wall_ns))
        profit_e9, unknown = self.own_profit()
        reason = None if unknown is not None or self.breaker.tripped else loss_trips(self.limits, profit_e9)
        if reason is None:
            return None
        self.breaker = trip(self.breaker, AUTOMATIC, reason, wall_ns)
        return self.breaker

    def _when(self, question: Question, wall_ns: int) -> tuple[Stage, int]:
        evidence = question.evidence
        if evidence is None or evidence.provenance is not Provenance.REPLAY:
            return Stage(Provenance.UNSPECIFIED, 0), wall_ns
        if question.decision_time_ns is None:
            raise InvalidField(
                "evidence.decision_time", "unset", "the event time of the decision, since the data is REPLAY"
            )
        return Stage(Provenance.REPLAY, evidence.epoch), question.decision_time_ns

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

    def _extra(self, question: Question, view: AccountView, stage: Stage) -> tuple[LiveOrder, ...]:
        if stage.provenance is Provenance.REPLAY:
            # The asker serialises its questions and its view is whole; what arrives here by events depends on the moment.
            return ()
        live = tuple(self.projection.live_orders.values())
        return unseen_orders(view, self.reservations.open(), live, self.projection.version, question.order_id)

    def _price_for(self, question: Question, evidence: Evidence | None, stage: Stage, symbol: str) -> int | None:
        if symbol == question.terms.symbol:
            return evidence.reference_e9 if evidence is not None else None
        return None if stage.provenance is Provenance.REPLAY else self.price_of(symbol)

    def _measure_day(
        self, question: Question, view: AccountView, evidence: Evidence | None, stage: Stage, now_ns: int
    ) -> tuple[Breaker | None, int, str | None]:
        open_e9, unknown = unrealized_e9(
            view, lambda symbol: self._price_for(question, evidence, stage, symbol), self.multiplier_of
        )
        profit_e9 = view.realized_today_e9 + open_e9
        if question.dry_run or unknown is not None:
            return None, profit_e9, unknown
        day = trading_day(now_ns)
        self.peaks[stage] = self.peaks.get(stage, DayPeak(day)).after(day, profit_e9)
        reason = loss_trips(self.limits, profit_e9)
        if reason is None or self.breaker.tripped:
            return None, profit_e9, unknown
        self.breaker = trip(self.breaker, AUTOMATIC, reason, now_ns)
        return self.breaker, profit_e9, unknown

    def _case(
        self,
        question: Question,
        view: AccountView,
        evidence: Evidence | None,
        extra: tuple[LiveOrder, ...],
        stage: Stage,
        now_ns: int,
        profit_e9: int,
        unknown: str | None,
    ) -> Case:
        symbol, spec, because = self._known(question.terms.symbol)
        day = trading_day(now_ns)
        before = self.approvals.before(question, stage, now_ns)
        own = self.prices.get(question.terms.symbol)
        return Case(
            terms=question.terms,
            symbol=symbol,
            spec=spec,
            unknown_because=because,
            now_ns=now_ns,
            day=day,
            limits=self.limits,
            switches=self.switches,
            breaker=self.breaker,
            evidence=evidence,
            session_open=_is_open(evidence, now_ns),
            orders_last_minute=before.last_minute,
            identical_age_ns=before.identical_age_ns,
            order_known=before.order_known,
            view=view,
            reach=reach_by_symbol(view, extra, question.terms),
            reduces=only_reduces(view, extra, question.terms),
            profit_today_e9=profit_e9,
            profit_unknown_for=unknown,
            drawdown_e9=self.drawdown_e9(stage, day, profit_e9),
            contradiction=contradiction(view, self.projection),
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

    def _settle(self, decision: Decision, stage: Stage, view: AccountView, wall_ns: int) -> Decision:
        """Remember what was decided."""
        question = decision.question
        if question.dry_run:
            return decision
        self.tally.checks += 1
        if not decision.verdict.approved:
            self.tally.refusals += 1
            for check in decision.verdict.checks:
                if not check.passed:
                    self.tally.by_check[check.code.name] = self.tally.by_check.get(check.code.name, 0) + 1
            return decision
        terms = question.terms
        approval = Approval(
            request_id=question.request_id,
            order_id=question.order_id,
            terms=terms,
            time_ns=decision.now_ns,
            stage=stage,
        )
        reservation = Reservation(
            approval_id=decision.verdict.approval_id,
            order_id=question.order_id,
            symbol=terms.symbol,
            side=terms.side,
            quantity=terms.quantity,
            account_version=view.version,
            expire_ns=wall_ns + self._approval_ns,
        )
        self.approvals.add(approval)
        self.reservations.hold(reservation)
        return replace(decision, approval=approval, reservation=reservation)


def _is_open(evidence: Evidence | None, now_ns: int) -> bool:
    return (evidence is not None and evidence.provenance.always_open) or session_open(now_ns)
