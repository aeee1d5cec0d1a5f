"""Decides how a working order is changed: by the rules of a new order, asked of risk as a whole, once for each request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Final

from minhos_mesh.trading_engine.desk import Desk, failed
from minhos_mesh.trading_engine.domain import control as rules
from minhos_mesh.trading_engine.domain.errors import (
    ImpossibleTransition,
    OrderIsClosed,
    RequestIdReused,
    RiskConflict,
    RiskRefused,
    VenueUnavailable,
)
from minhos_mesh.trading_engine.domain.order_events import ReplaceRefused, ReplaceRequested
from minhos_mesh.trading_engine.domain.orders import MAX_QUANTITY, Order, OrderState, OrderTerms
from minhos_mesh.trading_engine.domain.validation import check_replacement
from minhos_mesh.trading_engine.ledger import Ledger
from minhos_mesh.trading_engine.ports import (
    Evidence,
    Risk,
    RiskQuestion,
    Venue,
    VenueConflict,
    VenueKnowsNothing,
    VenueRefused,
)
from minhos_mesh.trading_engine.reconcile import Reconciler
from minhos_mesh.trading_engine.store import Answered, Changes, Store

_KIND: Final = "ReplaceOrder"
_CHANGEABLE: Final = (OrderState.WORKING, OrderState.PARTIALLY_FILLED)


class Replacing:
    """Changes working orders. What the venue leaves unanswered is asked by the reconciler."""

    def __init__(
        self, *, ledger: Ledger, store: Store, desk: Desk, risk: Risk, venue: Venue, reconciler: Reconciler
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._desk = desk
        self._risk = risk
        self._venue = venue
        self._reconciler = reconciler

    async def replace(self, order_id: str, wish: ReplaceRequested, evidence: Evidence | None) -> Order:
        """Change a working order once risk agrees to what it would become.

        The same request id changes it once, in every life of the engine, and tells a refusal of risk again. Raises
        UnknownOrder, RequestIdReused, OrderIsClosed, ImpossibleTransition, InvalidOrder, RiskRefused, RiskUnavailable,
        and what control raises for a new order.
        """
        self._desk.check_venue()
        order = await self._desk.find(order_id)
        async with self._desk.risk_turn:  # one at a time, so that a request is looked up behind the one before it
            content = _content(order_id, wish)
            if await self._was_answered(wish.request_id, content):
                return await self._desk.find(order_id)
            order = await self._desk.find(order_id)
            terms = self._checked(order, wish, evidence)
            await self._ask_risk(order, terms, wish, evidence, content)
            answer = Answered(kind=_KIND, request_id=wish.request_id, content=content, answer="")
            changed, written = self._ledger.apply(order_id, wish, answer=answer)
            if written is not None:
                await written
        await self._send(changed, wish)
        return await self._desk.find(order_id)

    async def _was_answered(self, request_id: str, content: str) -> bool:
        """Tell whether a request was answered before. Raises RequestIdReused, and RiskRefused as it was told first."""
        known = await self._store.answer(_KIND, request_id)
        if known is None:
            return False
        if known.content != content:
            raise RequestIdReused(request_id)
        if known.answer:
            told = json.loads(known.answer)
            raise RiskRefused(told["message"], tuple(told["checks"]))
        return True

    def _checked(self, order: Order, wish: ReplaceRequested, evidence: Evidence | None) -> OrderTerms:
        """Give the whole order as it would become, if it may ask for that."""
        if order.state.is_terminal:
            raise OrderIsClosed(order.order_id, order.state.value, "replace")
        if order.state not in _CHANGEABLE:
            raise ImpossibleTransition(order.order_id, order.state.value, "replace")
        terms = terms_with(order.terms, wish)
        reference_e9 = None if evidence is None else evidence.reference_e9
        spec = self._desk.spec(terms.symbol)
        check_replacement(order, terms, spec, max_quantity=MAX_QUANTITY, reference_e9=reference_e9)
        self._check_control(order, terms)
        return terms

    def _check_control(self, order: Order, terms: OrderTerms) -> None:
        """Refuse what control would not let pass as a new order, unless it only lowers the quantity."""
        if terms.quantity < order.terms.quantity and replace(terms, quantity=order.terms.quantity) == order.terms:
            return
        rest = replace(terms, quantity=terms.quantity - order.filled_quantity)
        refusal = self._desk.refusal(rest, order.origin, own=order.remaining)
        if refusal is not None:
            rules.raise_refusal(refusal)

    async def _ask_risk(
        self, order: Order, terms: OrderTerms, wish: ReplaceRequested, evidence: Evidence | None, content: str
    ) -> None:
        seen = evidence or Evidence(
            provenance=order.origin.provenance, decision_ns=wish.at_ns, event_ns=wish.at_ns, sequence=0, epoch=0
        )
        question = RiskQuestion(
            request_id=question_id(order.order_id, wish.request_id),
            order_id=order.order_id,
            terms=terms,
            account=self._desk.account_view(seen.decision_ns),
            evidence=seen,
            replaces=True,
        )
        try:
            answer = await self._risk.check(question)
        except RiskConflict:
            raise RequestIdReused(wish.request_id) from None
        if not answer.approved:
            checks = tuple(check.code for check in answer.checks if not check.passed)
            refused = RiskRefused(failed(answer), checks)
            told = json.dumps({"message": refused.message, "checks": checks})
            kept = Answered(kind=_KIND, request_id=wish.request_id, content=content, answer=told)
            await self._ledger.record(Changes(answer=kept))
            raise refused
        self._check_control(order, terms)  # the stop may have been pressed while risk was thinking

    async def _send(self, order: Order, wish: ReplaceRequested) -> None:
        """Send what is written down. Raises RequestIdReused when the venue knows the id with other content."""
        try:
            view = await self._venue.replace(order, wish.request_id)
        except VenueConflict as error:
            refused = ReplaceRefused(at_ns=self._desk.at(order), message=str(error))
            await self._ledger.settle(order.order_id, refused)
            raise RequestIdReused(wish.request_id) from None
        except (VenueUnavailable, VenueKnowsNothing):
            self._reconciler.ask(order.order_id)
        except VenueRefused as error:
            refused = ReplaceRefused(at_ns=self._desk.at(order), message=str(error))
            await self._ledger.settle(order.order_id, refused)
        else:
            await self._desk.take_report(order.order_id, view.report)


def question_id(order_id: str, request_id: str) -> str:
    """Give the id under which risk is asked about a change: one for each request, at most 64 characters."""
    return f"{order_id}:{hashlib.blake2s(request_id.encode(), digest_size=8).hexdigest()}"


def terms_with(terms: OrderTerms, wish: ReplaceRequested) -> OrderTerms:
    """Give the terms as a wish would have them."""
    return replace(
        terms,
        quantity=terms.quantity if wish.quantity is None else wish.quantity,
        limit_price_e9=terms.limit_price_e9 if wish.limit_price_e9 is None else wish.limit_price_e9,
        stop_price_e9=terms.stop_price_e9 if wish.stop_price_e9 is None else wish.stop_price_e9,
    )


def _content(order_id: str, wish: ReplaceRequested) -> str:
    return json.dumps([order_id, wish.quantity, wish.limit_price_e9, wish.stop_price_e9])
