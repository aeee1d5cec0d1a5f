"""Decides the way of an order: written down, checked by risk one at a time, written as approved, sent, and never sent twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from minhos_mesh.runtime.log import get_logger
from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.errors import (
    OrderIsClosed,
    RequestIdReused,
    RiskConflict,
    RiskUnavailable,
    TradingError,
    UnknownOrder,
    UnknownSymbol,
    VenueChanged,
    VenueUnavailable,
)
from minhos_mesh.trading_engine.domain.order_events import (
    CancelRefused,
    CancelRequested,
    Denied,
    NotAtVenue,
    OrderCreated,
    OutcomeUnknown,
    RiskApproved,
    VenueReported,
)
from minhos_mesh.trading_engine.domain.orders import (
    MAX_QUANTITY,
    Order,
    OrderState,
    OrderTerms,
    Origin,
    Provenance,
    Reason,
    Side,
)
from minhos_mesh.trading_engine.domain.validation import InstrumentSpec, check_terms
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import (
    AccountView,
    Evidence,
    Risk,
    RiskAnswer,
    RiskQuestion,
    Venue,
    VenueKnowsNothing,
    VenueRefused,
)
from minhos_mesh.trading_engine.store import Changes, Store

ANSWER_PATIENCE_S: Final = 0.02
"""How long the venue's answer to an order is left to its stream to tell."""

_LOG: Final = get_logger("trading_engine.desk")
_ORDER_IDS: Final = uuid.UUID("6f0a2b0e-5d3c-5b61-9a52-3b8f0f3f7a11")
"""Name space of order ids; the same request gives the same order id in every life of the engine."""


class Start(Protocol):
    """Starts an owned background task."""

    def __call__(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` until it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskRules:
    """What the desk goes by. `max_quantity` bounds one order whatever the limits of risk are."""

    specs: Mapping[str, InstrumentSpec]
    venue_live: Callable[[], bool | None]
    """Whether the venue's money is real; None while the venue has not said."""
    max_quantity: int = MAX_QUANTITY
    stranded: str = ""
    """What is open at another venue than this one, and what to do; nothing is sent then. Empty when nothing is."""
    home: str = ""
    """Where that is open."""
    venue: str = ""
    """The venue that the configuration names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asked for; `quantity` None where it left that to the state."""

    terms: OrderTerms
    quantity: int | None
    reduce_only: bool
    signal_id: str | None

    def check(self, order: Order, request_id: str) -> None:
        """Refuse a request id that came before with other content. Raises RequestIdReused."""
        first = order.asked_terms
        terms = replace(self.terms, quantity=first.quantity if self.quantity is None else self.quantity)
        if (terms, self.reduce_only, self.signal_id) != (first, order.origin.reduce_only, order.origin.signal_id):
            raise RequestIdReused(request_id)


def asked_of(terms: OrderTerms, origin: Origin) -> Asked:
    """Give what an order asks for."""
    return Asked(terms=terms, quantity=terms.quantity, reduce_only=origin.reduce_only, signal_id=origin.signal_id)


def order_id_of(request_id: str) -> str:
    """Give the id of the order that a request leads to."""
    return str(uuid.uuid5(_ORDER_IDS, request_id))


class Desk:
    """Places, cancels and replaces orders. Everything that ends unanswered is left to `ask_later`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: Store,
        risk: Risk,
        venue: Venue,
        rules: DeskRules,
        start: Start,
        ask_later: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._risk = risk
        self._venue = venue
        self._rules = rules
        self._start = start
        self._ask_later = ask_later
        self.risk_turn = asyncio.Lock()
        """Held while risk is asked, so that it is asked about one order at a time."""
        self._deciding: dict[str, asyncio.Task[Order]] = {}
        self._sending: set[str] = set()

    def is_sending(self, order_id: str) -> bool:
        """Tell whether a request to take this order is on its way, so that its absence at the venue means nothing."""
        return order_id in self._sending

    def spec(self, symbol: str) -> InstrumentSpec:
        """Give the instrument of a symbol. Raises UnknownSymbol."""
        spec = self._rules.specs.get(symbol)
        if spec is None:
            raise UnknownSymbol(symbol, tuple(self._rules.specs))
        return spec

    async def find(self, order_id: str) -> Order:
        """Give an order from memory or disk. Raises UnknownOrder."""
        order = self._ledger.account.get(order_id) or await self._store.order(order_id)
        if order is None:
            raise UnknownOrder(order_id)
        return order

    async def known(self, request_id: str, asked: Asked, *, on_disk: bool = False) -> Order | None:
        """Give the order that a request has led to, once it is decided; long ended ones only if looked for `on_disk`.

        Raises RequestIdReused when something else was asked for then.
        """
        order_id = order_id_of(request_id)
        deciding = self._deciding.get(order_id)
        if deciding is not None:
            order: Order | None = await asyncio.shield(deciding)
        else:
            order = self._ledger.account.get(order_id)
            if order is None and on_disk:
                order = await self._store.order(order_id)
        if order is not None:
            asked.check(order, request_id)
        return order

    async def place(
        self,
        terms: OrderTerms,
        origin: Origin,
        evidence: Evidence,
        *,
        changes: Changes | None = None,
        wait_for_venue: bool = False,
    ) -> Order:
        """Place an order; returns once it is checked by risk and on disk, or as it stands for a known request.

        `changes` are written with it. With `wait_for_venue` it returns when the venue has answered too. Raises
        InvalidOrder, UnknownSymbol, TradingHalted, EmergencyStopped, RequestIdReused; nothing is written then.
        """
        asked = asked_of(terms, origin)
        known = await self.known(origin.request_id, asked)
        if known is not None:
            return known
        try:
            self._check(terms, origin, evidence)
        except TradingError:
            known = await self.known(origin.request_id, asked, on_disk=True)
            if known is not None:
                return known
            raise
        order_id = order_id_of(origin.request_id)
        task = self._start(
            self._decide(order_id, terms, origin, evidence, changes, wait_for_venue), f"order-{order_id}"
        )
        self._deciding[order_id] = task
        task.add_done_callback(lambda _: self._deciding.pop(order_id, None))
        order: Order = await asyncio.shield(task)
        return order

    @property
    def stranded(self) -> str:
        """What is open at another venue, while nothing may be sent; empty when nothing is."""
        return self._rules.stranded

    def check_venue(self) -> None:
        """Refuse whatever would send something while orders or positions are open elsewhere. Raises VenueChanged."""
        if self._rules.stranded:
            raise VenueChanged(self._rules.stranded, home=self._rules.home, venue=self._rules.venue)

    def _check(self, terms: OrderTerms, origin: Origin, evidence: Evidence) -> None:
        self.check_venue()
        spec = self.spec(terms.symbol)
        check_terms(terms, spec, max_quantity=self._rules.max_quantity, reference_e9=evidence.reference_e9)
        refusal = self.refusal(terms, origin)
        if refusal is not None:
            rules.raise_refusal(refusal)

    async def _decide(
        self,
        order_id: str,
        terms: OrderTerms,
        origin: Origin,
        evidence: Evidence,
        changes: Changes | None,
        wait_for_venue: bool,
    ) -> Order:
        created_ns = self._ledger.now_ns(origin.provenance, origin.decision_ns)
        created = OrderCreated(at_ns=created_ns, order_id=order_id, terms=terms, origin=origin)
        creating = self._start(self._ledger.create(created, changes), f"create-{order_id}")
        async with self.risk_turn:
            # Risk thinks while the order is being written; both are done before anything is sent.
            event = await self._ask_risk(order_id, terms, origin, evidence)
            is_new = await asyncio.shield(creating)
            order = await self.find(order_id)
            if not is_new:
                asked_of(terms, origin).check(order, origin.request_id)
                return order
            if order.state is not OrderState.NEW:  # cancelled while risk was thinking
                return order
            _, written = self._ledger.apply(order_id, event)
        await _done(written)
        if isinstance(event, RiskApproved):
            sending = self._start(self.send(order_id), f"send-{order_id}")
            if wait_for_venue:
                await asyncio.shield(sending)
        return await self.find(order_id)

    async def _ask_risk(
        self, order_id: str, terms: OrderTerms, origin: Origin, evidence: Evidence
    ) -> RiskApproved | Denied:
        """Turn the answer of risk, or its absence, into the event of the order."""

        def denied(reason: Reason, message: str, answer: RiskAnswer | None = None) -> Denied:
            at_ns = self._ledger.now_ns(origin.provenance, origin.decision_ns)
            return Denied(at_ns=at_ns, reason=reason, message=message, checks=() if answer is None else answer.checks)

        refusal = self.refusal(terms, origin)
        if refusal is not None:
            return denied(refusal.reason, refusal.message)
        question = RiskQuestion(
            request_id=order_id,
            order_id=order_id,
            terms=terms,
            account=self.account_view(evidence.decision_ns),
            evidence=evidence,
        )
        try:
            answer = await self._risk.check(question)
        except RiskUnavailable as error:
            return denied(Reason.RISK_UNAVAILABLE, f"the risk manager did not answer, and no answer means no: {error}")
        except RiskConflict as error:
            return denied(Reason.RISK_REFUSED, error.message)
        if not answer.approved:
            return denied(Reason.RISK_REFUSED, failed(answer), answer)
        refusal = self.refusal(terms, origin)  # the stop may have been pressed while risk was thinking
        if refusal is not None:
            return denied(refusal.reason, refusal.message, answer)
        at_ns = self._ledger.now_ns(origin.provenance, origin.decision_ns)
        return RiskApproved(at_ns=at_ns, approval_id=answer.approval_id, checks=answer.checks)

    def account_view(self, now_ns: int) -> AccountView:
        """Give the account as it stands in memory."""
        account = self._ledger.account
        return AccountView(
            positions=tuple(account.positions.values()),
            working_buy=account.working_by_side(Side.BUY),
            working_sell=account.working_by_side(Side.SELL),
            net_today_e9=account.net_today_e9(now_ns),
            version=account.version,
            working_order_ids=tuple(order.order_id for order in account.working_orders()),
        )

    def refusal(self, terms: OrderTerms, origin: Origin, own: int = 0) -> rules.Refusal | None:
        """Say why control does not let an order pass now, or None. `own` contracts of it are working already."""
        exposure = self._ledger.account.exposure(terms.symbol)
        working = (exposure.buying if terms.side is Side.BUY else exposure.selling) - own
        facts = {"side": terms.side, "quantity": terms.quantity, "position": exposure.position, "working": working}
        found = None
        if not origin.emergency:
            found = rules.refuse_order(self._ledger.control, **facts)  # type: ignore[arg-type]  # typed where it is made
        if found is None and origin.reduce_only:
            found = rules.refuse_increase(why="the order is reduce-only", **facts)  # type: ignore[arg-type]  # as above
        live = self._rules.venue_live()
        if live is None:
            unknown = rules.Refusal(reason=Reason.VENUE_UNAVAILABLE, message="the venue has not said yet who it is")
            return found or unknown
        return found or rules.check_live_rule(live, origin.provenance)

    async def send(self, order_id: str) -> None:
        """Send an order that is written as SUBMITTING, or ask for its outcome later."""
        order = self._ledger.account.get(order_id)
        if order is None or order.state not in (OrderState.SUBMITTING, OrderState.UNKNOWN) or order_id in self._sending:
            return
        if order.state is OrderState.SUBMITTING and (reason := self._reason_not_to_send(order)) is not None:
            never = NotAtVenue(at_ns=self.at(order), reason=reason, message="it was not sent")
            await self._ledger.settle(order_id, never)
            return
        self._sending.add(order_id)
        try:
            await self._send(order)
        finally:
            self._sending.discard(order_id)

    async def _send(self, order: Order) -> None:
        order_id = order.order_id
        try:
            view = await self._venue.submit(order)
        except VenueUnavailable as error:
            _LOG.warning("order.outcome_unknown", order_id=order_id, because=str(error))
            unknown = OutcomeUnknown(at_ns=self.at(order), message=f"the venue did not answer: {error}")
            _, written = self._ledger.apply(order_id, unknown)
            self._ask_later(order_id)
            await _done(written)
        except VenueRefused as error:
            rejected = VenueReported(
                at_ns=self.at(order),
                state=OrderState.REJECTED,
                revision=0,
                filled_quantity=0,
                reason=Reason.VENUE_REJECTED,
                message=str(error),
            )
            await self._ledger.settle(order_id, rejected)
        else:
            if order.origin.provenance is not Provenance.REPLAY:
                # The venue's stream tells the same, with the fills before it: taken from there it is one step, not two.
                await asyncio.sleep(ANSWER_PATIENCE_S)
            await self.take_report(order_id, view.settled)
            if view.settled.state is OrderState.UNKNOWN:
                self._ask_later(order_id)

    def _reason_not_to_send(self, order: Order) -> Reason | None:
        """Say why an order that was written as approved is not sent after all, or None."""
        if self._ledger.control.emergency is not None and not order.origin.emergency:
            return Reason.EMERGENCY_STOP
        return order.reason if order.cancel_requested else None

    async def take_report(self, order_id: str, report: VenueReported, *, wait: bool = True) -> Order:
        """Take in what the venue says of an order, and do what it leaves to do: missing fills, a cancel that waits.

        Returns when it is on disk, or at once without `wait`.
        """
        order, written = self._ledger.apply(order_id, report)
        if order.misses_fills or (order.cancel_requested and order.state.is_working):
            self._ask_later(order_id)
        if wait:
            await _done(written)
        return order

    async def cancel(self, order_id: str, *, actor: str, reason: Reason = Reason.CANCELED_BY_USER) -> Order:
        """Cancel an order; passes in every trading state. An order that is CANCELED is returned as it is.

        Raises UnknownOrder, OrderIsClosed.
        """
        order = await self.find(order_id)
        if order.state is OrderState.CANCELED:
            return order
        if order.state.is_terminal:
            raise OrderIsClosed(order_id, order.state.value, "cancel")
        order = await self._ledger.settle(order_id, CancelRequested(at_ns=self.at(order), reason=reason, actor=actor))
        if order.state.is_working and not self.stranded:
            await self.send_cancel(order_id)
        return await self.find(order_id)

    async def send_cancel(self, order_id: str) -> None:
        """Send the cancel of an order that wants one; what stays unanswered is asked for later."""
        order = self._ledger.account.get(order_id)
        if order is None or not order.state.is_working:
            return
        never_told = order.venue_order_id is None
        if order.state is OrderState.SUBMITTING or (order.state is OrderState.UNKNOWN and never_told):
            self._ask_later(order_id)
            return
        try:
            view = await self._venue.cancel(order_id)
        except VenueUnavailable:
            self._ask_later(order_id)
        except VenueKnowsNothing:
            self._ask_later(order_id)
        except VenueRefused as error:
            await self._ledger.settle(order_id, CancelRefused(at_ns=self.at(order), message=str(error)))
        else:
            await self.take_report(order_id, view.report)

    def at(self, order: Order) -> int:
        """Give the time of a step of an order."""
        return self._ledger.now_ns(order.origin.provenance, max(order.updated_ns, order.origin.decision_ns))


async def _done(written: Awaitable[bool] | None) -> None:
    if written is not None:
        await written


def failed(answer: RiskAnswer) -> str:
    """Give what the checks that did not pass say."""
    return " ".join(check.message or check.code for check in answer.checks if not check.passed) or "refused"
