"""Decides whether an order makes sense by itself: quantity, price scale, tick, and the prices that its type needs."""

from __future__ import annotations

from dataclasses import dataclass

from minhos_mesh.runtime.money import INT64_MAX, OffScale, OffTick, check_scale, check_tick, format_e9, multiply_e9
from minhos_mesh.trading_engine.domain.errors import InvalidOrder, Violation
from minhos_mesh.trading_engine.domain.orders import Order, OrderTerms, OrderType


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentSpec:
    """What the engine must know of an instrument. Tick and multiplier in 1e-9 units."""

    symbol: str
    tick_e9: int
    multiplier_e9: int
    currency: str
    tradeable: bool = True


_NEEDS_LIMIT = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_NEEDS_STOP = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


def check_terms(terms: OrderTerms, spec: InstrumentSpec, *, max_quantity: int, reference_e9: int | None) -> None:
    """Accept an order that makes sense. Raises InvalidOrder with every violation.

    `reference_e9` is the last known price of the instrument; with it a price that is off by its scale is recognised
    by any power of ten. `max_quantity` is the most contracts that one order may carry whatever the risk limits say.
    """
    found = _quantity(terms.quantity, max_quantity)
    if not spec.tradeable:
        found.append(Violation("symbol", f"{spec.symbol} is an index and cannot be traded"))
    kind = terms.order_type
    found += _price("limit_price_e9", terms.limit_price_e9, kind in _NEEDS_LIMIT, kind, spec, reference_e9)
    found += _price("stop_price_e9", terms.stop_price_e9, kind in _NEEDS_STOP, kind, spec, reference_e9)
    if not found:
        found = _worth(terms, spec, reference_e9)
    if found:
        raise InvalidOrder(tuple(found))


def _worth(terms: OrderTerms, spec: InstrumentSpec, reference_e9: int | None) -> list[Violation]:
    """Refuse an order whose value, quantity x price x multiplier, is more than 64 bits of 1e-9 units can tell."""
    price_e9 = max(terms.limit_price_e9 or 0, terms.stop_price_e9 or 0, abs(reference_e9 or 0))
    each_e9 = multiply_e9(price_e9, spec.multiplier_e9)
    if each_e9 * terms.quantity <= INT64_MAX:
        return []
    most = INT64_MAX // each_e9
    text = f"{terms.quantity} contracts of {format_e9(each_e9)} each are too much to count: at most {most}"
    return [Violation("quantity", text, seen=str(terms.quantity), allowed=f"1 to {most}")]


def check_replacement(
    order: Order, terms: OrderTerms, spec: InstrumentSpec, *, max_quantity: int, reference_e9: int | None
) -> None:
    """Accept new terms for a working order. Raises InvalidOrder when they change nothing or undercut what is filled."""
    if terms == order.terms:
        raise InvalidOrder((Violation("quantity", "the new terms are the same as the present ones"),))
    if terms.quantity <= order.filled_quantity:
        text = f"{terms.quantity} is too few: {order.filled_quantity} are filled already, so more than that is needed"
        allowed = f"at least {order.filled_quantity + 1}"
        raise InvalidOrder((Violation("quantity", text, seen=str(terms.quantity), allowed=allowed),))
    check_terms(terms, spec, max_quantity=max_quantity, reference_e9=reference_e9)


def _quantity(quantity: int, max_quantity: int) -> list[Violation]:
    if 1 <= quantity <= max_quantity:
        return []
    text = f"{quantity} is not allowed: whole contracts from 1 to {max_quantity}"
    return [Violation("quantity", text, seen=str(quantity), allowed=f"1 to {max_quantity}")]


def _price(
    field: str, price_e9: int | None, needed: bool, kind: OrderType, spec: InstrumentSpec, reference_e9: int | None
) -> list[Violation]:
    """List what is wrong with one price of an order; nothing when it is as its type wants it."""
    if price_e9 is None:
        text = f"is missing: a {kind.value} order needs it"
        return [Violation(field, text, seen="unset", allowed="a price above 0")] if needed else []
    seen = format_e9(price_e9)
    if not needed:
        text = f"{seen} is given, and a {kind.value} order has no such price"
        return [Violation(field, text, seen=seen, allowed="unset")]
    if price_e9 <= 0:
        return [Violation(field, f"{seen} is not a price above 0", seen=seen, allowed="a price above 0")]
    try:
        check_scale(price_e9, field=field, tick_e9=spec.tick_e9, reference_e9=reference_e9)
        check_tick(price_e9, spec.tick_e9, field=field)
    except OffScale as error:
        meant = error.probably_meant_e9
        return [Violation(field, _without(field, str(error)), scale_meant_e9=meant, seen=str(price_e9))]
    except OffTick as error:
        return [Violation(field, _without(field, str(error)), tick_e9=spec.tick_e9, seen=seen)]
    return []


def _without(field: str, text: str) -> str:
    """Drop the field's name from the head of a sentence; the violation names it."""
    return text.removeprefix(f"{field}: ")
